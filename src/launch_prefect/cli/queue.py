"""`prefect-launch queue`: queues and what waits in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.text import Text

from launch_prefect.cli import output
from launch_prefect.cli.options import NO_BUILDER, BuilderOptions
from launch_prefect.cli.output import Json, facts, note, print_json, say, table
from launch_prefect.cli.session import Yes, reach
from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from launch_prefect.client import Queue
    from launch_prefect.spec import QueueSpec

Target = Literal["process", "docker"]
_BUILDERS = {"docker": "docker", "process": "process (environments, no images)", "none": "none (images only)"}
_SHOWN = 20
_FOR_LATER = timedelta(seconds=5)  # less is a difference between the clocks of submitter and server

app = App(name="queue", help="Make queues, look at what waits in them, pause them.")


@app.command
async def create(
    name: str,
    /,
    *,
    target: Annotated[Target, Parameter(name=("--target", "-t"))],
    concurrency: int | None = None,
    resource_config: Annotated[Path | None, Parameter(name=("--resource-config", "-R"))] = None,
    description: str = "",
    builder: BuilderOptions = NO_BUILDER,
    json: Json = False,
) -> None:
    """Make a queue.

    ```
    prefect-launch queue create gpu --target docker --concurrency 2
    prefect-launch queue create gpu --target docker --registry registry.example.com/team --platform linux/amd64
    ```

    Args:
        name: The queue.
        target: Where its runs go.
        concurrency: Most runs in progress at once. Default: no limit.
        resource_config: File (YAML) of defaults of the target's job variables.
        description: Shown in the Prefect UI.
        builder: Who builds its images.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.cli.files import read_yaml
    from launch_prefect.client import Queue

    resources = read_yaml(resource_config, what="resource file") if resource_config else None
    await reach()
    queue = await Queue.acreate(
        name,
        target=target,
        concurrency=concurrency,
        resource_config=resources,
        builder=builder.given or None,
        description=description,
    )
    if json:
        print_json(await _as_json(queue))
        return
    say(f"Created the queue {name} ({target}, {_limit(queue)}).")
    say(f"Serve it with `prefect-launch agent -q {name}`.")


@app.command
async def apply(file: Path, /, *, json: Json = False) -> None:
    """Make a queue as a file says, or bring the existing one up to date.

    ```
    prefect-launch queue apply gpu.yaml
    ```

    Args:
        file: The queue file (YAML): queue_name, target, concurrency, resource_config, builder, description.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    spec = queue_from_file(file)
    await reach()
    queue = await Queue.aapply(spec)
    if json:
        print_json(await _as_json(queue))
    else:
        say(f"The queue {queue.name} is as {file} says ({queue.target}, {_limit(queue)}).")


@app.command(name="list")
async def list_(*, json: Json = False) -> None:
    """List the queues.

    ```
    prefect-launch queue list
    ```

    Args:
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    await reach()
    listed = [await _as_json(queue) for queue in await Queue.alist()]
    if json:
        print_json(listed)
        return
    table(
        ("NAME", "TARGET", "LIMIT", "IN PROGRESS", "WAITING", "STATE", "DESCRIPTION"),
        [
            (queue["name"], queue["target"], "none" if queue["concurrency"] is None else str(queue["concurrency"]),
             str(queue["in_progress"]), str(queue["waiting"]), _state(queue["paused"]), queue["description"])
            for queue in listed
        ],
        empty="There are no queues yet. Make one with `prefect-launch queue create NAME --target docker`.",
    )  # fmt: skip


@app.command
async def show(name: str, /, *, json: Json = False) -> None:
    """Show a queue: its limit, its agents, and the runs that wait in it, in order.

    ```
    prefect-launch queue show gpu
    ```

    Args:
        name: The queue.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    await reach()
    queue = await Queue(name).aload()
    described = await _as_json(queue)
    workers = [
        {"name": worker.name, "alive": worker.status == "ONLINE", "last_heartbeat": worker.last_heartbeat_time}
        for worker in await queue.aworkers()
    ]
    waiting = await _waiting(name)
    if json:
        runs = [{"id": run.id, "name": run.name, "submitted": run.created} for run in waiting]
        print_json({**described, "agents": workers, "waiting_runs": runs})
        return
    facts(
        [
            ("target", queue.target),
            ("limit", _limit(queue)),
            ("in progress", str(described["in_progress"])),
            ("waiting", str(described["waiting"])),
            *_builder(queue.target, described["builder"]),
            ("description", queue.description),
        ],
        title=Text.assemble((name, "bold"), "  ", _state(queue.paused)),
    )
    say("")
    table(
        ("AGENT", "STATE", "LAST HEARD OF"),
        [
            (worker["name"], _alive(worker["alive"]), output.ago(worker["last_heartbeat"]))
            for worker in sorted(workers, key=lambda worker: (not worker["alive"], worker["name"]))
        ],
        empty=f"No agent serves it. Start one with `prefect-launch agent -q {name}`.",
    )
    if waiting:
        say("")
        table(
            ("PLACE", "ID", "NAME", "SUBMITTED"),
            [
                (str(place), str(run.id)[:8], run.name, output.moment(run.created))
                for place, run in enumerate(waiting, start=1)
            ],
        )
        if described["waiting"] > len(waiting):
            say(f"and {described['waiting'] - len(waiting)} more")


@app.command
async def pause(name: str, /, *, json: Json = False) -> None:
    """Pause a queue: no further run starts; those in progress go on.

    ```
    prefect-launch queue pause gpu
    ```

    Args:
        name: The queue.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    await reach()
    queue = await Queue(name).apause()
    if json:
        print_json(await _as_json(queue))
    else:
        say(f"Paused the queue {name}. Runs in progress go on; `prefect-launch queue resume {name}` starts more.")


