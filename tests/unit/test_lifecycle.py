"""The path of one run, with a target, a reporter and a shipper that only take notes."""

import asyncio
import errno
import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import UUID

import pytest
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling

from launch_prefect.errors import BuildFailed, ImageMissing, InfrastructureLost, Unreachable
from launch_prefect.redaction import MASK
from launch_prefect.spec import ImageSource, Resources
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.lifecycle import Lifecycle
from launch_prefect.workers.outcome import Stopped
from launch_prefect.workers.running import Chunk, Exit

SECRET = "hunter2-hunter2"
START = datetime(2026, 1, 1, tzinfo=UTC)


class Reporter:
    """Accepts every state, but for those of a type in `answers`."""

    def __init__(self, events):
        self.events = events
        self.answers = {}

    async def propose(self, state, *, force=False):
        await asyncio.sleep(0)
        self.events.append(("state", state))
        return self.answers.get(state.type, state)

    async def label(self, labels):
        self.events.append(("labels", dict(labels)))


class Shipper:
    def __init__(self, events):
        self.events = events

    async def add(self, run_id, name, level, messages):
        self.add_now(run_id, name, level, messages)

    def add_now(self, run_id, name, level, messages):
        for message, _ in messages:
            self.events.append(("log", (name, level, message)))

    async def flush(self, run_id):
        self.events.append(("flush", run_id))


class Running:
    """Writes its output, then ends by itself if it has an exit, or when it is stopped."""

    identifier = "process 4711"

    def __init__(self, events, output=(), end=None, end_when_stopped=143):
        self.events = events
        self.chunks = list(output)
        self.end = end
        self.end_when_stopped = end_when_stopped
        self.failure = None
        self.stop_failure = None
        self.remove_failure = None
        self.ended = asyncio.Event()
        self.started = asyncio.Event()

    async def output(self, position=""):
        self.started.set()
        for stream, data in self.chunks:
            await asyncio.sleep(0)
            yield Chunk(stream, data, START, "")
        if self.failure is not None:
            raise self.failure
        if self.end is None:
            await self.ended.wait()

    async def wait(self):
        if self.end is None:
            await self.ended.wait()
        return self.end

    async def stop(self, grace):
        self.events.append(("stop", grace))
        if self.stop_failure is not None:
            raise self.stop_failure
        if self.end is None:
            self.end = Exit(self.end_when_stopped)
        self.ended.set()

    async def remove(self):
        self.events.append(("remove", None))
        if self.remove_failure is not None:
            raise self.remove_failure


class Target:
    def __init__(self, events, running):
        self.events = events
        self.running = running
        self.builds = False
        self.preparing = None
        self.prepare_failure = None
        self.start_failure = None
        self.clean_failure = None

    async def prepare(self, attempt, say, on_build):
        self.events.append(("prepare", None))
        if self.builds:
            await on_build()
            say("Step 1/2")
        if self.preparing is not None:
            try:
                await self.preparing.wait()
            except asyncio.CancelledError:
                self.events.append(("prepare cancelled", None))
                raise
        if self.prepare_failure is not None:
            raise self.prepare_failure
        return "image"

    async def start(self, attempt, prepared):
        assert prepared == "image"
        self.events.append(("start", None))
        if self.start_failure is not None:
            raise self.start_failure
        return self.running

    def facts(self, attempt, prepared):
        return {"launch.image": prepared}

    async def clean(self, attempt):
        self.events.append(("clean", None))
        if self.clean_failure is not None:
            raise self.clean_failure


def make(output=(), end=Exit(0), end_when_stopped=143, **values):  # noqa: B008 - frozen
    events = []
    attempt = Attempt(
        **{
            "run_id": UUID(int=1),
            "run_name": "brave-fox",
            "job": "train",
            "queue": "gpu",
            "number": 1,
            "agent": "agent-1",
            "author": "",
            "config": {},
            "source": ImageSource(image="busybox"),
            "command": ("true",),
            "env": {"TOKEN": SECRET},
            "secrets": frozenset({SECRET}),
            "resources": Resources(memory="8Gi"),
            "timeout": None,
            "stop_grace": 7,
        }
        | values
    )
    running = Running(events, output, end, end_when_stopped)
    target = Target(events, running)
    reporter = Reporter(events)
    lifecycle = Lifecycle(attempt, target, reporter, Shipper(events))
    return SimpleNamespace(lifecycle=lifecycle, target=target, running=running, reporter=reporter, events=events)


