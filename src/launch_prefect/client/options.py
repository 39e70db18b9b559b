"""What a job may say beside its source and its command: the same for jobs from folders, from git and from images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, cast

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import JobSpec, Resources
from launch_prefect.spec.base import nearest

ResourcesLike = Resources | Mapping[str, Any] | None


class JobOptions(TypedDict, total=False):
    """Options of every job; what is not given, or None, is the default.

    Attributes:
        name: Name of the job. Default: the folder's, the repository's, or the last part of the image's name.
        env: Environment variables.
        config: Defaults of the job's inputs; a run may then set these keys only. None lets it set any.
        resources: What a run needs, such as `{"gpu": 1, "memory": "8Gi"}`.
        timeout: Seconds after which a run is stopped.
        job_type: Kind of job, for agents that take only some.
        description: Shown in the Prefect UI.
    """

    name: str | None
    env: Mapping[str, str] | None
    config: Mapping[str, Any] | None
    resources: ResourcesLike
    timeout: float | None
    job_type: str | None
    description: str | None


def job_spec(
    source: Mapping[str, Any],
    command: Sequence[str] | None,
    options: JobOptions,
    *,
    name: str,
    accepted: type = JobOptions,
) -> JobSpec:
    """A job from its source, its command and its options.

    Args:
        source: What to run, as a job file writes it.
        command: Program and arguments.
        options: The rest.
        name: Name of a job that is given none.
        accepted: The options that there are, as a typed dictionary.

    Raises:
        InvalidInput: A value does not fit.
        TypeError: There is no such option.
    """
    for option in options.keys() - accepted.__annotations__.keys():
        close = nearest(option, accepted.__annotations__)
        hint = f"; did you mean {close!r}?" if close else ""
        raise TypeError(f"A job from {next(iter(source))} takes no option {option!r}{hint}")
    if isinstance(command, str):
        raise InvalidInput(f"The command {command!r} is one text.", mend=f"Give its words: {command.split()!r}.")
    given = {key: _plain(value) for key, value in cast(dict[str, Any], options).items() if value is not None}
    words = list(command) if command is not None else None
    return JobSpec.parse({"name": name, **given, "source": dict(source), "command": words}, what="the job")


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
