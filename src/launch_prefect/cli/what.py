"""What is to run, from the words and options of a command line; asks the server nothing."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launch_prefect.cli.options import NO_BUILD, NO_GIT, BuildOptions, GitOptions
from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.client import Job
    from launch_prefect.spec import Resources

_GIT = re.compile(r"(?:git\+)?(?:https?|ssh|git|file|ftps?)://|git\+|[\w.-]+@[\w.-]+:|.*\.git(?:@|$)", re.ASCII)
# Before the path: scheme and host, or user and host as ssh writes them. An `@` in there is no ref's.
_HOST = re.compile(r"[a-z][a-z0-9+.-]*://[^/]*|[^/@]*@[^/:]*:", re.ASCII)

Kind = Literal["job", "folder", "git"]
_COMMAND_MEND = 'Give it: -E "python train.py", or after --: python train.py.'


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
        build: How its image is made.
    """

    command: tuple[str, ...] | None = None
    name: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] | None = None
    resources: Resources | None = None
    timeout: float | None = None
    job_type: str | None = None
    description: str | None = None
    build: BuildOptions = NO_BUILD

    @property
    def given(self) -> dict[str, Any]:
        """What is given, by the names of a job file's fields."""
        apart = ("resources", "build")
        values = {name: value for name, value in vars(self).items() if value is not None and name not in apart}
        if self.resources is not None:
            values["resources"] = self.resources.model_dump(exclude_none=True)
        if not self.env:
            del values["env"]
        if build := self.build.given:
            values["build"] = build
        return values


def kind_of(what: str) -> Kind:
    """Whether a word names a folder, a git repository or a job.

    A folder that exists, or anything written as a path, is a folder; what is written as an address is a repository.
    """
    if Path(what).expanduser().is_dir():
        return "folder"
    if _GIT.match(what) and not Path(what).expanduser().exists():
        return "git"
    return "folder" if os.sep in what or what in (".", "..", "~") else "job"


def split_address(what: str) -> tuple[str, str | None]:
    """The address and the ref of `URL@REF`; None without one.

    A ref stands behind the path's last part, or behind `.git`, and then it may hold slashes.

    Raises:
        InvalidInput: Nothing stands behind the `@`.
    """
    what = what.removeprefix("git+")
    host = _HOST.match(what)
    start = host.end() if host else 0
    mark = what.find(".git@", start)
    at = mark + len(".git") if mark > start else what.find("@", what.rfind("/", start) + 1 or start)
    if at <= start or what[at - 1] in "/:":  # part of a name, as in https://example.com/@team
        return what, None
    if at + 1 == len(what):
        raise InvalidInput(f"Nothing stands behind the @ of {what}.", mend="Name a branch, a tag or a commit there.")
    return what[:at], what[at + 1 :]


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


def job_from_folder(folder: str, definition: Definition, *, git: bool = False, credentials: str | None = None) -> Job:
    """A job from a folder of code.

    Args:
        folder: The folder.
        definition: The rest of the job.
        git: Take the commit of its git work tree, and what is not committed, instead of its files.
        credentials: Block for that commit's repository.

    Raises:
        InvalidInput: No command is given, or a value does not fit; with `git`, it is in no work tree.
        NotFound: There is no such folder.
    """
    from launch_prefect.client import Job

    given = definition.given
    command = given.pop("command", None)
    if not command and definition.build.dockerfile is None and Path(folder).expanduser().is_dir():
        where = "" if os.sep in folder else f", and there is no job {folder!r}"
        raise InvalidInput(f"The folder {folder!r} needs a command{where}.", mend=_COMMAND_MEND)
    if git:
        return Job.from_work_tree(folder, entrypoint=command, credentials=credentials, **given)
    return Job.from_code(folder, entrypoint=command, **given)


def job_from_git(what: str, definition: Definition, git: GitOptions) -> Job:
    """A job from a git repository.

    Args:
        what: Its address, or `URL@REF`.
        definition: The rest of the job.
        git: Ref, folder and credentials.

    Raises:
        InvalidInput: A value does not fit, the ref is given twice, or no command is given.
    """
    from launch_prefect.client import Job

    url, ref = split_address(what)
    if ref is not None and git.ref is not None:
        raise InvalidInput(f"The ref is given twice: @{ref} and --ref {git.ref}.", mend="Give one of them.")
    given = definition.given
    command = given.pop("command", None)
    if not command and definition.build.dockerfile is None:
        raise InvalidInput("A job from git needs a command.", mend=_COMMAND_MEND)
    return Job.from_git(
        url,
        entrypoint=command,
        ref=ref or git.ref,
        subdir=git.subdir,
        credentials=git.git_credentials,
        **given,
    )


def job_from_image(image: str, definition: Definition) -> Job:
    """A job from an image.

    Raises:
        InvalidInput: A value does not fit, or something says how the image is to be built.
    """
    if flags := definition.build.flags:
        raise InvalidInput(
            f"{' and '.join(flags)}: only for jobs from code or git, and {image} is an image.", mend="Leave it out."
        )
    from launch_prefect.client import Job

    return Job.from_image(image, **definition.given)


def job_from_file(path: Path, definition: Definition, git: GitOptions = NO_GIT) -> Job:
    """A job from a job file, with what the options say in place of what the file says.

    Raises:
        InvalidInput: The file is not valid, or a value does not fit.
        NotFound: The file or the folder it names does not exist.
    """
    from launch_prefect.cli.files import read_yaml
    from launch_prefect.client import Job
    from launch_prefect.spec import CodeSource, GitSource, JobSpec

    document = read_yaml(path, what="job file")
    given = definition.given
    for mapping in ("env", "resources", "build"):  # these are merged; the rest is replaced
        own = document.get(mapping)
        if mapping in given and isinstance(own, dict):
            given[mapping] = _merged(own, given[mapping])
    source = document.get("source")
    if isinstance(source, dict) and "git" in source:
        given["source"] = {**source, **git.source}
    else:
        git.refuse(f"the job file {path} names none")
    spec = JobSpec.parse({**document, **given}, what=f"The job file {path}")
    if isinstance(spec.source, GitSource) and (spec.source.patch or spec.source.store):
        raise InvalidInput(f"The job file {path}: source: a file names a repository, not a patch.")
    if not isinstance(spec.source, CodeSource):
        return Job(spec)
    folder = path.expanduser().parent.joinpath(Path(spec.source.code).expanduser()).resolve()
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.is_file() else "does not exist"
        raise InvalidInput(f"The job file {path}: source.code: the folder {folder} {what}.")
    if spec.source.digest is not None or spec.source.store is not None:
        raise InvalidInput(f"The job file {path}: source: a file names a folder, not a digest.")
    return Job(spec, folder=folder)


def _merged(own: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What a file says with what options say over it: mappings deeply, the rest replaced."""
    both = {name: _merged(own[name], given[name]) for name in own.keys() & given.keys() if _mappings(own, given, name)}
    return {**own, **given, **both}


def _mappings(own: dict[str, Any], given: dict[str, Any], name: str) -> bool:
    return isinstance(own[name], dict) and isinstance(given[name], dict)
