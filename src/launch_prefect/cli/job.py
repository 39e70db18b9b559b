"""`prefect-launch job`: jobs that the server knows."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from launch_prefect.cli.output import Json, facts, note, print_json, say, table, working
from launch_prefect.cli.run import value_text
from launch_prefect.cli.session import QueueName, Yes, assignments, chosen_queue, confirm, reach
from launch_prefect.cli.submit import Entrypoint, Pairs, ResourceFile, tell_left_out
from launch_prefect.cli.what import Definition, command_of, job_from_folder, job_from_image, kind_of, resources_from

if TYPE_CHECKING:
    from launch_prefect.client import Job

Queues = Annotated[list[str] | None, Parameter(name=("--queue", "-q"))]
Defaults = Annotated[list[str] | None, Parameter(name="--config-default")]
Words = Annotated[tuple[str, ...], Parameter(parse=False)]

app = App(name="job", help="Define jobs, look at them, delete them.")
create = App(name="create", help="Define a job and put it on queues, without running it.")
app.command(create)


@create.command
async def code(
    folder: str,
    /,
    *,
    queue: Queues = None,
    entrypoint: Entrypoint = None,
    name: str | None = None,
    config_default: Defaults = None,
    env: Pairs = None,
    resource_config: ResourceFile = None,
    timeout: float | None = None,
    job_type: str | None = None,
    description: str | None = None,
    json: Json = False,
    command: Words = (),
) -> None:
    """Define a job from a folder of code.

    ```
    prefect-launch job create code ./train -q gpu --config-default learning_rate=0.01 -- python train.py
    ```

    Args:
        folder: The folder. Its content is taken now.
        queue: A queue it can run on; repeat it for several.
        entrypoint: Program and arguments, as one text. Or write them after --.
        name: Name of the job. Default: the folder's.
        config_default: An input with its default, KEY=VALUE; repeat it. Runs may then set these inputs only.
        env: An environment variable, KEY=VALUE; repeat it.
        resource_config: File (YAML) of what its runs need, such as "gpu: 1" and "memory: 8Gi".
        timeout: Seconds after which a run is stopped.
        job_type: Kind of job.
        description: Shown in the Prefect UI.
        json: Print JSON, and nothing else, on standard output.
        command: The words after --.
    """
    kind_of(folder)
    definition = _definition(
        command_of(entrypoint, command), name, config_default, env, resource_config, timeout, job_type, description
    )
    await _create(job_from_folder(folder, definition), queue, json)


@create.command
async def image(
    reference: str,
    /,
    *,
    queue: Queues = None,
    entrypoint: Entrypoint = None,
    name: str | None = None,
    config_default: Defaults = None,
    env: Pairs = None,
    resource_config: ResourceFile = None,
    timeout: float | None = None,
    job_type: str | None = None,
    description: str | None = None,
    json: Json = False,
    command: Words = (),
) -> None:
    """Define a job from a container image, which needs nothing of ours inside.

    ```
    prefect-launch job create image registry.example.com/team/train:1.4 -q gpu -- --epochs '${config.epochs}'
    ```

    Args:
        reference: The image.
        queue: A queue it can run on; repeat it for several.
        entrypoint: Arguments in place of the image's own command, as one text. Or write them after --.
        name: Name of the job. Default: the last part of the image's name.
        config_default: An input with its default, KEY=VALUE; repeat it. Runs may then set these inputs only.
        env: An environment variable, KEY=VALUE; repeat it.
        resource_config: File (YAML) of what its runs need, such as "gpu: 1" and "memory: 8Gi".
        timeout: Seconds after which a run is stopped.
        job_type: Kind of job.
        description: Shown in the Prefect UI.
        json: Print JSON, and nothing else, on standard output.
        command: The words after --.
    """
    definition = _definition(
        command_of(entrypoint, command), name, config_default, env, resource_config, timeout, job_type, description
    )
    await _create(job_from_image(reference, definition), queue, json)


@app.command(name="list")
async def list_(*, queue: QueueName = None, json: Json = False) -> None:
    """List the jobs that the server knows.

    ```
    prefect-launch job list
    ```

    Args:
        queue: Only of this queue.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job, Queue

    await reach()
    if queue is not None:
        await Queue(queue).aload()
    jobs = [job for job in await Job.alist(warn=note) if queue is None or queue in job.queues]
    if json:
        print_json([_as_json(job) for job in jobs])
        return
    table(
        ("NAME", "VERSION", "QUEUES", "COMMAND"),
        [(job.name, job.spec.version, ", ".join(job.queues), shlex.join(job.spec.command or ())) for job in jobs],
        empty="There are no jobs yet. Submit a folder or an image, or define one with `prefect-launch job create`.",
    )


