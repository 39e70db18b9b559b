"""While the queue is at its limit, the agent builds what the next runs need, in their logs, no longer than needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from launch_prefect.errors import BuildFailed
from launch_prefect.spec import ImageSource, Resources
from launch_prefect.workers.ahead import Ahead
from launch_prefect.workers.attempt import Attempt


def attempt_of(run_id: UUID) -> Attempt:
    return Attempt(
        run_id=run_id,
        run_name="brave-fox",
        job="train",
        queue="gpu",
        number=1,
        agent="agent-1",
        author="",
        config={},
        source=ImageSource(image="busybox"),
        command=None,
        env={},
        secrets=frozenset({"hunter2"}),
        resources=Resources(),
        timeout=None,
        stop_grace=10,
    )


class Host:
    """A queue of runs, and builds that end when they are told to."""

    def __init__(self) -> None:
        self.waiting: list[UUID] = []
        self.taken: set[UUID] = set()
        self.begun: set[UUID] = set()
        self.building: dict[UUID, asyncio.Event] = {}
        self.built: list[UUID] = []
        self.cancelled: list[UUID] = []
        self.error: Exception | None = None
        self.asked = 0
        builder = {"default": {"ahead": 2}}
        self.work_pool: Any = SimpleNamespace(
            name="gpu",
            is_paused=False,
            concurrency_limit=1,
            base_job_template={"variables": {"properties": {"builder": builder}}},
        )
        self.builder = builder["default"]
        self.queues = {
            name: SimpleNamespace(id=uuid4(), name=name, priority=priority, is_paused=False, concurrency_limit=None)
            for name, priority in (("low", 4), ("high", 2))
        }
        self.of: dict[UUID, str] = {}
        self.later: set[UUID] = set()
        self.flows: set[UUID] = set()
        self.served_queues: list[str] = []
        self.client: Any = SimpleNamespace(read_flow_runs=self.read_flow_runs, read_work_queues=self.read_work_queues)
        self.lines: list[tuple[UUID, str]] = []
        self.ahead: Ahead

    async def read_flow_runs(self, *, limit: int, **filters: Any) -> list[Any]:
        self.asked += 1
        soon = datetime.now(UTC) - timedelta(seconds=1)
        return [
            SimpleNamespace(
                id=run,
                work_queue_id=self.queues[self.of.get(run, "low")].id,
                next_scheduled_start_time=soon + timedelta(days=run in self.later),
            )
            for run in self.waiting[:limit]
        ]

    async def read_work_queues(self, *, work_pool_name: str) -> list[Any]:
        return list(self.queues.values())

    async def command_runs(self, runs: list[Any]) -> list[Any]:
        return [run for run in runs if run.id not in self.flows]

    def has_taken(self, run_id: UUID) -> bool:
        return run_id in self.taken

    def carries_out(self, run_id: UUID) -> bool:
        return run_id in self.begun

    async def resolved(self, runs: list[Any]) -> list[tuple[Attempt, Any]]:
        return [(attempt_of(run.id), None) for run in runs]

    async def prepare_ahead(self, attempt: Attempt, configuration: Any, say: Any, on_build: Any) -> None:
        self.building[attempt.run_id] = asyncio.Event()
        await on_build()
        try:
            await self.building[attempt.run_id].wait()
        except asyncio.CancelledError:
            self.cancelled.append(attempt.run_id)
            raise
        if self.error:
            raise self.error
        self.built.append(attempt.run_id)
        say("built, with hunter2")

    def add_now(self, run_id: UUID, name: str, level: int, messages: Any) -> None:
        self.lines += [(run_id, text) for text, _ in messages]


@pytest.fixture
async def queue() -> AsyncIterator[tuple[Host, Callable[[], Any]]]:
    host = Host()
    host.ahead = ahead = Ahead(host, host)  # type: ignore[arg-type]
    task = asyncio.ensure_future(ahead.run())

    async def look() -> None:
        ahead.look()
        for _ in range(20):
            await asyncio.sleep(0)

    yield host, look
    task.cancel()
    await asyncio.wait({task})


async def test_the_next_runs_are_built_for_in_order_and_each_once(queue: Any) -> None:
    host, look = queue
    host.waiting = [uuid4() for _ in range(4)]
    await look()
    await look()
    assert list(host.building) == host.waiting[:2]
    host.building[host.waiting[0]].set()
    first = host.waiting.pop(0)  # its turn has come
    host.taken.add(first)
    await look()
    assert host.built == [first]
    assert list(host.building) == [first, *host.waiting[:2]]
    assert host.cancelled == []


async def test_the_next_are_those_that_will_start_next(queue: Any) -> None:
    host, look = queue
    tomorrow, flow, early, urgent, late = host.waiting = [uuid4() for _ in range(5)]
    host.later, host.flows, host.of = {tomorrow}, {flow}, {urgent: "high"}
    await look()
    assert list(host.building) == [urgent, early]
    assert late not in host.building


async def test_what_was_built_anew_for_a_run_is_not_built_anew_again(queue: Any) -> None:
    host, look = queue
    run, other = host.waiting = [uuid4(), uuid4()]
    await look()
    host.building[run].set()
    await look()
    assert host.ahead.has_built(run)
    assert not host.ahead.has_built(other)
    assert not host.ahead.has_built(run)  # asked once


async def test_work_queues_that_start_nothing_are_passed_over(queue: Any) -> None:
    host, look = queue
    paused, other = host.waiting = [uuid4(), uuid4()]
    host.of = {paused: "high"}
    host.queues["high"].is_paused = True
    await look()
    assert list(host.building) == [other]
    host.queues["high"].is_paused, host.served_queues = False, ["high"]
    await look()
    assert host.cancelled == [other]
    assert list(host.building) == [other, paused]


async def test_a_run_that_is_cancelled_while_it_waits_is_not_built_for(queue: Any) -> None:
    host, look = queue
    host.waiting = [uuid4(), uuid4()]
    await look()
    gone = host.waiting.pop(0)
    await look()
    assert host.cancelled == [gone]


async def test_a_build_goes_on_when_its_run_is_taken_here(queue: Any) -> None:
    host, look = queue
    (run,) = host.waiting = [uuid4()]
    await look()
    host.waiting = []
    host.taken.add(run)  # it waits no more, and has not begun
    await look()
    assert host.cancelled == []
    host.begun.add(run)
    said = len(host.lines)
    host.building[run].set()
    await look()
    assert host.built == [run]
    assert len(host.lines) == said  # the run's own lifecycle hears the rest


async def test_its_lines_are_in_the_log_of_the_run_without_secrets(queue: Any) -> None:
    host, look = queue
    (run,) = host.waiting = [uuid4()]
    await look()
    host.building[run].set()
    await look()
    (_, began), (_, built) = host.lines
    assert "agent-1 builds ahead" in began
    assert {of for of, _ in host.lines} == {run}
    assert "hunter2" not in built


async def test_a_build_that_fails_is_told_and_the_others_go_on(queue: Any) -> None:
    host, look = queue
    host.error = BuildFailed("no such package", mend="Correct it.")
    host.waiting = [uuid4(), uuid4()]
    await look()
    host.building[host.waiting[0]].set()
    await look()
    assert any("no such package" in text for run, text in host.lines if run == host.waiting[0])
    host.error = None
    host.building[host.waiting[1]].set()
    await look()
    assert host.built == [host.waiting[1]]


@pytest.mark.parametrize("change", ["paused", "limit 0", "ahead 0"])
async def test_nothing_is_built_for_a_queue_that_starts_nothing(queue: Any, change: str) -> None:
    host, look = queue
    host.work_pool.is_paused = change == "paused"
    host.work_pool.concurrency_limit = 0 if change == "limit 0" else 1
    host.builder["ahead"] = 0 if change == "ahead 0" else 2
    host.waiting = [uuid4()]
    await look()
    assert (host.building, host.asked) == ({}, 0)


async def test_what_is_being_built_stops_when_the_queue_is_paused(queue: Any) -> None:
    host, look = queue
    host.waiting = [uuid4()]
    await look()
    host.work_pool.is_paused = True
    await look()
    assert host.cancelled == host.waiting
