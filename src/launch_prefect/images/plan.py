"""What determines an image, as keys. Pure: the same inputs give the same key on every machine."""

from __future__ import annotations

import hashlib
import json

from launch_prefect.images.detect import Environment

FORMAT = 1
"""Raise it whenever generated Dockerfiles or environments change in a way that the other inputs do not show."""

DEFAULT_PYTHON = "3.12"
"""Python version of a job that names none."""


def base_reference(template: str, python: str | None) -> str:
    """The base image of a job.

    Args:
        template: An image reference; `{python}` in it takes the version.
        python: Version that the job asks for, or None.
    """
    return template.replace("{python}", python or DEFAULT_PYTHON)


def environment_key(environment: Environment, *, base: str, platform: str) -> str:
    """Key of an environment. A change of the code alone does not change it.

    Args:
        environment: The dependency files and what they are.
        base: What it is built on: the base image's id, or an interpreter's version.
        platform: Operating system and processor, such as `linux/amd64`.

    Returns:
        `sha256:…`.
    """
    files = {name: hashlib.sha256(content).hexdigest() for name, content in environment.files.items()}
    return _digest(["environment", FORMAT, environment.kind, files, environment.python, base, platform])


def image_key(environment: str, code: str, runtime: str) -> str:
    """Key of an image of code on its environment.

    Args:
        environment: Key of the environment.
        code: Digest of the code.
        runtime: Digest of the runtime module that is put beside the code.

    Returns:
        `sha256:…`.
    """
    return _digest(["image", FORMAT, environment, code, runtime])


def _digest(parts: list[object]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
