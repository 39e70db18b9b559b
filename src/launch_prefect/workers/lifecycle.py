"""The path of one run: taken → built → started → watched → final state.

Drives a command job from outside: the job itself talks to nobody.
"""

from __future__ import annotations

import errno
import logging
import platform
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

import anyio
from prefect.client.schemas.objects import State, StateType
from prefect.logging import get_logger
from prefect.states import Cancelled, Pending
from prefect.states import Running as RunningState

from launch_prefect.errors import DiskFull, LaunchError
from launch_prefect.redaction import Redactor
from launch_prefect.workers import outcome
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.lines import Line, LineAssembler
from launch_prefect.workers.logs import LogShipper, now
from launch_prefect.workers.outcome import Stopped
from launch_prefect.workers.reporting import Reporter
from launch_prefect.workers.running import Exit, Running

STDOUT_LEVEL = logging.INFO
STDERR_LEVEL = logging.WARNING
AGENT_LOGGER = "launch"
log = get_logger("launch.lifecycle")


class Say(Protocol):
    """Puts a line of the agent's own into the run's log."""

    def __call__(self, text: str, level: int = logging.INFO) -> None:
        """Put it there."""


class Target(Protocol):
    """What a target gives the lifecycle."""

    async def prepare(self, attempt: Attempt, say: Say, on_build: Callable[[], Awaitable[None]]) -> Any:
        """Get ready what the attempt runs in: an image, an environment. Cancelled when the run is."""

    async def start(self, attempt: Attempt, prepared: Any) -> Running:
        """Start it."""

    def facts(self, attempt: Attempt, prepared: Any) -> dict[str, Any]:
        """What exactly ran, for the run's labels."""

    async def clean(self, attempt: Attempt) -> None:
        """Remove what `prepare` left for this attempt alone."""