async def carried_out(it):
    await asyncio.wait_for(it.lifecycle.run(), 5)
    return it


def kinds(it):
    return [kind for kind, _ in it.events]


def states(it):
    return [state for kind, state in it.events if kind == "state"]


def log_of(it):
    return [entry for kind, entry in it.events if kind == "log"]


def labels(it):
    return next(value for kind, value in it.events if kind == "labels")


def assert_tidy(it, *, started=True):
    """Whatever happened: all is cleaned, and the final state comes after everything else."""
    seen = kinds(it)
    assert seen.count("clean") == 1
    assert ("remove" in seen) == started
    assert seen.count("remove") <= 1
    assert seen[-3:] == ["labels", "flush", "state"]
    assert states(it)[-1].is_final()
    assert [state.is_final() for state in states(it)].count(True) == 1


async def test_a_run_goes_from_running_to_completed():
    it = await carried_out(make())
    assert [state.name for state in states(it)] == ["Running", "Completed"]
    assert_tidy(it)
    order = kinds(it)
    assert order.index("prepare") < order.index("start") < order.index("state") < order.index("remove")
    assert "stop" not in order
    assert "process 4711" in states(it)[0].message


async def test_building_is_said_only_when_something_is_built():
    it = make()
    it.target.builds = True
    await carried_out(it)
    assert [state.name for state in states(it)] == ["Building", "Running", "Completed"]
    assert states(it)[0].type is StateType.PENDING
    assert ("launch", logging.INFO, "Step 1/2") in log_of(it)


async def test_labels_tell_what_ran_where_and_how_it_ended():
    it = await carried_out(make(end=Exit(3)))
    assert labels(it) == {
        "launch.agent": "agent-1",
        "launch.attempt": 1,
        "launch.image": "image",
        "launch.exit_code": 3,
    }


async def test_output_reaches_the_log_in_order_with_standard_error_at_its_own_level():
    output = [("stdout", b"one\ntw"), ("stderr", b"bad\n"), ("stdout", b"o\n"), ("stderr", b"last without end")]
    it = await carried_out(make(output))
    assert [entry for entry in log_of(it) if entry[0] != "launch"] == [
        ("stdout", logging.INFO, "one"),
        ("stderr", logging.WARNING, "bad"),
        ("stdout", logging.INFO, "two"),
        ("stderr", logging.WARNING, "last without end"),
    ]


@pytest.mark.parametrize(
    ("end", "kind", "words"),
    [
        (Exit(1), StateType.FAILED, ["Exit code 1"]),
        (Exit(137), StateType.CRASHED, ["SIGKILL"]),
        (Exit(137, out_of_memory=True), StateType.CRASHED, ["8Gi"]),
    ],
)
async def test_a_bad_end_is_the_state_with_the_last_lines_and_stands_in_the_log(end, kind, words):
    it = await carried_out(make([("stdout", b"epoch 1\n"), ("stderr", b"ValueError: no\n")], end))
    final = states(it)[-1]
    assert final.type is kind
    assert all(word in final.message for word in [*words, "ValueError: no"])
    name, level, text = log_of(it)[-1]
    assert (name, level) == ("launch", logging.ERROR)
    assert words[0] in text
    assert "ValueError" not in text  # it stands above in the log already
    assert_tidy(it)


async def test_a_note_of_the_end_is_said_in_the_log():
    it = await carried_out(make(end=Exit(0, note="Some output was lost.")))
    assert ("launch", logging.WARNING, "Some output was lost.") in log_of(it)
    assert states(it)[-1].is_completed()


async def test_secrets_are_masked_in_log_and_state():
    it = make([("stdout", f"token {SECRET}\n".encode())], Exit(1, note=f"note {SECRET}"))
    it.target.builds = True
    await carried_out(it)
    assert SECRET not in str(it.events)
    assert ("stdout", logging.INFO, f"token {MASK}") in log_of(it)
    assert f"token {MASK}" in states(it)[-1].message

    it = make()
    it.target.prepare_failure = BuildFailed(f"wrong: {SECRET}", mend=f"Correct {SECRET}.")
    await carried_out(it)
    assert SECRET not in str(it.events)
    it = make()
    it.target.start_failure = RuntimeError(SECRET)
    await carried_out(it)
    assert SECRET not in str(it.events)


