"""`prefect-launch submit`: put a run of a job on a queue."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from launch_prefect.cli import following
from launch_prefect.cli.options import (
    NO_BUILD,
    NO_GIT,
    BuildOptions,
    Entrypoint,
    GitOptions,
    Pairs,
    ResourceFile,
    Words,
)
from launch_prefect.cli.output import Json, facts, note, out, print_json
from launch_prefect.cli.run import summary
from launch_prefect.cli.session import QueueName, Yes, assignments, chosen_queue, reach, warn_if_nothing_runs
from launch_prefect.cli.taking import code_facts, tell_left_out, tell_of_git, with_code
from launch_prefect.cli.what import (
    Definition,
    command_of,
    job_from_file,
    job_from_folder,
    job_from_git,
    job_from_image,
    kind_of,
    names_a_file,
    names_a_folder,
    resources_from,
)
from launch_prefect.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from launch_prefect.client import Job, Queue, Run

USAGE = "Usage: prefect-launch submit [-q QUEUE] WHAT [OPTIONS] [-- COMMAND...]"
_WAYS = {"what": "WHAT", "image": "--image", "config": "-c/--config", "job": "--job"}
_KINDS = {
    "image": "--image names an image",
    "config": "-c names a job file",
    "git": "WHAT is the address of a repository already",
    "folder": "WHAT is a folder",
    "job": "WHAT names a job that exists",
}
_OPTIONS = {
    "command": "the command",
    "name": "--job-name",
    "env": "--env",
    "timeout": "--timeout",
    "job_type": "--job-type",
    "build": "how its image is built",
}


async def submit(
    what: str | None = None,
    /,
    *,
    queue: QueueName = None,
    image: str | None = None,
    config: Annotated[Path | None, Parameter(name=("--config", "-c"))] = None,
    job: str | None = None,
    entrypoint: Entrypoint = None,
    set_: Annotated[list[str] | None, Parameter(name="--set")] = None,
    env: Pairs = None,
    resource_config: ResourceFile = None,
    timeout: float | None = None,
    name: str | None = None,
    job_name: str | None = None,
    job_type: str | None = None,
    git: bool = False,
    of_git: GitOptions = NO_GIT,
    build: BuildOptions = NO_BUILD,
    rebuild: bool = False,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    yes: Yes = False,
    json: Json = False,
    command: Words = (),
) -> int:
    """Put a run of a job on a queue.

    The command of a job from a folder or from git follows after --, or is given with -E.

    ```
    prefect-launch submit ./train -E "python train.py" --set epochs=3 --follow
    prefect-launch submit https://example.com/team/train.git@v1.2 -E "python train.py"
    prefect-launch submit -q gpu --image registry.example.com/team/train:1.4 -- --epochs 3
    prefect-launch submit -q gpu -c job.yaml
    prefect-launch submit train --set learning_rate=0.01
    ```

    Without -q it is the queue named by LAUNCH_QUEUE, else the only queue there is, else "local". What the run
    executes is pinned now: later changes of the folder or the branch do not touch it.

    Args:
        what: A job's name, a folder, or a git repository as URL or URL@REF. A word that names a job and a folder
            means the folder where a command is given with it.
        queue: The queue.
        image: A container image to run, instead of WHAT. The command replaces the image's own.
        config: A job file (YAML), instead of WHAT.
        job: A job's name, whatever folder is here, instead of WHAT.
        entrypoint: Program and arguments, as one text. Or write them after --.
        set_: An input, KEY=VALUE; repeat it. Values are read as JSON where they are JSON.
        env: An environment variable, KEY=VALUE; repeat it.
        resource_config: File (YAML) of what this run needs, such as "gpu: 1" and "memory: 8Gi".
        timeout: Seconds after which the run is stopped.
        name: Name of the run.
        job_name: Name of the job. Default: the folder's, the repository's or the image's.
        job_type: Kind of job.
        git: Of a folder in a git work tree take the pushed commit and the changes since, instead of its files.
        of_git: Which part of a repository.
        build: How its image is made.
        rebuild: Build its image or environment anew, also where it is there or could not be built before.
        follow: Stream the log. The exit code is the outcome: 0 completed, 1 otherwise.
        yes: Do not ask, however large the folder is.
        json: Print JSON, and nothing else, on standard output.
        command: The words after --.
    """
    from launch_prefect.client import Queue
    from launch_prefect.spec import inputs

    way = one_way(what=what, image=image, config=config, job=job)
    definition = Definition(
        command=command_of(entrypoint, command),
        name=job_name,
        env=assignments(env or (), "--env"),
        timeout=timeout,
        job_type=job_type,
        build=build,
    )
    resources = resources_from(resource_config)
    defined = _define(way, what or image or config or "", definition, of_git, git=git)
    await reach()
    to = Queue(await chosen_queue(queue))
    submitted = defined or await _known(job or what or "", to, definition)
    if what is not None and defined is not None:
        await _note_job_of_that_name(what, submitted)
    values = inputs.parse_assignments(set_, submitted.spec.input_schema) if set_ else None
    run = await with_code(
        submitted,
        lambda: to.asubmit(submitted, config=values, resources=resources, name=name, rebuild=rebuild),
        message=f"Submitting {submitted.name}",
        yes=yes,
    )
    if not json:
        _tell(run, submitted)
    tell_left_out(submitted)
    if what is not None and submitted.snapshot is not None and not json:
        tell_of_git(what)
    await warn_if_nothing_runs(to)
    if not follow:
        if json:
            print_json(summary(run))
        return 0
    printer = following.LinePrinter(sys.stderr if json else sys.stdout)
    await following.while_watching(following.show_log(run, printer.show, printer.flush), run)
    if json:
        print_json(summary(run))
    else:
        out.print(following.outcome(run, brief=True), soft_wrap=True)
    return following.exit_code(run)


def one_way(**given: Any) -> str:
    """Which of the ways to say what is to run was taken.

    Raises:
        InvalidInput: None, or more than one.
    """
    named = [way for way, value in given.items() if value is not None]
    if len(named) == 1:
        return named[0]
    problem = f"{' and '.join(_WAYS[way] for way in named)} are given." if named else "Nothing to run is named."
    raise InvalidInput(
        problem, mend="Give one: a job's name, a folder, a git URL, --image REF, -c JOB.yaml or --job NAME."
    )


def _define(way: str, what: str | Path, definition: Definition, of_git: GitOptions, *, git: bool) -> Job | None:
    """The job that the options define; None where they name one that the server knows."""
    kind = kind_of(str(what)) if way == "what" else way
    if git and kind != "folder":
        raise InvalidInput(
            f"--git takes the commit of a folder, and {_KINDS[kind]}.", mend="Name the folder of a git work tree."
        )
    if kind == "config":
        return job_from_file(Path(what), definition, of_git)
    if kind == "git":
        return job_from_git(str(what), definition, of_git)
    if git:
        of_git.refuse("--git takes the commit that is checked out", but="git_credentials")
    else:
        of_git.refuse(_KINDS[kind])
    if kind == "image":
        return job_from_image(str(what), definition)
    if kind == "folder":
        # A plain word that names a folder too means the job where no command makes a job of the folder.
        plain = os.sep not in str(what) and str(what) not in (".", "..")
        if definition.command is None and definition.build.dockerfile is None and plain and not git:
            return None
        return job_from_folder(str(what), definition, git=git, credentials=of_git.git_credentials)
    return None


async def _known(name: str, queue: Queue, definition: Definition) -> Job:
    """A job that the server knows."""
    if definition.given and not names_a_folder(name):
        options = ", ".join(_OPTIONS[given] for given in definition.given)
        raise InvalidInput(
            f"{name!r} names a job that exists; {options} would change it.",
            mend="Give inputs with --set and resources with -R, or submit its folder or image with these options.",
        )
    from launch_prefect.client import Job

    try:
        return await Job.aget(name, queue=queue.name)
    except NotFound as error:
        if names_a_folder(name):
            job_from_folder(name, definition)  # says what the folder lacks
        if names_a_file(name):
            raise NotFound(
                f"{name!r} is a file, not a folder, and there is no job of that name.",
                mend=f"Submit its folder: prefect-launch submit . -- python {name}.",
            ) from None
        raise NotFound(error.message, mend=f"{error.mend} A folder is written as a path: ./{name}.") from None


async def _note_job_of_that_name(what: str, submitted: Job) -> None:
    """Say so where a word names both a folder and a job that is not made from it."""
    if "/" in what:
        return
    from launch_prefect.client import Job
    from launch_prefect.spec import CodeSource

    try:
        other = await Job.aget(what)
    except (NotFound, InvalidInput):
        return
    if not isinstance(other.spec.source, CodeSource) or other.name != submitted.name:
        note(f"There is also a job {what!r}; the folder is submitted. `submit --job {what}` runs the job.")


def _tell(run: Run, job: Job) -> None:
    facts(
        [
            ("run", str(run.id)),
            ("job", f"{run.job} ({job.spec.version})"),
            *code_facts(job),
            ("page", run.url),
        ],
        title=f"Submitted {run.name} to the queue {run.queue}.",
    )
    sys.stdout.flush()