@app.command
async def resume(name: str, /, *, json: Json = False) -> None:
    """Let a paused queue start runs again.

    ```
    prefect-launch queue resume gpu
    ```

    Args:
        name: The queue.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    await reach()
    queue = await Queue(name).aresume()
    if json:
        print_json(await _as_json(queue))
    else:
        say(f"Resumed the queue {name}.")


@app.command
async def delete(name: str, /, *, yes: Yes = False, json: Json = False) -> None:
    """Delete a queue, and the jobs on it. Refused while runs wait or are in progress. Ended runs stay.

    ```
    prefect-launch queue delete gpu
    ```

    Args:
        name: The queue.
        yes: Also where runs wait or are in progress: they are cancelled.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue

    await reach()
    await Queue(name).adelete(cancel_runs=yes)
    if json:
        print_json({"deleted": name})
    else:
        say(f"Deleted the queue {name}.")


def queue_from_file(file: Path) -> QueueSpec:
    """A queue file.

    Raises:
        InvalidInput: It cannot be read or is not valid.
    """
    from launch_prefect.cli.files import read_yaml
    from launch_prefect.spec import QueueSpec

    document = read_yaml(file, what="queue file")
    if "name" in document and "queue_name" not in document:
        raise InvalidInput(f"The queue file {file}: the queue's name is given as queue_name, not name.")
    return QueueSpec.parse(document, what=f"The queue file {file}")


async def _as_json(queue: Queue) -> dict[str, Any]:
    waiting, in_progress = await queue.acounts()
    try:
        builder = queue.builder
    except InvalidInput as error:  # somebody has changed it in Prefect; that hides no other queue
        note(f"{error} Apply the queue's file again.")
        builder = None
    return {
        "name": queue.name,
        "target": queue.target,
        "concurrency": queue.concurrency,
        "paused": queue.paused,
        "in_progress": in_progress,
        "waiting": waiting,
        "builder": builder.model_dump(exclude_defaults=True) if builder else None,
        "description": queue.description,
    }


def _builder(target: str, said: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    """Who builds its images, as named values."""
    if said is None:
        return [("builder", "cannot be read")]
    kind = said.get("type") or ("process" if target == "process" else "docker")
    rows: list[tuple[str, str | None]] = [("builder", _BUILDERS[kind])]
    if kind != "docker":
        return rows
    registry = said.get("registry") or "none: the engine of the agent keeps the images"
    named = [(name.replace("_", " "), said.get(name)) for name in ("registry_credentials", "platform", "base_image")]
    return [*rows, ("registry", registry), *named]


async def _waiting(name: str) -> list[FlowRun]:
    """The runs that wait, in the order in which they will start."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    from launch_prefect.client.api import connect

    scheduled = filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
    async with connect() as client:
        runs = await client.read_flow_runs(
            work_pool_filter=filters.WorkPoolFilter(name=filters.WorkPoolFilterName(any_=[name])),
            flow_run_filter=filters.FlowRunFilter(state=scheduled),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=_SHOWN,
        )
    return sorted(runs, key=_entered)


def _entered(run: FlowRun) -> tuple[datetime, str]:
    """When a run entered its queue: when the server recorded it, or later if it was scheduled for later."""
    recorded = run.created or datetime.now(UTC)
    planned = run.next_scheduled_start_time
    return (planned if planned and planned > recorded + _FOR_LATER else recorded), str(run.id)


def _limit(queue: Queue) -> str:
    if queue.concurrency is None:
        return "no limit"
    return f"{queue.concurrency} {'run' if queue.concurrency == 1 else 'runs'} at once"


def _state(paused: bool) -> Text:
    return Text("paused", style="yellow") if paused else Text("ready", style="green")


def _alive(alive: bool) -> Text:
    return Text("alive", style="green") if alive else Text("gone", style="dim")
