"""What a job is, as a user writes it and as a queue keeps it."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import macros
from launch_prefect.spec.base import Spec
from launch_prefect.spec.build import BuildSpec
from launch_prefect.spec.inputs import check, schema_for
from launch_prefect.spec.resources import Resources
from launch_prefect.spec.source import ImageSource, Source

# Prefect refuses these in the names of flows, deployments and work pools.
_FORBIDDEN = re.compile(r"[/%&><\x00-\x1f]")


def check_name(value: str) -> str:
    """A name that Prefect, a command line and an address all accept.

    Raises:
        ValueError: It is not, with what is wrong.
    """
    if not value.strip() or value != value.strip():
        raise ValueError("a name is not empty and has no space at its ends")
    if found := _FORBIDDEN.search(value):
        raise ValueError(f"a name may not contain {found.group()!r}")
    if value.startswith("-"):
        raise ValueError("a name may not start with '-'")
    return value


def _words(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(str(word) if isinstance(word, int | float) else word for word in value)
    return value


def _texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: str(v).lower() if isinstance(v, bool) else str(v) if isinstance(v, int | float) else v
            for k, v in value.items()
        }
    return value


def _check_env(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of an environment variable")
        if "\x00" in text:
            raise ValueError(f"{name} contains a NUL character")
    return value


Name = Annotated[str, AfterValidator(check_name)]
Command = Annotated[tuple[str, ...], BeforeValidator(_words)]
Env = Annotated[dict[str, str], BeforeValidator(_texts), AfterValidator(_check_env)]


class JobSpec(Spec):
    """A job: what to run, with which inputs, needing what.

    Attributes:
        name: The job's name, unique on a server; it is the Prefect flow's name.
        source: A folder of code, a git repository or an image.
        command: Program and arguments. An image may leave it out and use its own.
        env: Environment variables of the job.
        config: Defaults of its inputs. None declares no inputs; a run may then set any key.
        resources: What a run needs.
        build: How its image is made, where the code does not say it all.
        timeout: Seconds after which a run is stopped, from its start.
        job_type: Kind of job, for agents that take only some kinds.
        description: Shown in the Prefect UI.
    """

    name: Name
    source: Source
    command: Command | None = None
    env: Env = Field(default_factory=dict)
    config: dict[str, Any] | None = None
    resources: Resources = Resources()
    build: BuildSpec = BuildSpec()
    timeout: float | None = Field(default=None, gt=0)
    job_type: Name = "default"
    description: str = ""

    @model_validator(mode="after")
    def _check_command(self) -> Self:
        if self.command is not None and (not self.command or not self.command[0]):
            raise ValueError("command: give a program and its arguments, such as [python, train.py]")
        if any("\x00" in word for word in self.command or ()):
            raise ValueError("command: it contains a NUL character, which no program can be given")
        if self.command is None and not isinstance(self.source, ImageSource) and self.build.dockerfile is None:
            raise ValueError("command: a job from code needs one, such as [python, train.py]")
        if isinstance(self.source, ImageSource) and self.build != BuildSpec():
            raise ValueError("build: an image is built already; this is for jobs from code or git")
        keys = list(self.config) if self.config is not None else None
        if any("prefect.blocks." in word for word in self.command or ()):
            raise InvalidInput(
                "command: a block's value would be seen by everybody on the machine.",
                mend="Put it into env, and read it from there.",
            )
        macros.check(self.command or (), keys, where="command", args=True)
        macros.check(tuple(self.env.values()), keys, where="env")
        check(self.config or {}, self.input_schema)
        return self

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON schema of the job's inputs."""
        return schema_for(self.config)

    @property
    def version(self) -> str:
        """What the job runs, shown as the deployment's version."""
        return self.source.version
