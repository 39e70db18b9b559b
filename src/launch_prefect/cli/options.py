"""Options that several commands take alike, as groups: cyclopts shows each field as an option of the command."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from launch_prefect.cli.session import assignments
from launch_prefect.errors import InvalidInput

Entrypoint = Annotated[str | None, Parameter(name=("--entrypoint", "-E"), allow_leading_hyphen=True)]
ResourceFile = Annotated[Path | None, Parameter(name=("--resource-config", "-R"))]
Pairs = Annotated[list[str] | None, Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(parse=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class GitOptions:
    """Which part of a git repository, and who may read it.

    Attributes:
        ref: Branch, tag or commit of a git repository. Or write it behind the address: URL@REF.
        subdir: Folder of the repository that is the job's.
        git_credentials: Prefect block with a token or an ssh key for the repository, as TYPE/NAME.
    """

    ref: str | None = None
    subdir: str | None = None
    git_credentials: str | None = None

    @property
    def source(self) -> dict[str, str]:
        """What is given, by the names of a job file's `source`."""
        named = {"ref": self.ref, "subdir": self.subdir, "credentials": self.git_credentials}
        return {name: value for name, value in named.items() if value is not None}

    def refuse(self, why: str, *, but: str = "") -> None:
        """Refuse what is given where no git repository is meant.

        Args:
            why: What is meant instead, such as `a folder is given`.
            but: Field that is accepted.

        Raises:
            InvalidInput: Something is given.
        """
        if given := [
            _flag(one.name) for one in fields(self) if getattr(self, one.name) is not None and one.name != but
        ]:
            raise InvalidInput(f"{' and '.join(given)}: only for a git repository, and {why}.", mend="Leave it out.")


@Parameter(name="*")
@dataclass(frozen=True)
class BuildOptions:
    """How the image of a job from code or git is made.

    Attributes:
        dockerfile: A Dockerfile of the job's own, below its folder.
        base_image: Image that a generated Dockerfile starts from; {python} in it takes the version.
        python: Python version, such as 3.12, over what the code says.
        system_package: A package of the base image's distribution, such as ffmpeg; repeat it.
        build_secret: A secret of the build alone, NAME=TYPE/BLOCK, such as PIP_EXTRA_INDEX_URL=secret/index; repeat it.
    """

    dockerfile: str | None = None
    base_image: str | None = None
    python: str | None = None
    system_package: Pairs = None
    build_secret: Pairs = None

    @property
    def given(self) -> dict[str, Any]:
        """What is given, by the names of a job file's `build`."""
        named: dict[str, Any] = {
            "dockerfile": self.dockerfile,
            "base_image": self.base_image,
            "python": self.python,
            "system_packages": self.system_package,
            "secrets": assignments(self.build_secret or (), "--build-secret") or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def flags(self) -> list[str]:
        """The options that are given."""
        return [_flag(one.name) for one in fields(self) if getattr(self, one.name)]


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions:
    """What the commands that define a job take alike.

    Attributes:
        queue: A queue it can run on; repeat it for several.
        entrypoint: Program and arguments, as one text; of an image, in place of its own. Or write them after --.
        name: Name of the job. Default: the folder's, the repository's, or the last part of the image's name.
        config_default: An input with its default, KEY=VALUE; repeat it. Runs may then set these inputs only.
        env: An environment variable, KEY=VALUE; repeat it.
        resource_config: File (YAML) of what its runs need, such as "gpu: 1" and "memory: 8Gi".
        timeout: Seconds after which a run is stopped.
        job_type: Kind of job.
        description: Shown in the Prefect UI.
        json: Print JSON, and nothing else, on standard output.
    """

    queue: Annotated[list[str] | None, Parameter(name=("--queue", "-q"))] = None
    entrypoint: Entrypoint = None
    name: str | None = None
    config_default: Pairs = None
    env: Pairs = None
    resource_config: ResourceFile = None
    timeout: float | None = None
    job_type: str | None = None
    description: str | None = None
    json: Annotated[bool, Parameter(name="--json", negative="")] = False


@Parameter(name="*")
@dataclass(frozen=True)
class BuilderOptions:
    """Who builds a queue's images, and where they are kept.

    Attributes:
        builder: Who builds: docker, process (environments, for target process) or none (images only are accepted).
            Default: what the target needs.
        registry: Registry and folder that keep built images, such as registry.example.com/team. Default: the engine.
        registry_credentials: Prefect block with the registry's credentials, as TYPE/NAME. Default: docker login.
        platform: Platform of built images, such as linux/amd64. Default: the engine's.
    """

    builder: Literal["docker", "process", "none"] | None = None
    registry: str | None = None
    registry_credentials: str | None = None
    platform: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """What is given, by the names of a queue file's `builder`."""
        named: Mapping[str, str | None] = {
            "type": self.builder,
            "registry": self.registry,
            "registry_credentials": self.registry_credentials,
            "platform": self.platform,
        }
        return {name: value for name, value in named.items() if value is not None}


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


NO_GIT = GitOptions()
NO_BUILD = BuildOptions()
NO_BUILDER = BuilderOptions()
NO_JOB = JobOptions()