async def test_a_secret_across_chunks_is_masked():
    data = f"token {SECRET}\n".encode()
    it = await carried_out(make([("stdout", data[:10]), ("stdout", data[10:])]))
    assert SECRET not in str(it.events)
    assert ("stdout", logging.INFO, f"token {MASK}") in log_of(it)


async def test_a_cancel_while_preparing_ends_that_and_nothing_starts():
    it = make()
    it.target.preparing = asyncio.Event()
    task = asyncio.create_task(it.lifecycle.run())
    await asyncio.sleep(0.01)
    it.lifecycle.stop(Stopped.CANCELLED)
    await asyncio.wait_for(task, 5)
    assert "prepare cancelled" in kinds(it)
    assert "start" not in kinds(it)
    assert states(it)[-1].is_cancelled()
    assert "had not started" in states(it)[-1].message
    assert_tidy(it, started=False)


async def test_a_cancel_before_anything_starts_nothing():
    it = make()
    it.lifecycle.stop(Stopped.CANCELLED)
    await carried_out(it)
    assert "start" not in kinds(it)
    assert states(it)[-1].is_cancelled()
    assert_tidy(it, started=False)


async def test_a_failure_of_a_cancelled_preparation_is_still_a_cancellation():
    it = make()
    it.target.prepare_failure = BuildFailed("The tool was killed.")
    it.lifecycle.stop(Stopped.CANCELLED)
    await carried_out(it)
    assert states(it)[-1].is_cancelled()


async def stopped_while_running(it, why):
    task = asyncio.create_task(it.lifecycle.run())
    await it.running.started.wait()
    it.lifecycle.stop(why)
    await asyncio.wait_for(task, 5)


async def test_a_cancel_while_running_stops_it_and_says_how_it_ended():
    it = make(end=None)
    await stopped_while_running(it, Stopped.CANCELLED)
    assert ("stop", 7) in it.events
    assert kinds(it).count("stop") == 1
    assert states(it)[-1].is_cancelled()
    assert "143" in states(it)[-1].message
    assert labels(it)["launch.exit_code"] == 143
    assert any("SIGKILL after 7 s" in text for _, _, text in log_of(it))
    assert_tidy(it)


async def test_a_job_that_takes_sigterm_well_is_cancelled_all_the_same():
    it = make(end=None, end_when_stopped=0)
    await stopped_while_running(it, Stopped.CANCELLED)
    assert states(it)[-1].is_cancelled()


async def test_an_agent_that_stops_takes_its_runs_with_it_and_says_so():
    it = make(end=None)
    await stopped_while_running(it, Stopped.AGENT)
    assert states(it)[-1].is_cancelled()
    assert "agent" in states(it)[-1].message


async def test_the_first_reason_to_stop_counts():
    it = make(end=None)
    it.lifecycle.stop(Stopped.CANCELLED)
    it.lifecycle.stop(Stopped.AGENT)
    await carried_out(it)
    assert "on request" in states(it)[-1].message


async def test_output_written_while_it_stops_reaches_the_log():
    it = make(end=None)

    async def output(position=""):
        it.running.started.set()
        await it.running.ended.wait()
        yield Chunk("stdout", b"saved a checkpoint\n", START, "")

    it.running.output = output
    await stopped_while_running(it, Stopped.CANCELLED)
    assert ("stdout", logging.INFO, "saved a checkpoint") in log_of(it)


@pytest.mark.parametrize("answer", ["cancelling", None])
async def test_where_running_is_rejected_it_is_stopped(answer):
    """The run was cancelled, or deleted, between being taken and being started."""
    it = make(end=None)
    it.reporter.answers[StateType.RUNNING] = Cancelling() if answer else None
    await carried_out(it)
    assert "stop" in kinds(it)
    assert states(it)[-1].is_cancelled()
    assert_tidy(it)


async def test_a_time_out_stops_it():
    it = await carried_out(make(end=None, timeout=0.05))
    assert "stop" in kinds(it)
    final = states(it)[-1]
    assert (final.type, final.name) == (StateType.FAILED, "TimedOut")
    assert "0.05 s" in final.message
    assert_tidy(it)


