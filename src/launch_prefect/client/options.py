"""What jobs, runs and queues may say beside what they are: the options that several functions take alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict, get_type_hints

from launch_prefect.errors import InvalidInput
from launch_prefect.spec import BuilderSpec, BuildSpec, JobSpec, QueueSpec, Resources
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


class BuiltJobOptions(JobOptions, total=False):
    """Options of a job from code or from git.

    Attributes:
        build: How its image is made, where the code does not say it all, such as
            `{"base_image": "…", "system_packages": ["ffmpeg"]}`; see `BuildSpec`.
    """

    build: BuildSpec | Mapping[str, Any] | None


class RunOptions(TypedDict, total=False):
    """Options of a run; what is not given, or None, is the default.

    Attributes:
        config: Values of the job's inputs, over their defaults.
        resources: What this run needs, merged over the job's.
        name: Name of the run. Default: one that Prefect makes up.
        rebuild: Build its image or environment anew, also where it is there or could not be built before.
    """

    config: Mapping[str, Any] | None
    resources: ResourcesLike
    name: str | None
    rebuild: bool


class QueueOptions(TypedDict, total=False):
    """Options of a queue; what is not given, or None, is the default.

    Attributes:
        concurrency: Most runs in progress at once. Default: no limit.
        resource_config: Defaults of the target's job variables.
        builder: Who builds images and where they are kept, such as
            `{"registry": "registry.example.com/team", "platform": "linux/amd64"}`; see `BuilderSpec`.
        description: Shown in the Prefect UI.
    """

    concurrency: int | None
    resource_config: Mapping[str, Any] | None
    builder: BuilderSpec | Mapping[str, Any] | None
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
    refuse_unknown(options, accepted, what=f"A job from {next(iter(source))}")
    if isinstance(command, str):
        raise InvalidInput(f"The command {command!r} is one text.", mend=f"Give its words: {command.split()!r}.")
    words = list(command) if command is not None else None
    return JobSpec.parse({"name": name, **_given(options), "source": dict(source), "command": words}, what="the job")


def queue_spec(name: str, target: str, options: QueueOptions) -> QueueSpec:
    """A queue from its name, its target and its options.

    Raises:
        InvalidInput: A value does not fit.
        TypeError: There is no such option.
    """
    refuse_unknown(options, QueueOptions, what="A queue")
    return QueueSpec.parse({"queue_name": name, "target": target, **_given(options)}, what="the queue")


def refuse_unknown(options: Mapping[str, Any], accepted: type, *, what: str) -> None:
    """Refuse an option that there is not, as Python does for parameters.

    Raises:
        TypeError: There is one.
    """
    known = get_type_hints(accepted)
    for option in options.keys() - known.keys():
        close = nearest(option, known)
        raise TypeError(f"{what} takes no option {option!r}{f'; did you mean {close!r}?' if close else ''}")


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: dict(value) if isinstance(value, Mapping) else value for key, value in options.items() if value is not None
    }
