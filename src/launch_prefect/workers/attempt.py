"""One attempt at a run: everything a target needs to start it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from launch_prefect import naming
from launch_prefect.errors import InvalidInput
from launch_prefect.settings import LaunchSettings
from launch_prefect.spec import CodeSource, GitSource, ImageSource, Resources, Source, macros
from launch_prefect.workers.configuration import LaunchJobConfiguration

AnySource = CodeSource | GitSource | ImageSource
_SOURCE: TypeAdapter[AnySource] = TypeAdapter(Source)


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One attempt at a run of a command job.

    Attributes:
        run_id: The flow run's id.
        run_name: Its name.
        job: Name of the job (the flow).
        queue: Name of the queue (the work pool).
        number: Which attempt this is, from 1.
        agent: Name of the agent that carries it out.
        author: Who submitted it, where that is known.
        config: The run's config.
        source: What it runs.
        command: Program and arguments with their macros; None takes the image's own.
        env: The job's own environment with its macros, secrets resolved.
        secrets: Secret values among them, and those that its build and its source need.
        resources: What it needs.
        timeout: Seconds it may take, or None.
        stop_grace: Seconds between SIGTERM and SIGKILL.
    """

    run_id: UUID
    run_name: str
    job: str
    queue: str
    number: int
    agent: str
    author: str
    config: Mapping[str, Any]
    source: AnySource
    command: tuple[str, ...] | None
    env: Mapping[str, str]
    secrets: frozenset[str]
    resources: Resources
    timeout: float | None
    stop_grace: float

    @property
    def labels(self) -> dict[str, str]:
        """Labels that everything made for this attempt carries; none is secret."""
        return {
            naming.LABEL: naming.LABEL_VERSION,
            naming.LABEL_RUN_ID: str(self.run_id),
            naming.LABEL_ATTEMPT: str(self.number),
            naming.LABEL_AGENT: self.agent,
            naming.LABEL_JOB: self.job,
            naming.LABEL_QUEUE: self.queue,
        }

    def facts(self, settings: LaunchSettings) -> dict[str, str]:
        """What exactly it runs and where its outputs are, for the run's labels; the target adds its own."""
        facts = {"launch.version": self.source.version, "launch.outputs": str(self.output_folder(settings))}
        if isinstance(self.source, GitSource):
            facts |= {"launch.git": self.source.git, "launch.commit": self.source.commit or ""}
            facts |= {"launch.patch": self.source.patch} if self.source.patch else {}
        elif isinstance(self.source, CodeSource):
            facts |= {"launch.code": self.source.digest or ""}
        return facts

    def macro_values(self, image: str = "") -> dict[str, str]:
        """Values of the run macros.

        Args:
            image: Reference of the image it runs, for `${image_uri}`.
        """
        return {
            "run_id": str(self.run_id),
            "run_name": self.run_name,
            "job_name": self.job,
            "queue_name": self.queue,
            "image_uri": image,
            "author": self.author,
        }

    def words(self, image: str = "") -> list[str] | None:
        """The command with its macros filled, or None where the image's own is meant."""
        if self.command is None:
            return None
        return macros.fill_command(self.command, self.config, self.macro_values(image))

    def environment(self, output_dir: str, image: str = "") -> dict[str, str]:
        """The job's environment: its own variables over those of DESIGN 3.4.

        Args:
            output_dir: The output folder as the job sees it.
            image: Reference of the image it runs.
        """
        values = self.macro_values(image) | macros.config_values(self.config)
        own = {k: v if v in self.secrets else macros.fill(v, values) for k, v in self.env.items()}
        return {
            "LAUNCH_RUN_ID": str(self.run_id),
            "LAUNCH_RUN_NAME": self.run_name,
            "LAUNCH_JOB": self.job,
            "LAUNCH_QUEUE": self.queue,
            "LAUNCH_ATTEMPT": str(self.number),
            "LAUNCH_CONFIG": json.dumps(dict(self.config)),
            "LAUNCH_OUTPUT_DIR": output_dir,
            **own,
        }

    def folder(self, settings: LaunchSettings) -> Path:
        """The attempt's working folder on this machine; removed at its end."""
        return settings.folder("runs", str(self.run_id), str(self.number))

    def output_folder(self, settings: LaunchSettings) -> Path:
        """The run's output folder on this machine; kept, and shared by all its attempts."""
        return settings.folder("outputs", str(self.run_id))


def source_from(variables: Any) -> AnySource:
    """The source that job variables name.

    Raises:
        InvalidInput: They name none that can be run.
    """
    try:
        return _SOURCE.validate_python(variables)
    except ValidationError:
        raise InvalidInput(
            f"The job's source can't be run: {variables!r}.", mend="Submit the job again with prefect-launch."
        ) from None


def words_from(command: str | None) -> tuple[str, ...] | None:
    """The words of a job variable `command`.

    Raises:
        InvalidInput: Its quotes do not match.
    """
    try:
        return tuple(shlex.split(command)) if command else None
    except ValueError as error:
        raise InvalidInput(f"The command {command!r} can't be split into words: {error}.") from None


def environment_from(configuration: LaunchJobConfiguration) -> dict[str, str]:
    """The job's own variables and those of the agent that the operator listed, whose values are no macros."""
    passed = (name for name in configuration.pass_env if name in os.environ)
    listed = {name: os.environ[name].replace("${", "$${") for name in passed}
    return listed | {name: value for name, value in configuration.env.items() if value is not None}