async def test_a_time_out_that_is_not_reached_changes_nothing():
    it = await carried_out(make(timeout=30))
    assert states(it)[-1].is_completed()
    assert "stop" not in kinds(it)


async def test_a_stop_after_the_end_changes_nothing():
    it = await carried_out(make())
    it.lifecycle.stop(Stopped.CANCELLED)
    assert states(it)[-1].is_completed()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (BuildFailed("No such package.", mend="Correct requirements.txt."), StateType.FAILED, ["package", "Correct"]),
        (ImageMissing("No such image.", mend="Push it."), StateType.FAILED, ["image", "Push it."]),
        (Unreachable("No engine.", mend="Start it."), StateType.CRASHED, ["engine", "Start it."]),
        (OSError(errno.ENOSPC, "No space left", "/x"), StateType.CRASHED, ["No space is left", "/x", "Free space"]),
        (OSError(errno.EDQUOT, "Quota"), StateType.CRASHED, ["No space is left", "LAUNCH_HOME"]),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), StateType.CRASHED, ["Permission denied", "/x"]),
        (RuntimeError("odd"), StateType.CRASHED, ["RuntimeError", "odd", "report"]),
    ],
)
@pytest.mark.parametrize("where", ["prepare", "start", "output"])
async def test_whatever_goes_wrong_ends_the_run_with_cause_and_mend(where, error, kind, words):
    it = make(end=None)
    match where:
        case "prepare":
            it.target.prepare_failure = error
        case "start":
            it.target.start_failure = error
        case "output":
            it.running.failure = error
    await carried_out(it)
    final = states(it)[-1]
    assert final.type is kind
    assert all(word in final.message for word in words), final.message
    assert all(word in log_of(it)[-1][2] for word in words)
    assert log_of(it)[-1][1] == logging.ERROR
    assert ("stop" in kinds(it)) == (where == "output")  # nothing runs on unwatched
    assert_tidy(it, started=where == "output")


async def test_the_mend_of_a_long_cause_stands_in_the_log_too():
    it = make()
    it.target.prepare_failure = BuildFailed(
        "It stopped at pip:\nline one\nline two\n", mend="Correct requirements.txt."
    )
    await carried_out(it)
    assert "Correct requirements.txt." in log_of(it)[-1][2]


async def test_what_was_lost_while_it_is_stopped_is_told():
    it = make(end=None)
    it.running.stop_failure = InfrastructureLost("The container could not be stopped.")

    async def wait():
        raise InfrastructureLost("The container was removed by somebody else.")

    async def output(position=""):
        it.running.started.set()
        while ("stop", 7) not in it.events:
            await asyncio.sleep(0)
        for chunk in ():
            yield chunk

    it.running.output, it.running.wait = output, wait
    await stopped_while_running(it, Stopped.CANCELLED)
    assert states(it)[-1].is_crashed()
    assert "removed by somebody else" in states(it)[-1].message
    assert any("could not be stopped" in text for _, _, text in log_of(it))
    assert_tidy(it)


@pytest.mark.parametrize("error", [OSError("busy"), RuntimeError("odd"), InfrastructureLost("gone")])
@pytest.mark.parametrize("where", ["clean", "remove"])
async def test_what_cannot_be_tidied_up_changes_no_outcome(where, error):
    it = make()
    it.target.clean_failure = error if where == "clean" else None
    it.running.remove_failure = error if where == "remove" else None
    await carried_out(it)
    assert states(it)[-1].is_completed()
    assert_tidy(it)


async def test_an_agent_that_is_killed_leaves_nothing_unwatched():
    it = make(end=None)
    task = asyncio.create_task(it.lifecycle.run())
    await it.running.started.wait()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "stop" in kinds(it)
    assert "remove" in kinds(it)


async def test_a_cancel_that_comes_while_it_ends_by_itself_ends_cancelled():
    it = make()
    it.reporter.answers[StateType.COMPLETED] = Cancelling()
    await carried_out(it)
    last = [state for kind, state in it.events if kind == "state"][-2:]
    assert [state.type for state in last] == [StateType.COMPLETED, StateType.CANCELLED]
    assert last[-1].message == "Exit code 0."
