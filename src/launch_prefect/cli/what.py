"""What is to run, from the words and options of a command line; asks the server nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.client import Job
    from launch_prefect.spec import Resources

_GIT = re.compile(r"(?:git\+)?(?:https?|ssh|git|file)://|git\+|[\w.-]+@[\w.-]+:", re.ASCII)

Kind = Literal["job", "folder"]


@dataclass(frozen=True)
class Definition:
    """What options say about a job that is being defined; None and empty leave the job's own.

    Attributes:
        command: Program and arguments.
        name: Name of the job.
        env: Environment variables.
        config: Defaults of its inputs.
        resources: What its runs need.
        timeout: Seconds after which a run is stopped.
        job_type: Kind of job.
        description: What the job is for.
    """

    command: tuple[str, ...] | None = None
    name: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    resources: Resources | None = None
    timeout: float | None = None
    job_type: str | None = None
    description: str | None = None

    @property
    def given(self) -> dict[str, Any]:
        """What is given, by the names of a job file's fields."""
        values = {name: value for name, value in vars(self).items() if value is not None and name != "resources"}
        if self.resources is not None:
            values["resources"] = self.resources.model_dump(exclude_none=True)
        if not self.env:
            del values["env"]
        return values


def kind_of(what: str) -> Kind:
    """Whether a word names a job or a folder: a folder that exists, or anything written as a path, is a folder.

    Raises:
        InvalidInput: It is the address of a git repository.
    """
    path = Path(what).expanduser()
    if path.is_dir():
        return "folder"
    if _GIT.match(what) or (what.endswith(".git") and not path.exists()):
        raise InvalidInput(
            f"{what} is a git repository; jobs from git come in the next version.",
            mend="Clone it and submit the folder.",
        )
    return "folder" if os.sep in what or what in (".", "..", "~") else "job"


def names_a_folder(what: str) -> bool:
    """Whether a word names a folder that exists."""
    return Path(what).expanduser().is_dir()


def names_a_file(what: str) -> bool:
    """Whether a word that is no folder names a file."""
    return Path(what).expanduser().is_file()


def command_of(entrypoint: str | None, words: Sequence[str]) -> tuple[str, ...] | None:
    """The job's command: from `-E TEXT`, which is split as a shell would, or the words after `--`.

    Raises:
        InvalidInput: Both are given, or the text cannot be split.
    """
    if entrypoint is None:
        return tuple(words) or None
    if words:
        raise InvalidInput("The command is given twice: with -E and after '--'.", mend="Give one of them.")
    try:
        split = tuple(shlex.split(entrypoint))
    except ValueError as error:
        raise InvalidInput(f"-E {entrypoint!r} cannot be split into words: {error}.") from None
    if not split:
        raise InvalidInput("-E is empty.", mend='Give a program and its arguments: -E "python train.py".')
    return split


def resources_from(path: Path | None) -> Resources | None:
    """The resources that a file asks for; None without a file."""
    if path is None:
        return None
    from launch_prefect.cli.files import read_yaml
    from launch_prefect.spec import Resources

    return Resources.parse(read_yaml(path, what="resource file"), what=f"The resource file {path}")


def job_from_folder(folder: str, definition: Definition) -> Job:
    """A job from a folder of code.

    Raises:
        InvalidInput: No command is given, or a value does not fit.
        NotFound: There is no such folder.
    """
    from launch_prefect.client import Job

    given = definition.given
    command = given.pop("command", ())
    if not command and Path(folder).expanduser().is_dir():
        where = "" if os.sep in folder else f", and there is no job {folder!r}"
        raise InvalidInput(
            f"The folder {folder!r} needs a command{where}.",
            mend='Give it: -E "python train.py", or after --: python train.py.',
        )
    return Job.from_code(folder, entrypoint=command, **given)


def job_from_image(image: str, definition: Definition) -> Job:
    """A job from an image.

    Raises:
        InvalidInput: A value does not fit.
    """
    from launch_prefect.client import Job

    return Job.from_image(image, **definition.given)


def job_from_file(path: Path, definition: Definition) -> Job:
    """A job from a job file, with what the options say in place of what the file says.

    Raises:
        InvalidInput: The file is not valid, or a value does not fit.
        NotFound: The file or the folder it names does not exist.
    """
    from launch_prefect.cli.files import read_yaml
    from launch_prefect.client import Job
    from launch_prefect.spec import CodeSource, JobSpec

    document = read_yaml(path, what="job file")
    given = definition.given
    for mapping in ("env", "resources"):  # these are merged; the rest is replaced
        own = document.get(mapping)
        if mapping in given and isinstance(own, dict):
            given[mapping] = {**own, **given[mapping]}
    spec = JobSpec.parse({**document, **given}, what=f"The job file {path}")
    if not isinstance(spec.source, CodeSource):
        return Job(spec)
    folder = path.expanduser().parent.joinpath(Path(spec.source.code).expanduser()).resolve()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise InvalidInput(f"The job file {path}: source.code: the folder {folder} {what}.")
    if spec.source.digest is not None or spec.source.store is not None:
        raise InvalidInput(f"The job file {path}: source: a file names a folder, not a digest.")
    return Job(spec, folder=folder)