@app.command
async def show(name: str, /, *, queue: QueueName = None, json: Json = False) -> None:
    """Show a job: what it runs, its inputs and what it needs.

    ```
    prefect-launch job show train
    ```

    Args:
        name: The job.
        queue: As this queue has it, where it is on several; otherwise the newest.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job

    await reach()
    job = await Job.aget(name, queue=queue)
    if json:
        print_json(_as_json(job))
        return
    spec = job.spec
    needs = spec.resources.model_dump(exclude_none=True)
    facts(
        [
            ("version", spec.version),
            ("command", shlex.join(spec.command) if spec.command else "the image's own"),
            ("queues", ", ".join(job.queues)),
            ("job type", spec.job_type),
            ("time-out", f"{spec.timeout:g} s" if spec.timeout else None),
            ("resources", ", ".join(f"{key}: {value}" for key, value in needs.items())),
            ("environment", "\n".join(f"{key}={value}" for key, value in spec.env.items())),
            ("description", spec.description),
        ],
        title=spec.name,
    )  # fmt: skip
    say("")
    if spec.config is None:
        say("Inputs: it declares none; a run may set any.")
    else:
        facts([(key, value_text(value)) for key, value in spec.config.items()], title="Inputs and their defaults")


@app.command
async def delete(name: str, /, *, yes: Yes = False, json: Json = False) -> None:
    """Remove a job from every queue. Refused while runs of it wait or are in progress. Ended runs stay.

    ```
    prefect-launch job delete train
    ```

    Args:
        name: The job.
        yes: Do not ask, and delete it also where its runs wait or are in progress: they are cancelled.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Job

    await reach()
    job = await Job.aget(name)
    if not yes:
        await job.arefuse_if_runs()  # rather than ask first
        confirm(f"Delete the job {name!r} from {', '.join(job.queues)}?")
    await job.adelete(cancel_runs=yes)
    if json:
        print_json({"deleted": name, "queues": job.queues})
    else:
        say(f"Deleted the job {name}.")


def _definition(
    command: tuple[str, ...] | None,
    name: str | None,
    defaults: list[str] | None,
    env: list[str] | None,
    resource_file: Path | None,
    timeout: float | None,
    job_type: str | None,
    description: str | None,
) -> Definition:
    from launch_prefect.spec import inputs

    return Definition(
        command=command,
        name=name,
        env=assignments(env or (), "--env"),
        config=inputs.parse_assignments(defaults, {}) if defaults else None,
        resources=resources_from(resource_file),
        timeout=timeout,
        job_type=job_type,
        description=description,
    )


async def _create(job: Job, queues: list[str] | None, json: bool) -> None:
    from launch_prefect.client import Queue

    await reach()
    names = list(dict.fromkeys(queues or [await chosen_queue(None)]))
    for name in names:  # before anything is made: all or none
        await Queue(name).aload()
    with working(f"Creating {job.name}"):
        for name in names:
            await job.acreate(name)
    job.queues = tuple(names)
    tell_left_out(job)
    if json:
        print_json(_as_json(job))
    else:
        say(f"Created the job {job.name} ({job.spec.version}) on {', '.join(names)}.")
        say(f"Run it with `prefect-launch submit -q {names[0]} --job {job.name}`.")


def _as_json(job: Job) -> dict[str, Any]:
    spec = job.spec
    return {
        "name": spec.name,
        "version": spec.version,
        "queues": job.queues,
        "source": spec.source.model_dump(exclude_none=True),
        "command": spec.command,
        "env": spec.env,
        "config": spec.config,
        "resources": spec.resources.model_dump(exclude_none=True),
        "timeout": spec.timeout,
        "job_type": spec.job_type,
        "description": spec.description,
    }
