"""The Dockerfiles of environments and of code, as text. Pure and deterministic.

They keep to what the BuildKit of Docker 20.10 knows without fetching a frontend.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from launch_prefect.errors import InvalidInput
from launch_prefect.images import conda
from launch_prefect.images.detect import NOTHING_SAID, Environment
from launch_prefect.images.shell import (
    CA_SECRET,
    GET_UV,
    HOME,
    PIP,
    UID,
    UV,
    VENV,
    install_packages,
    is_python_image,
    make_user,
    provide_python,
    with_settings,
)
from launch_prefect.spec.build import BuildSpec
from launch_prefect.spec.source import check_image

__all__ = ["CA_SECRET", "CODE", "FILES", "RUNTIME", "code_dockerfile", "environment_dockerfile", "printed"]

FILES = "files"
"""Folder of the build context that holds the dependency files."""
CODE = "code/workspace"
"""Folder of the build context that holds the code."""
RUNTIME = "runtime"
"""Folder of the build context that holds the runtime module."""

WORKSPACE = "/workspace"
RUNTIME_FOLDER = "/opt/launch-prefect"

_STAGE = "/opt/launch-environment"
_CONDA = "/opt/conda-environment"
_PYTHONPATH = f"PYTHONPATH={RUNTIME_FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}"


def environment_dockerfile(
    environment: Environment, base: str, *, build: BuildSpec = NOTHING_SAID, secrets: Iterable[str] = ()
) -> str:
    """The Dockerfile of an environment that is not the job's own.

    Args:
        environment: What is installed; its files lie in the context's folder `files`.
        base: Reference of the base image.
        build: The job's part in how it is built.
        secrets: Names of build secrets beside the CA bundle; each is in the environment variable of its name in the
            steps that install.

    Returns:
        The text. It ends as root; the image of the code on it names the user.

    Raises:
        InvalidInput: The base is no image reference, or a secret cannot have its name.
        ValueError: The environment is a Dockerfile of the job's own.
    """
    if environment.kind == "dockerfile":
        raise ValueError("A Dockerfile of the job's own is built as it is.")
    names = sorted(set(secrets))
    _check_secrets(names)
    lines = [f"# Environment: {_comment(environment.reason)}", f"FROM {_reference(base)}", "USER 0:0"]
    if build.system_packages:
        lines += ["", "# System packages", _run([install_packages(sorted(set(build.system_packages)))])]
    if build.user != "root":
        lines += ["", "# A user without rights, for the job", _run(make_user())]
    asks_for_python = environment.kind != "none" or environment.python or environment.requires_python
    if asks_for_python and not is_python_image(base, environment):
        lines += [
            "",
            "# Python: the base image's own where it fits",
            _run_installing(provide_python(environment), names),
        ]
        lines += [f"ENV PATH={VENV}/bin:$PATH"]
    if environment.kind != "none":
        lines += ["", "# Dependencies", f"COPY {FILES}/ {_STAGE}/", f"WORKDIR {_STAGE}"]
        lines += [_run_installing(_install(environment), names), *_variables(environment)]
    return "\n".join(lines) + "\n"


def code_dockerfile(environment_image: str, *, build: BuildSpec = NOTHING_SAID, with_code: bool = True) -> str:
    """The Dockerfile that puts code and the runtime module on an environment.

    Args:
        environment_image: Name of the environment's image.
        build: The job's part in how it is built: who the job runs as.
        with_code: False on an image of the job's own Dockerfile: its files, user and folder stay as they are.

    Returns:
        The text; the context has the folders `runtime` and, with code, `code/workspace`.

    Raises:
        InvalidInput: The environment's image is no image reference.
    """
    lines = [f"FROM {_reference(environment_image)}", f"COPY {RUNTIME}/ {RUNTIME_FOLDER}/"]
    if not with_code:
        return "\n".join([*lines, f"ENV {_PYTHONPATH}"]) + "\n"
    is_root = build.user == "root"
    owner = "" if is_root else f"--chown={UID}:{UID} "
    lines += [
        # The folder above it, so that the workspace keeps its mode: any user may write there
        f"COPY {owner}{CODE.removesuffix(WORKSPACE)}/ /",
        f"WORKDIR {WORKSPACE}",
        f"ENV PYTHONUNBUFFERED=1 {_PYTHONPATH}",
    ]
    # Numbers, not names: an image need not have names, and Kubernetes takes none as proof that a user is not root.
    lines += ["USER 0:0"] if is_root else [f"ENV HOME={HOME}", f"USER {UID}"]
    return "\n".join(lines) + "\n"


def printed(environment: Environment, base: str, build: BuildSpec = NOTHING_SAID, secrets: Iterable[str] = ()) -> str:
    """Both Dockerfiles of a job for people to read, each headed by a line that says what it is.

    Args:
        environment: What is installed.
        base: Reference of the base image; not used for a Dockerfile of the job's own.
        build: The job's part in how it is built.
        secrets: Names of build secrets beside the CA bundle.

    Raises:
        InvalidInput: The base is no image reference, or a secret cannot have its name.
    """
    own = environment.dockerfile
    if own is not None:
        first = environment.files[own].decode("utf-8", errors="replace")
        head = f"# ---- The job's own Dockerfile: {_comment(own)} (context: {_comment(environment.context)}) ----"
        second = "# ---- On it: the runtime module ----"
    else:
        first = environment_dockerfile(environment, base, build=build, secrets=secrets)
        head = "# ---- The environment: built once per content ----"
        second = "# ---- On it: the code and the runtime module ----"
    on_it = code_dockerfile("environment", build=build, with_code=own is None)
    return f"{head}\n{first.rstrip()}\n\n{second}\n{on_it}"


def _install(environment: Environment) -> list[str]:
    """Shell commands that install what the files say."""
    drop_uv = "rm -rf /tmp/uv /tmp/uv-*.lock"
    match environment.kind:
        case "requirements":
            return [f"{PIP} -r requirements.txt"]
        case "pyproject":
            return [GET_UV, f'{UV} pip install --python "$(command -v python)" -r pyproject.toml', drop_uv]
        case "uv":
            sync = "sync --frozen --no-install-project --no-install-workspace --no-dev"
            return [GET_UV, f'{UV} {sync} --python "$(command -v python)"', drop_uv]
        case "conda":
            solve = f"{UV} run --quiet --no-project --script {conda.SCRIPT} {conda.SPEC} {_CONDA}"
            pip = f"{UV} pip install --python {_CONDA}/bin/python -r {conda.PIP}"
            return [GET_UV, solve, *([pip] if conda.PIP in environment.files else []), drop_uv]
        case _:
            return []


def _variables(environment: Environment) -> list[str]:
    match environment.kind:
        case "uv":
            return [f"ENV VIRTUAL_ENV={VENV} PATH={VENV}/bin:$PATH"]
        case "conda":
            return [f"ENV CONDA_PREFIX={_CONDA} PATH={_CONDA}/bin:$PATH"]
        case _:
            return []


def _run(commands: Sequence[str]) -> str:
    return _instruction("RUN " + " \\\n    && ".join(commands))


def _run_installing(commands: Sequence[str], secrets: Sequence[str]) -> str:
    """A RUN with a cache that outlives builds and, in this step alone, the CA bundle and the build secrets."""
    mounts, steps = with_settings(commands, secrets)
    return _instruction("RUN " + " \\\n    ".join([*mounts, " \\\n    && ".join(steps)]))


def _instruction(text: str) -> str:
    """An instruction that nothing in it ends early. What users write is checked where it enters; this is the last word.

    Raises:
        InvalidInput: A value in it has the end of a line.
    """
    if re.search(r"(?<!\\)[\n\r\v\f\x00\x85\u2028\u2029]", text):
        raise InvalidInput(
            "A value for the Dockerfile has the end of a line in it.",
            mend="Write package names, versions and references on one line each.",
        )
    return text


def _reference(image: str) -> str:
    try:
        return check_image(image)
    except ValueError as error:
        raise InvalidInput(f"The base image {image!r} cannot be used: {error}.", mend="Correct base_image.") from None


def _check_secrets(names: Sequence[str]) -> None:
    for name in names:
        if name == CA_SECRET or not name.isascii() or not name.isidentifier():
            raise InvalidInput(
                f"A build secret cannot have the name {name!r}.",
                mend="Name it as an environment variable is, such as PIP_EXTRA_INDEX_URL.",
            )


def _comment(text: str) -> str:
    """A text that stays on its line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
