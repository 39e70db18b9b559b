"""The log and the end of a run, for people and for programs."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

from rich.text import Text

from launch_prefect.cli import output
from launch_prefect.cli.output import coloured, err, note, out
from launch_prefect.errors import RunFailed, Unreachable

if TYPE_CHECKING:
    from launch_prefect.client import LogLine, Run

T = TypeVar("T")
_PATIENCE = 300.0  # seconds that a server may be away while a run is watched: it may be started again
_APART = 120.0  # seconds from one failure to the next after which the server has been back in between
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 0.5, 2.0
_DIM, _YELLOW, _CYAN, _END = "\x1b[2m", "\x1b[33m", "\x1b[36m", "\x1b[0m"


class LinePrinter:
    """Prints log lines as they are: the agent's dim, standard error's coloured, metrics as `step 3  loss=0.1`.

    Args:
        stream: Where to.
        times: Whether each line begins with its time.
    """

    def __init__(self, stream: TextIO, *, times: bool = False) -> None:
        self._stream = stream
        self._times = times
        self._colours = (out if stream is sys.stdout else err).color_system is not None

    def show(self, line: LogLine) -> None:
        """Print one line."""
        text, colour = line.text, ""
        if line.stream == "launch":
            text, colour = f"launch: {text}", _YELLOW if line.level >= logging.WARNING else _DIM
        elif line.stream == "stderr":
            colour = _YELLOW
        elif (metrics := metrics_text(text)) is not None:
            text, colour = metrics, _CYAN
        if self._times:
            text = f"{line.at.astimezone():%H:%M:%S.%f}"[:-3] + f"  {text}"
        self._stream.write(f"{colour}{text}{_END}\n" if colour and self._colours else f"{text}\n")

    def flush(self) -> None:
        """Let the lines be seen."""
        self._stream.flush()


def metrics_text(line: str) -> str | None:
    """A line of metrics as people read it, or None where it is none."""
    from launch_prefect.tracking.metrics import parse_metrics

    metrics = parse_metrics(line)
    if metrics is None:
        return None
    values = "  ".join(f"{name}={output.number(value)}" for name, value in metrics.metrics.items())
    return values if metrics.step is None else f"step {metrics.step}  {values}"


def as_json(line: LogLine) -> dict[str, Any]:
    """A log line for programs."""
    return {"time": line.at, "stream": line.stream, "level": line.level, "text": line.text}


async def lines_of(run: Run) -> AsyncIterator[LogLine]:
    """A run's log until it has ended, through restarts of the server.

    Raises:
        Unreachable: The server has been away too long.
    """
    given = 0
    away = _Away()
    while True:
        try:
            seen = 0
            async for line in run.afollow():
                seen += 1
                if seen > given:
                    given = seen
                    yield line
            return
        except Unreachable as error:
            await away.wait(error)


async def show_log(run: Run, show: Callable[[LogLine], None], flush: Callable[[], None]) -> None:
    """Show a run's log as it is written, with its state on standard error while there is none."""
    status = err.status(Text("…"))
    status.start()
    watching = asyncio.create_task(_show_state(run, status))
    try:
        async for line in lines_of(run):
            if not watching.done():
                watching.cancel()
                status.stop()
            show(line)
            flush()
    finally:
        watching.cancel()
        status.stop()


async def _show_state(run: Run, status: Any) -> None:
    began = time.monotonic()
    while True:
        waited = output.duration(timedelta(seconds=round(time.monotonic() - began)))
        status.update(Text(f"{run.name}: {run.state} ({waited})"))
        await asyncio.sleep(_LOOK_SECONDS)


async def wait_for_end(run: Run, timeout: float | None) -> None:
    """Wait until a run has ended, through restarts of the server.

    Raises:
        RunFailed: It has not ended in time.
        Unreachable: The server has been away too long.
    """
    away = _Away()

    async def look() -> None:
        while True:
            try:
                await run.arefresh()
            except Unreachable as error:
                await away.wait(error)
                continue
            if run.is_final:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    try:
        with err.status(Text("…")) as status:
            watching = asyncio.create_task(_show_state(run, status))
            try:
                await asyncio.wait_for(look(), timeout)
            finally:
                watching.cancel()
    except TimeoutError:
        raise RunFailed(
            f"The run {run.id} has not ended within {timeout:g} s; it is {run.state} and goes on.",
            mend=f"Wait longer, or end it with `prefect-launch run cancel {run.id}`.",
        ) from None


class _Away:
    """Patience with a server that does not answer."""

    def __init__(self) -> None:
        self._since = self._last = -math.inf

    async def wait(self, error: Unreachable) -> None:
        """Wait a little before it is asked again.

        Raises:
            Unreachable: It has been away too long, or refuses our credentials.
        """
        now = time.monotonic()
        if now - self._last > _APART:
            self._since = now
            note(f"{error.message} Waiting for it; the run goes on.")
        if "refuses" in error.message or now - self._since > _PATIENCE:
            raise error
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        self._last = time.monotonic()


async def while_watching(work: Awaitable[T], run: Run) -> T:
    """Await work that watches a run; Ctrl-C ends the watching alone, and that is said."""
    task = asyncio.ensure_future(work)
    try:
        return await task
    except asyncio.CancelledError:
        note(
            f"The run goes on. See it with `prefect-launch run logs {run.id} --follow`; "
            f"end it with `prefect-launch run cancel {run.id}`."
        )
        raise


def took(run: Run) -> timedelta | None:
    """How long a run has been running, or ran."""
    started, ended = run.flow_run.start_time, run.flow_run.end_time
    if started is None:
        return None
    return (ended if run.is_final and ended else datetime.now(UTC)) - started


def outcome(run: Run, *, brief: bool = False) -> Text:
    """A run's state, how long it took and the cause.

    Args:
        run: The run.
        brief: Only the first line of the cause: the log, with the lines it names, is on the screen already.
    """
    text = coloured(run.state)
    text.stylize("bold")
    if run.is_final and (length := took(run)) is not None:
        text = Text.assemble(text, f" after {output.duration(length)}")
    if run.message and not run.succeeded:
        text = Text.assemble(text, f": {run.message.splitlines()[0] if brief else run.message}")
    return text


def exit_code(run: Run) -> int:
    """0 for a run that has ended Completed, 1 for any other end."""
    return 0 if run.succeeded else 1
