"""`prefect-launch run`: look at runs, wait for them, end them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter
from rich.text import Text

from launch_prefect.cli import following, output
from launch_prefect.cli.output import Json, coloured, facts, note, out, print_json, print_json_list, say, table
from launch_prefect.cli.session import QueueName, reach
from launch_prefect.errors import InvalidInput, RunFailed

if TYPE_CHECKING:
    from prefect.client.schemas.objects import StateType

    from launch_prefect.client import Run
    from launch_prefect.tracking.metrics import MetricsLine

_MOST = 200
_CANCEL_SECONDS = 120.0
_STATES = ("scheduled", "pending", "running", "completed", "failed", "crashed", "cancelling", "cancelled", "paused")
_ALSO = {"waiting": "scheduled", "canceled": "cancelled"}

app = App(name="run", help="Look at runs, follow their logs, wait for them, cancel them.")


@app.command(name="list")
async def list_(
    *,
    queue: QueueName = None,
    state: list[str] | None = None,
    limit: Annotated[int, Parameter(name=("--limit", "-n"), show_default=True)] = 20,
    json: Json = False,
) -> None:
    """List the newest runs.

    ```
    prefect-launch run list -q gpu --state failed --state crashed
    ```

    Args:
        queue: Only of this queue.
        state: Only in this state: scheduled (or waiting), pending, running, completed, failed, crashed, cancelling,
            cancelled. Repeat it for several.
        limit: How many at most, up to 200.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Queue, Run

    types = _state_types(state or ())
    if not 1 <= limit <= _MOST:
        raise InvalidInput(f"--limit {limit}: give a number from 1 to {_MOST}.")
    await reach()
    if queue is not None:
        await Queue(queue).aload()
    runs = await Run.alist(queue=queue, states=types, limit=limit)
    if json:
        print_json([summary(run) for run in runs])
        return
    table(
        ("ID", "NAME", "JOB", "QUEUE", "STATE", "SUBMITTED", "TOOK"),
        [
            (str(run.id)[:8], run.name, run.job, run.queue, coloured(run.state),
             output.ago(run.flow_run.created), output.duration(following.took(run)))
            for run in runs
        ],
        empty="There are no such runs.",
    )  # fmt: skip


@app.command
async def show(run_id: str, /, *, json: Json = False) -> None:
    """Show what became of a run: outcome and cause, times, config, what exactly ran, metrics.

    ```
    prefect-launch run show 3f0c2b1a
    ```

    Args:
        run_id: The run's id, or at least its first 8 characters.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Run

    await reach()
    run = await Run.aget(run_id)
    metrics = await last_metrics(run.aiter_metrics())
    if json:
        print_json({**summary(run), "config": run.config, "facts": run.facts, "metrics": metrics})
    else:
        _show(run, metrics)


@app.command
async def logs(
    run_id: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    timestamps: Annotated[bool, Parameter(name=("--timestamps", "-t"))] = False,
    json: Json = False,
) -> int:
    """Print a run's log.

    ```
    prefect-launch run logs 3f0c2b1a --follow
    ```

    Lines of the agent begin with `launch:`. Metrics are shown as `step 3  loss=0.1`.

    Args:
        run_id: The run's id, or at least its first 8 characters.
        follow: Go on until the run has ended. The exit code is then its outcome: 0 completed, 1 otherwise. With
            --json each line is an object of its own.
        timestamps: Begin each line with its time.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Run

    await reach()
    run = await Run.aget(run_id)
    printer = following.LinePrinter(sys.stdout, times=timestamps)
    if follow:
        show_line = (lambda line: print_json(following.as_json(line), indent=None)) if json else printer.show
        await following.while_watching(following.show_log(run, show_line, printer.flush), run)
        (output.err if json else out).print(following.outcome(run, brief=True), soft_wrap=True)
        return following.exit_code(run)
    if json:
        await print_json_list(following.as_json(line) async for line in run.aiter_logs())
        return 0
    empty = True
    async for line in run.aiter_logs():
        empty = False
        printer.show(line)
    if empty:
        note(f"No line yet; the run is {run.state}.")
    return 0


