"""What determines an image, as keys. Pure: the same inputs give the same key on every machine."""

from __future__ import annotations

import hashlib
import json

from launch_prefect.images.detect import NOTHING_SAID, Environment
from launch_prefect.spec.build import BuildSpec

FORMAT = 2
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


def environment_key(
    environment: Environment, *, base: str, platform: str, build: BuildSpec = NOTHING_SAID, code: str | None = None
) -> str:
    """Key of an environment. A change of the code alone does not change it, unless it is of the job's own Dockerfile.

    Build secrets do not enter it, neither names nor values: they say how something is reached, not what.

    Args:
        environment: The dependency files and what they are.
        base: What it is built on: the base image's id, or an interpreter's version.
        platform: Operating system and processor, such as `linux/amd64`.
        build: The job's part in how it is built.
        code: Digest of the code, which a Dockerfile of the job's own may copy from; not needed for other kinds.

    Returns:
        `sha256:…`.

    Raises:
        ValueError: The environment is a Dockerfile of the job's own, and there is no digest.
    """
    if environment.kind == "dockerfile":
        if code is None:
            raise ValueError("The environment of a job's own Dockerfile is determined by its code: give the digest.")
        # The base is what the Dockerfile names itself.
        return _digest(["dockerfile", FORMAT, code, environment.dockerfile, environment.context, platform])
    files = {name: hashlib.sha256(content).hexdigest() for name, content in environment.files.items()}
    python = [environment.python, environment.requires_python]
    packages = sorted(set(build.system_packages))
    return _digest(
        ["environment", FORMAT, environment.kind, files, python, base, platform, packages, build.user == "root"]
    )


def image_key(environment: str, code: str, runtime: str, *, build: BuildSpec = NOTHING_SAID) -> str:
    """Key of an image of code on its environment.

    Args:
        environment: Key of the environment.
        code: Digest of the code.
        runtime: Digest of the runtime module that is put beside the code.
        build: The job's part in how it is built: who the job runs as.

    Returns:
        `sha256:…`.
    """
    return _digest(["image", FORMAT, environment, code, runtime, build.user == "root"])


def _digest(parts: list[object]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
