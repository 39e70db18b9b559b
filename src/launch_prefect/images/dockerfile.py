"""The Dockerfiles of environments and of code, as text. Pure and deterministic.

They keep to what the BuildKit of Docker 20.10 knows without fetching a frontend.
"""

from __future__ import annotations

from launch_prefect.images.detect import Environment

FILES = "files"
"""Folder of the build context that holds the dependency files."""
CODE = "code/workspace"
"""Folder of the build context that holds the code."""
RUNTIME = "runtime"
"""Folder of the build context that holds the runtime module."""

WORKSPACE = "/workspace"
RUNTIME_FOLDER = "/opt/launch-prefect"
CA_SECRET = "ca_bundle"  # noqa: S105 - the name of a build secret, not its value

_STAGE = "/opt/launch-environment"
_VENV = "/opt/venv"
_CACHE = "/var/cache/launch-prefect"
_SECRET_FILE = f"/run/secrets/{CA_SECRET}"

_PIP = "python -m pip install --disable-pip-version-check --root-user-action=ignore"
# uv goes to a folder that is removed again, so that the image has the job's packages alone.
_GET_UV = f"{_PIP} --quiet --target /tmp/uv uv"
_DROP_UV = "rm -rf /tmp/uv /tmp/uv-*.lock"
_UV = "PYTHONPATH=/tmp/uv python -m uv"


def environment_dockerfile(environment: Environment, base: str) -> str:
    """The Dockerfile of an environment.

    Args:
        environment: What is installed; its files lie in the context's folder `files`.
        base: Reference of the base image.

    Returns:
        The text. Nothing is installed where the kind is `none`.
    """
    lines = [f"# {environment.reason}", f"FROM {base}"]
    if environment.kind != "none":
        lines += [f"COPY {FILES}/ {_STAGE}/", f"WORKDIR {_STAGE}", _run(_install(environment))]
    if environment.kind == "uv":
        lines.append(f"ENV VIRTUAL_ENV={_VENV} PATH={_VENV}/bin:$PATH")
    return "\n".join(lines) + "\n"


def code_dockerfile(environment_image: str) -> str:
    """The Dockerfile that puts code and the runtime module on an environment.

    Args:
        environment_image: Name of the environment's image.

    Returns:
        The text; the context has the folders `code/workspace` and `runtime`.
    """
    lines = [
        f"FROM {environment_image}",
        f"COPY {RUNTIME}/ {RUNTIME_FOLDER}/",
        # The folder above it, so that the workspace keeps its mode: any user may write there
        f"COPY {CODE.removesuffix(WORKSPACE)}/ /",
        f"WORKDIR {WORKSPACE}",
        f"ENV PYTHONUNBUFFERED=1 PYTHONPATH={RUNTIME_FOLDER}${{PYTHONPATH:+:$PYTHONPATH}}",
    ]
    return "\n".join(lines) + "\n"


def _install(environment: Environment) -> list[str]:
    """Shell commands that install what the files say."""
    match environment.kind:
        case "requirements":
            return [f"{_PIP} -r requirements.txt"]
        case "pyproject":
            return [_GET_UV, f"{_UV} pip install --system -r pyproject.toml", _DROP_UV]
        case "uv":
            sync = "sync --frozen --no-install-project --no-install-workspace --no-dev"
            return [_GET_UV, f'{_UV} {sync} --python "$(command -v python)"', _DROP_UV]
        case "none":
            return []


def _run(commands: list[str]) -> str:
    """One RUN: a cache that outlives builds, and the CA bundle, where one is given, in this step alone."""
    settings = [
        "PIP_BREAK_SYSTEM_PACKAGES=1",
        f"PIP_CACHE_DIR={_CACHE}/pip",
        "UV_BREAK_SYSTEM_PACKAGES=1",
        f"UV_CACHE_DIR={_CACHE}/uv",
        "UV_LINK_MODE=copy",
        f"UV_PROJECT_ENVIRONMENT={_VENV}",
        "UV_PYTHON_DOWNLOADS=never",
    ]
    bundle = f"export PIP_CERT={_SECRET_FILE} SSL_CERT_FILE={_SECRET_FILE}"
    steps = [
        f"export {' '.join(settings)}",
        f"if [ -s {_SECRET_FILE} ]; then {bundle}; fi",
        *commands,
    ]
    mounts = [
        f"--mount=type=cache,id=launch-prefect,target={_CACHE}",
        f"--mount=type=secret,id={CA_SECRET},target={_SECRET_FILE}",
    ]
    return "RUN " + " \\\n    ".join(mounts) + " \\\n    " + " \\\n    && ".join(steps)
