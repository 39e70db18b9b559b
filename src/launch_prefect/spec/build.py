"""How what a job runs in is made: the job's own part, and its queue's."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from launch_prefect.spec.base import Spec
from launch_prefect.spec.blocks import BlockName
from launch_prefect.spec.paths import check_inside
from launch_prefect.spec.source import check_image

_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*(:[a-z0-9]+)?(=[A-Za-z0-9.+:~-]+)?")
_SECRET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLATFORM = re.compile(r"[a-z0-9]+/[a-z0-9_]+(/[a-z0-9]+)?")
_REGISTRY = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)


def _check_python(value: str) -> str:
    if not _PYTHON.fullmatch(value):
        raise ValueError("a Python version is written as 3.12 or 3.12.4, in quotes")
    return value


def _check_base(value: str) -> str:
    check_image(value.replace("{python}", "3"))
    return value


def _check_package(value: str) -> str:
    if not _PACKAGE.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a system package, such as ffmpeg or libgl1=1.6.0-1")
    return value


def _check_secret_names(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not _SECRET.fullmatch(name):
            raise ValueError(f"{name!r}: a build secret's name is that of an environment variable")
    return value


def _check_platform(value: str) -> str:
    if not _PLATFORM.fullmatch(value):
        raise ValueError("a platform is written as linux/amd64 or linux/arm64")
    return value


def _check_registry(value: str) -> str:
    if "://" in value or "@" in value:
        raise ValueError("give the registry's address without scheme or user, such as registry.example.com/team")
    if not _REGISTRY.fullmatch(value):
        raise ValueError("give a registry and the folder of its images, such as registry.example.com/team")
    host = value.partition("/")[0]
    if "." not in host and ":" not in host and host != "localhost":
        return f"docker.io/{value}"  # Docker reads `team` as a user of Docker Hub
    return value


JobPath = Annotated[str, AfterValidator(check_inside)]
BuildSecrets = Annotated[dict[str, BlockName], AfterValidator(_check_secret_names)]
"""Name → Prefect block. An installer's own names, such as `PIP_EXTRA_INDEX_URL`, `UV_INDEX` or `NETRC`."""


class BuildSpec(Spec):
    """The job's part: what its image is made from. Nothing here makes generated images differ by machine.

    Attributes:
        dockerfile: A Dockerfile of the job's own, below its folder.
        context: Folder of the Dockerfile's build context, below the job's. Default: the job's folder.
        base_image: Image that a generated Dockerfile starts from; `{python}` in it takes the version.
        python: Python version, such as `3.12`, over what the code says.
        system_packages: Packages of the base image's distribution.
        user: `root` lets the job run as root. Default: a user without rights, whose home is writable.
        secrets: Secrets of the build alone; each is there in the steps that install, in the environment variable
            of its name, and in a Dockerfile of the job's own as a BuildKit secret of that id.
    """

    dockerfile: JobPath | None = None
    context: JobPath | None = None
    base_image: Annotated[str, AfterValidator(_check_base)] | None = None
    python: Annotated[str, AfterValidator(_check_python)] | None = None
    system_packages: tuple[Annotated[str, AfterValidator(_check_package)], ...] = ()
    user: Literal["root"] | None = None
    secrets: BuildSecrets = Field(default_factory=dict)

    @property
    def key(self) -> str:
        """What it says, as one text; secrets do not decide what is built."""
        return self.model_dump_json(exclude={"secrets"}, exclude_defaults=True)

    @model_validator(mode="after")
    def _check_dockerfile(self) -> Self:
        if self.context is not None and self.dockerfile is None:
            raise ValueError("context: it belongs to a dockerfile of the job's own; name that, too")
        if self.dockerfile is not None:
            for name in ("base_image", "python", "system_packages"):
                if getattr(self, name):
                    raise ValueError(f"{name}: the job's own dockerfile says this; leave one of them out")
        return self


class BuilderSpec(Spec):
    """The queue's part: who builds, and where images are kept.

    Attributes:
        type: `docker` builds with the agent's engine; `process` makes virtual environments, for target process;
            `none` builds nothing: only images are accepted. Default: what the target needs.
        registry: Registry and folder that built images are pushed to and looked for in, such as
            `registry.example.com/team`. None keeps them on the engine alone.
        registry_credentials: Block that holds the credentials: `docker-registry-credentials/…`, or
            `aws-credentials/…` for ECR. Default: the agent machine's own `docker login`.
        platform: Platform of built images, such as `linux/amd64`. Default: the engine's.
        base_image: Base image of jobs that name none. Default: the agent's LAUNCH_BASE_IMAGE.
        secrets: Build secrets of all jobs of the queue; see `BuildSpec.secrets`.
        max_builds: Most builds at once of one agent on this queue.
        timeout: Seconds that a build may take.
        ahead: How many waiting runs are built ahead of their turn while the queue is at its limit; 0 for none.
    """

    type: Literal["docker", "process", "none"] | None = None
    registry: Annotated[str, AfterValidator(_check_registry)] | None = None
    registry_credentials: BlockName | None = None
    platform: Annotated[str, AfterValidator(_check_platform)] | None = None
    base_image: Annotated[str, AfterValidator(_check_base)] | None = None
    secrets: BuildSecrets = Field(default_factory=dict)
    max_builds: int = Field(default=2, ge=1)
    timeout: float = Field(default=3600, gt=0)
    ahead: int = Field(default=2, ge=0)

    def refuse_for(self, target: str) -> None:
        """Refuse what a target cannot use.

        Raises:
            ValueError: It is such a builder.
        """
        if self.type in ("docker", "none") and target == "process":
            raise ValueError("builder.type: target process runs no images; its builder is process")
        if self.type == "process" and target != "process":
            raise ValueError(f"builder.type: target {target} runs images; its builder is docker or none")
        if target == "process":
            for name in ("registry", "platform", "base_image"):
                if getattr(self, name) is not None:
                    raise ValueError(f"builder.{name}: target process builds no images")
