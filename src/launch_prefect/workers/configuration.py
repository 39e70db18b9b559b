"""Job variables that every target of ours understands, on top of those of the Prefect worker it extends."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Self, TypeVar

from prefect.client.orchestration import PrefectClient
from prefect.utilities.collections import deep_merge
from prefect.workers.base import BaseJobConfiguration
from pydantic import Field, field_validator

from launch_prefect.spec import BuilderSpec, BuildSpec, Resources, macros

C = TypeVar("C", bound="LaunchJobConfiguration")
# Prefect fills `{{ $NAME }}` from the environment of the process that fills the template: the agent's.
_AGENT_ENVIRONMENT = re.compile(r"\{\{\s*\$")
_SEEN_BY_ALL = {"command", "labels", "name", "source"}
_OF_QUEUE_ALONE = ("pass_env", "builder")
_NO_MACROS = {"command", "env", "source", "build", "builder", "git_credentials"}
_BLOCK = "prefect.blocks."


class ResolvedBuild(BuildSpec):
    """A job's `build` with the values of its secrets in place of the blocks' names."""

    secrets: dict[str, Any] = Field(default_factory=dict)


class ResolvedBuilder(BuilderSpec):
    """A queue's `builder` with values in place of the blocks' names."""

    registry_credentials: Any = Field(
        default=None,
        description="Block with the credentials of the registry: docker-registry-credentials, or aws-credentials for "
        "ECR. Default: the agent machine's own docker login.",
    )
    secrets: dict[str, Any] = Field(
        default_factory=dict, description="Build secrets of all jobs: name of an environment variable → block."
    )


class LaunchJobConfiguration(BaseJobConfiguration):
    """Configuration of one run, resolved from queue, job and run.

    Mappings merge deeply and lists replace: queue's defaults < job < run.
    """

    source: dict[str, Any] | None = Field(
        default=None,
        title="Source",
        description="What a command job runs, pinned to its content. Written by prefect-launch.",
    )
    resources: Resources = Field(
        default_factory=Resources,
        title="Resources",
        description="What a run needs of a machine, such as {cpu: 2, gpu: 1, memory: 8Gi}.",
    )
    timeout: float | None = Field(
        default=None,
        title="Time-out (seconds)",
        description="A run that takes longer, from its start, is stopped and ends as TimedOut.",
    )
    stop_grace: float = Field(
        default=10,
        title="Grace (seconds)",
        description="Time between SIGTERM and SIGKILL when a run is stopped.",
    )
    build: ResolvedBuild = Field(
        default_factory=ResolvedBuild,
        title="Build",
        description="How the job's image is made, where the code does not say it all. Written by prefect-launch.",
    )
    builder: ResolvedBuilder = Field(
        default_factory=ResolvedBuilder,
        title="Builder",
        description="Who builds images (docker, process, none) and the registry that keeps them. The queue's alone.",
    )
    git_credentials: Any = Field(
        default=None,
        title="Git credentials",
        description="Block with a token or an ssh key for the job's git repository.",
    )
    rebuild: bool = Field(
        default=False,
        title="Rebuild",
        description="Build anew what is there already, or what could not be built before.",
    )
    pass_env: list[str] = Field(
        default_factory=list,
        title="Environment passed on",
        description="Names of the agent's own environment variables that jobs of this queue get. None by default.",
    )

    @field_validator("resources", "build", "builder", mode="before")
    @classmethod
    def _nothing_said(cls, value: Any) -> Any:
        return value if value is not None else {}

    @classmethod
    async def from_template_and_values(
        cls,
        base_job_template: dict[str, Any],
        values: dict[str, Any],
        client: PrefectClient | None = None,
    ) -> Self:
        """Merge deeply before Prefect fills the template: Prefect merges only `env`.

        Raises:
            ValueError: The values are not the run's to set, or do not fit.
        """
        for name in _OF_QUEUE_ALONE:  # whoever submits must not choose what leaves the agent's machine, nor where to
            if name in values:
                raise ValueError(f"{name} can be set on the queue alone")
        _refuse_leaks(values)
        properties = base_job_template["variables"].get("properties", {})
        defaults = {
            name: schema["default"]
            for name, schema in properties.items()
            if isinstance(schema, dict) and isinstance(schema.get("default"), dict)
        }
        merged = {
            name: deep_merge(defaults[name], value) if isinstance(value, dict) and name in defaults else value
            for name, value in values.items()
        }
        return await super().from_template_and_values(base_job_template, merged, client=client)


def _refuse_leaks(values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        text = json.dumps(value, default=str)
        if _AGENT_ENVIRONMENT.search(text):
            raise ValueError(
                f"{name}: {{{{ $NAME }}}} would read the agent's environment; a queue's pass_env lists names"
            )
        if name in _SEEN_BY_ALL and _BLOCK in text:
            raise ValueError(f"{name}: a block's value would be seen by everybody there; put it into env")


def with_macros(configuration: C, values: Mapping[str, str]) -> C:
    """A configuration with the run macros of its resource configuration filled.

    Args:
        configuration: The configuration; its command and environment are filled elsewhere, with the run's config.
        values: Values of the run macros.

    Raises:
        InvalidInput: A macro is unknown or not well formed.
    """
    names = type(configuration).model_fields.keys() - _NO_MACROS
    filled = {name: _filled(getattr(configuration, name), values) for name in names}
    return configuration.model_copy(update=filled)


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return macros.fill(value, values)
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    return value


def run_variables(deployment: Mapping[str, Any] | None, run: Mapping[str, Any] | None) -> dict[str, Any]:
    """The job variables that count for a run.

    A run that we submitted carries all that its job said then, and what its job says now is not asked. One that was
    made elsewhere, such as in the Prefect UI, has its own over its deployment's, merged deeply.
    """
    own = copy.deepcopy(dict(run or {}))
    return own if "source" in own else deep_merge(copy.deepcopy(dict(deployment or {})), own)


def secret_names(base_job_template: Mapping[str, Any], values: Mapping[str, Any]) -> set[str]:
    """Names of the environment variables whose values come from blocks, and are therefore secret."""
    variables = base_job_template.get("variables", {}).get("properties", {})
    sources = (
        (base_job_template.get("job_configuration") or {}).get("env"),
        variables.get("env", {}).get("default"),
        values.get("env"),
        {key.removeprefix("env."): value for key, value in values.items() if key.startswith("env.")},  # as Prefect does
    )
    return {name for source in sources for name, value in _items(source) if _BLOCK in json.dumps(value, default=str)}


def _items(source: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(source, Mapping):
        yield from source.items()