@app.command
async def wait(run_id: str, /, *, timeout: float | None = None, json: Json = False) -> int:
    """Wait until a run has ended. The exit code is its outcome: 0 completed, 1 otherwise.

    ```
    prefect-launch run wait 3f0c2b1a --timeout 3600
    ```

    Args:
        run_id: The run's id, or at least its first 8 characters.
        timeout: Seconds to wait at most; the exit code is then 1, and the run goes on.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Run

    if timeout is not None and timeout < 0:
        raise InvalidInput(f"--timeout {timeout:g}: give seconds.")
    await reach()
    run = await Run.aget(run_id)
    await following.while_watching(following.wait_for_end(run, timeout), run)
    if json:
        print_json(summary(run))
    else:
        out.print(following.outcome(run), soft_wrap=True)
    return following.exit_code(run)


@app.command
async def cancel(
    run_id: str, /, *, wait: Annotated[bool, Parameter(name=("--wait", "-w"))] = False, json: Json = False
) -> int:
    """Cancel a run: one that waits ends at once, one that runs is stopped by its agent.

    ```
    prefect-launch run cancel 3f0c2b1a --wait
    ```

    Args:
        run_id: The run's id, or at least its first 8 characters.
        wait: Wait until it has been stopped, at most 2 minutes.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client import Run

    await reach()
    run = await Run.aget(run_id)
    await run.acancel()
    if wait and not run.is_final:
        await following.while_watching(following.wait_for_end(run, _CANCEL_SECONDS), run)
    if json:
        print_json(summary(run))
    elif run.is_final:
        out.print(following.outcome(run), soft_wrap=True)
    else:
        say(f"Asked its agent to stop the run {run.name}; it is {run.state}.")
    if run.is_final and run.state_type != "CANCELLED":
        raise RunFailed(f"The run had ended {run.state} before it could be cancelled.")
    return 0


def summary(run: Run) -> dict[str, Any]:
    """A run for programs."""
    flow_run, length = run.flow_run, following.took(run)
    return {
        "id": run.id,
        "name": run.name,
        "job": run.job,
        "queue": run.queue,
        "state": run.state,
        "state_type": run.state_type,
        "message": run.message,
        "exit_code": run.exit_code,
        "submitted": flow_run.created,
        "started": flow_run.start_time,
        "ended": flow_run.end_time,
        "seconds": length.total_seconds() if length else None,
        "url": run.url,
    }


async def last_metrics(lines: AsyncIterable[MetricsLine]) -> dict[str, dict[str, Any]]:
    """Each metric's last value, with its step and how often it was logged."""
    last: dict[str, dict[str, Any]] = {}
    async for line in lines:
        for name, value in line.metrics.items():
            count = last[name]["count"] + 1 if name in last else 1
            last[name] = {"value": value, "step": line.step, "count": count}
    return last


def _show(run: Run, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    flow_run = run.flow_run
    facts(
        [
            ("id", str(run.id)),
            ("job", run.job),
            ("queue", run.queue),
            ("submitted", output.moment(flow_run.created)),
            ("started", output.moment(flow_run.start_time)),
            ("ended", output.moment(flow_run.end_time)),
            ("took", output.duration(following.took(run))),
            ("exit code", _known(run.exit_code)),
            *((name, str(value)) for name, value in sorted(run.facts.items()) if name != "exit_code"),
            ("page", run.url),
        ],
        title=Text.assemble((run.name, "bold"), "  ", coloured(run.state)),
    )
    if run.message and not run.succeeded:
        say("")
        facts([("", run.message)], title="Cause" if run.is_final else "Message")
    if run.config:
        say("")
        facts([(key, value_text(value)) for key, value in run.config.items()], title="Config")
    if metrics:
        say("")
        table(
            ("METRIC", "LAST", "STEP", "VALUES"),
            [
                (name, output.number(last["value"]), _known(last["step"]), str(last["count"]))
                for name, last in metrics.items()
            ],
        )


def _known(value: int | None) -> str:
    return "" if value is None else str(value)


def value_text(value: Any) -> str:
    """An input's value as it would be given with --set."""
    import json

    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)


def _state_types(names: Iterable[str]) -> tuple[StateType, ...]:
    from prefect.client.schemas.objects import StateType

    from launch_prefect.spec.base import nearest

    types = []
    for name in names:
        known = _ALSO.get(name.lower(), name.lower())
        if known not in _STATES:
            close = nearest(known, [*_STATES, *_ALSO])
            hint = f"did you mean {close!r}?" if close else f"known are: {', '.join(_STATES)}."
            raise InvalidInput(f"--state {name}: no such state; {hint}")
        types.append(StateType(known.upper()))
    return tuple(types)
