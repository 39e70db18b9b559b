"""`prefect-launch submit`: put a run of a job on a queue."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from launch_prefect.cli import following, output
from launch_prefect.cli.output import Json, facts, note, out, print_json, working
from launch_prefect.cli.run import summary
from launch_prefect.cli.session import QueueName, assignments, chosen_queue, reach, warn_if_nothing_runs
from launch_prefect.cli.what import (
    Definition,
    command_of,
    job_from_file,
    job_from_folder,
    job_from_image,
    kind_of,
    names_a_file,
    names_a_folder,
    resources_from,
)
from launch_prefect.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from launch_prefect.client import Job, Queue, Run

Entrypoint = Annotated[str | None, Parameter(name=("--entrypoint", "-E"), allow_leading_hyphen=True)]
ResourceFile = Annotated[Path | None, Parameter(name=("--resource-config", "-R"))]
Pairs = Annotated[list[str] | None, Parameter(negative="")]
USAGE = "Usage: prefect-launch submit [-q QUEUE] WHAT [OPTIONS] [-- COMMAND...]"
_WAYS = {"what": "WHAT", "image": "--image", "config": "-c/--config", "job": "--job"}
_OPTIONS = {
    "command": "the command",
    "name": "--job-name",
    "env": "--env",
    "timeout": "--timeout",
    "job_type": "--job-type",
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
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    json: Json = False,
    command: Annotated[tuple[str, ...], Parameter(parse=False)] = (),
) -> int:
    """Put a run of a job on a queue.

    The command of a folder's job follows after --, or is given with -E.

    ```
    prefect-launch submit ./train -E "python train.py" --set epochs=3 --follow
    prefect-launch submit -q gpu --image registry.example.com/team/train:1.4 -- --epochs 3
    prefect-launch submit -q gpu -c job.yaml
    prefect-launch submit train --set learning_rate=0.01
    ```

    Without -q it is the queue named by LAUNCH_QUEUE, else the only queue there is, else "local". What the run
    executes is pinned now: later changes of the folder do not touch it.

    Args:
        what: A job's name or a folder. A word that names both means the folder where a command is given with it.
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
        job_name: Name of the job. Default: the folder's or the image's.
        job_type: Kind of job.
        follow: Stream the log. The exit code is the outcome: 0 completed, 1 otherwise.
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
    )
    resources = resources_from(resource_config)
    defined = _define(way, what or image or config or "", definition)
    await reach()
    to = Queue(await chosen_queue(queue))
    submitted = defined or await _known(job or what or "", to, definition)
    if what is not None and defined is not None:
        await _note_job_of_that_name(what, submitted)
    values = inputs.parse_assignments(set_, submitted.spec.input_schema) if set_ else None
    with working(f"Submitting {submitted.name}"):
        run = await to.asubmit(submitted, config=values, resources=resources, name=name)
    if not json:
        _tell(run, submitted)
    tell_left_out(submitted)
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
    raise InvalidInput(problem, mend="Give one: a job's name, a folder, --image REF, -c JOB.yaml or --job NAME.")


def _define(way: str, what: str | Path, definition: Definition) -> Job | None:
    """The job that the options define; None where they name one that the server knows."""
    if way == "image":
        return job_from_image(str(what), definition)
    if way == "config":
        return job_from_file(Path(what), definition)
    if way == "what" and kind_of(str(what)) == "folder":
        # A plain word that names a folder too means the job where no command makes a job of the folder.
        if definition.command is None and os.sep not in str(what) and str(what) not in (".", ".."):
            return None
        return job_from_folder(str(what), definition)
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
    code = job.snapshot
    facts(
        [
            ("run", str(run.id)),
            ("job", f"{run.job} ({job.spec.version})"),
            ("code", f"{code.files} file{'' if code.files == 1 else 's'}, {output.size(code.size)}" if code else None),
            ("page", run.url),
        ],
        title=f"Submitted {run.name} to the queue {run.queue}.",
    )
    sys.stdout.flush()


def tell_left_out(job: Job) -> None:
    """Say which files of a folder its snapshot does not hold."""
    code = job.snapshot
    if code and code.left_out:
        shown = ", ".join(code.left_out[:5]) + (f" and {len(code.left_out) - 5} more" if len(code.left_out) > 5 else "")
        note(f"Left out of the code, because they may hold secrets or are no files: {shown}.")
