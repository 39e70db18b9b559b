"""Read from a folder of code what its environment is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from launch_prefect.errors import InvalidInput
from launch_prefect.images import own_dockerfile, python_version
from launch_prefect.images.conda import conda_environment, conda_file
from launch_prefect.images.pyproject import (
    has_dependencies,
    is_project,
    left_to,
    locked_files,
    read_project,
    requires_python,
)
from launch_prefect.images.requirements import requirements_files, requirements_named
from launch_prefect.spec.build import BuildSpec

Kind = Literal["dockerfile", "uv", "pyproject", "requirements", "conda", "none"]

NOTHING_SAID = BuildSpec()
"""The `build:` of a job that has none."""

_DOCKERFILE_SAYS = ("base_image", "python", "system_packages", "user")


@dataclass(frozen=True, slots=True)
class Environment:
    """What a job's dependencies come from.

    Attributes:
        kind: `dockerfile` (the job's own), `uv` (a lock file), `pyproject`, `requirements`, `conda` or `none`.
        reason: Why, for the log: `requirements.txt found`.
        files: The files that decide it: path → content. Those of the code, and those made from its
            `environment.yml` or, as a `requirements.txt`, from what its `pyproject.toml` names.
        python: Python version the code asks for, such as `3.12`: from the job's `build.python`, `.python-version`
            or `runtime.txt`, else the lower bound of `requires-python`. None where it asks for none, and for
            `conda`, whose packages bring their own.
        requires_python: Versions that would do, such as `>=3.10`, where the code names no single one.
        dockerfile: Path of the job's own Dockerfile below the folder, for the kind of that name.
        context: Folder of its build context, below the folder.
        notes: What else the user should know, lines for the log.
    """

    kind: Kind
    reason: str
    files: Mapping[str, bytes]
    python: str | None = None
    requires_python: str | None = None
    dockerfile: str | None = None
    context: str = "."
    notes: tuple[str, ...] = ()


def detect(
    folder: Path,
    *,
    build: BuildSpec = NOTHING_SAID,
    command: Sequence[str] | None = None,
    dockerfiles: bool = True,
) -> Environment:
    """Find the first that fits.

    `build.dockerfile`; `Dockerfile.launch` or `Dockerfile.wandb` beside the entrypoint or at the top; `uv.lock` (with
    `pyproject.toml`); `pyproject.toml`; `requirements.txt`; `environment.yml`.

    Args:
        folder: The code.
        build: The job's part in how it is built.
        command: The job's command; its first word that is a file in the code is the entrypoint.
        dockerfiles: Whether Dockerfiles can be used: not on target process, which runs no images.

    Returns:
        Its environment.

    Raises:
        InvalidInput: A dependency file is not valid, names what is not in the folder or cannot be installed, or has
            credentials; or `build.dockerfile` is set where it cannot be used.
        NotFound: `build.dockerfile`, or a file that a requirements file includes, is not there.
    """
    if build.dockerfile is not None:
        if not dockerfiles:
            raise InvalidInput(
                f"build.dockerfile: target process runs no images, so it cannot use {build.dockerfile}.",
                mend="Submit the job to a queue of target docker, or leave build.dockerfile out.",
            )
        return _own_dockerfile(folder, own_dockerfile.named(folder, build), build)
    own = own_dockerfile.beside_entrypoint(folder, command)
    if own is not None and dockerfiles:
        return _own_dockerfile(folder, own, build)
    environment = _dependencies(folder, build)
    if dockerfiles:
        return environment
    return _for_process(environment, own, build)


def _own_dockerfile(folder: Path, own: own_dockerfile.Found, build: BuildSpec) -> Environment:
    notes = [f"{other} is passed over: {own.dockerfile} comes first." for other in own.others]
    if said := [name for name in _DOCKERFILE_SAYS if getattr(build, name)]:
        notes.append(f"build: {', '.join(said)} is not used: {own.dockerfile} says it.")
    files = {own.dockerfile: (folder / own.dockerfile).read_bytes()}
    return Environment(
        "dockerfile", own.reason, files, dockerfile=own.dockerfile, context=own.context, notes=tuple(notes)
    )


def _for_process(environment: Environment, own: own_dockerfile.Found | None, build: BuildSpec) -> Environment:
    """The same, with what target process does not use."""
    reason = environment.reason
    if own is not None:
        passed_over = ", ".join([own.dockerfile, *own.others])
        reason += f" ({passed_over} is passed over: target process runs no images)"
    unused = [name for name in ("base_image", "system_packages") if getattr(build, name)]
    notes = [f"build.{name} is not used: target process runs on the agent's machine as it is." for name in unused]
    return replace(environment, reason=reason, notes=(*environment.notes, *notes))


def _dependencies(folder: Path, build: BuildSpec) -> Environment:
    project = read_project(folder)
    exact, requires = build.python or python_version.pinned(folder), requires_python(project)
    python, requires = exact or python_version.lower_bound(requires), None if exact else requires

    def found(kind: Kind, reason: str, files: Mapping[str, bytes]) -> Environment:
        return Environment(kind, reason, files, python, requires)

    if project is not None and (folder / "uv.lock").is_file():
        return found("uv", "uv.lock found", locked_files(folder, project))
    has_requirements = (folder / "requirements.txt").is_file()
    has_others = has_requirements or conda_file(folder) is not None
    if project is not None and is_project(project, has_others=has_others):
        if has_dependencies(project):
            content = (folder / "pyproject.toml").read_bytes()
            return found("pyproject", "pyproject.toml found", {"pyproject.toml": content})
        if names := left_to(project):
            files = requirements_named(folder, names, by="pyproject.toml, [tool.setuptools.dynamic]")
            return found("requirements", f"pyproject.toml leaves its dependencies to {', '.join(names)}", files)
        return found("none", "pyproject.toml names no dependencies", {})
    if has_requirements:
        return found("requirements", "requirements.txt found", requirements_files(folder))
    conda = conda_environment(folder, python=build.python, pinned=exact)
    if conda is not None:
        return Environment("conda", f"{conda.name} found", conda.files, notes=conda.notes)
    return found("none", "no uv.lock, pyproject.toml, requirements.txt or environment.yml found", {})