class Lifecycle:
    """Carries out one attempt.

    Args:
        attempt: The attempt.
        target: What runs it.
        reporter: Where its states go.
        shipper: Where its log goes.
    """

    def __init__(self, attempt: Attempt, target: Target, reporter: Reporter, shipper: LogShipper) -> None:
        self.attempt = attempt
        self._target = target
        self._reporter = reporter
        self._shipper = shipper
        self._redact = Redactor(attempt.secrets)
        self._stop = anyio.Event()
        self._running: Running | None = None
        self.ended = anyio.Event()
        self._why: Stopped | None = None
        self._last_lines: deque[str] = deque(maxlen=outcome.LAST_LINES)
        self._labels: dict[str, Any] = {"launch.agent": attempt.agent, "launch.attempt": attempt.number}

    @property
    def run_id(self) -> UUID:
        """The run's id."""
        return self.attempt.run_id

    def stop(self, why: Stopped) -> None:
        """Ask it to stop; the first reason counts."""
        if self._why is None:
            self._why = why
            self._stop.set()

    async def kill(self) -> None:
        """End what runs at once, without the grace of the stop that was asked for."""
        if self._running is not None and not self.ended.is_set():
            await self._end(self._running, grace=0)

    async def run(self) -> None:
        """Carry it out to its final state. Raises nothing but cancellation."""
        try:
            final = await self._carry_out()
        except LaunchError as error:
            final = outcome.of_error(error)
        except OSError as error:
            log.warning("Run %s: the machine refused something", self.run_id, exc_info=True)
            final = outcome.of_error(_disk_error(error))
        except Exception as error:
            log.exception("Run %s: the agent failed", self.run_id)
            final = outcome.of_bug(error)
        finally:
            self.ended.set()
        with anyio.CancelScope(shield=True):
            await self._clean()
            await self._finish(final)

    async def _carry_out(self) -> State[Any]:
        prepared = await self._unless_stopped(lambda: self._target.prepare(self.attempt, self.say, self._on_build))
        if self._why is not None:
            return outcome.of_stop(self._why, started=False)
        self._labels |= self._target.facts(self.attempt, prepared)
        with anyio.CancelScope(shield=True):  # between start and watching nothing may be lost
            running = await self._target.start(self.attempt, prepared)
        self._running = running
        try:
            return await self._watch(running)
        except BaseException:  # whatever happened to the watching: nothing runs on unwatched
            with anyio.CancelScope(shield=True):
                await self._end(running)
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._remove(running)

    async def _unless_stopped(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do something that is cancelled when the run is asked to stop."""
        result: Any = None
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:

            async def cancel_when_stopped() -> None:
                await self._stop.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(cancel_when_stopped)
            try:
                result = await work()
            except Exception as error:  # out of the group as itself, not wrapped in one
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None and self._why is None:
            raise failure
        return result

    async def _on_build(self) -> None:
        await self._reporter.propose(
            Pending(name="Building", message=f"{self.attempt.agent} is building what it runs in.")
        )

    async def _watch(self, running: Running) -> State[Any]:
        self.say(f"Started as {running.identifier}.")
        ended = anyio.Event()
        stopped: list[str] = []
        end: Exit | None = None
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            # Beside the watching, which must not wait for a server that is away.
            tasks.start_soon(self._report_running, running)
            tasks.start_soon(self._stop_running, running, ended, stopped)
            try:
                await self._pump(running)
                end = await running.wait()
                self.ended.set()
            except Exception as error:  # out of the group as itself, not wrapped in one
                failure = error
            ended.set()
        if failure is not None:
            raise failure
        assert end is not None  # noqa: S101 - there is an end where there is no failure
        self._labels["launch.exit_code"] = end.code
        if end.note:
            self.say(end.note, logging.WARNING)
        if self._why is not None and stopped:
            return outcome.of_stop(self._why, timeout=self.attempt.timeout, exit_code=end.code)
        return outcome.of_exit(end, tuple(self._last_lines), memory=self.attempt.resources.memory)

    async def _report_running(self, running: Running) -> None:
        state = await self._reporter.propose(RunningState(message=f"Runs as {running.identifier}."))
        if state is None or not state.is_running():
            self.stop(Stopped.CANCELLED)

    async def _stop_running(self, running: Running, ended: anyio.Event, stopped: list[str]) -> None:
        """Wait for a stop, the time-out or the end, whatever comes first."""
        async with anyio.create_task_group() as tasks:

            async def on_end() -> None:
                await ended.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(on_end)
            with anyio.move_on_after(self.attempt.timeout):
                await self._stop.wait()
            if not self._stop.is_set():
                self.stop(Stopped.TIMED_OUT)
            stopped.append(running.identifier)
            reason = self._why.value if self._why else ""
            self.say(
                f"Stopping ({reason}): SIGTERM, and SIGKILL after {self.attempt.stop_grace:g} s.",
                logging.WARNING,
            )
            with anyio.CancelScope(shield=True):
                await self._end(running)
            tasks.cancel_scope.cancel()

    async def _end(self, running: Running, *, grace: float | None = None) -> None:
        try:
            await running.stop(self.attempt.stop_grace if grace is None else grace)
        except LaunchError as error:  # the watching side learns, and reports, what has become of it
            self.say(f"It could not be stopped: {error}", logging.ERROR)

    async def _pump(self, running: Running) -> None:
        """Put the output into the run's log until it ends."""
        assembler = LineAssembler()
        async for chunk in running.output():
            await self._ship(assembler.feed(chunk))
        await self._ship(assembler.finish(now()))

    async def _ship(self, lines: list[Line]) -> None:
        start = 0
        for index in range(1, len(lines) + 1):
            if index == len(lines) or lines[index].stream != lines[start].stream:
                await self._ship_stream(lines[start:index])
                start = index

    async def _ship_stream(self, lines: list[Line]) -> None:
        level = STDOUT_LEVEL if lines[0].stream == "stdout" else STDERR_LEVEL
        messages = [(self._redact(line.text), line.at) for line in lines]
        self._last_lines.extend(text for text, _ in messages[-outcome.LAST_LINES :])
        await self._shipper.add(self.run_id, lines[0].stream, level, messages)

    def say(self, text: str, level: int = logging.INFO) -> None:
        """Put a line of the agent's own into the run's log."""
        self._shipper.add_now(self.run_id, AGENT_LOGGER, level, [(self._redact(text), now())])

    async def _clean(self) -> None:
        try:
            await self._target.clean(self.attempt)
        except Exception as error:  # the run has its outcome, and reports it
            log.warning("Run %s: its working folder could not be removed: %s", self.run_id, error)

    async def _remove(self, running: Running) -> None:
        try:
            await running.remove()
        except Exception as error:  # as above
            log.warning("Run %s: %s could not be removed: %s", self.run_id, running.identifier, error)

    async def _finish(self, final: State[Any]) -> None:
        """Everything else first: with the final state, log and labels are complete."""
        message = self._redact(final.message or "")
        final = final.model_copy(update={"message": message})
        bad = final.is_failed() or final.is_crashed()
        cause = message.partition(outcome.LAST_LINES_FOLLOW)[0]  # those lines stand above it in the log already
        self.say(f"{final.name}: {cause}", logging.ERROR if bad else logging.INFO)
        await self._reporter.label(self._labels)
        await self._shipper.flush(self.run_id)
        given_back = final.is_scheduled()
        state = await self._reporter.propose(final, force=given_back)
        if state is not None and state.type == StateType.CANCELLING:
            # Asked for while it ended by itself: the server takes no other end than Cancelled now.
            await self._reporter.propose(Cancelled(message=message))


def _disk_error(error: OSError) -> LaunchError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(
            f"No space is left on {platform.node()} for {error.filename or 'the files of this run'}.",
            mend="Free space there, or point LAUNCH_HOME to a larger disk.",
        )
    return LaunchError(f"The agent's machine refuses: {error}.", mend="Look at the permissions below LAUNCH_HOME.")
