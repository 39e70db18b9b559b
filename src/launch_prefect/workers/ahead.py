"""Build what the next runs need while the queue is at its limit: a free place then waits for no build."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, WorkPool
from prefect.client.schemas.sorting import FlowRunSort
from prefect.logging import get_logger
from pydantic import ValidationError

from launch_prefect.errors import LaunchError
from launch_prefect.redaction import Redactor
from launch_prefect.spec import BuilderSpec
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.configuration import ResolvedBuilder
from launch_prefect.workers.lifecycle import AGENT_LOGGER, Say
from launch_prefect.workers.logs import LogShipper, now
from launch_prefect.workers.reporting import until_answered

SEEN = 100
"""How many of the runs that wait are looked at."""
log = get_logger("launch.ahead")


class Host(Protocol):
    """The worker that builds."""

    @property
    def client(self) -> PrefectClient:
        """The API."""

    @property
    def work_pool(self) -> WorkPool:
        """The pool that it serves."""

    @property
    def served_queues(self) -> list[str]:
        """The work queues that it was told to serve; none means all."""

    def has_taken(self, run_id: UUID) -> bool:
        """Whether it takes a run, or carries it out: its build is then wanted, though it waits no more."""

    def carries_out(self, run_id: UUID) -> bool:
        """Whether a run has begun here, and writes its own log."""

    async def command_runs(self, runs: list[FlowRun]) -> list[FlowRun]:
        """Those of the runs that are of command jobs."""

    async def resolved(self, runs: list[FlowRun]) -> list[tuple[Attempt, Any]]:
        """The attempts and configurations of those of the runs of command jobs that can be resolved."""

    async def prepare_ahead(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> None:
        """Get ready what an attempt will run in."""


class Ahead:
    """Follows the head of the queue.

    Args:
        host: The worker.
        shipper: Takes the lines of builds, into the logs of the runs that they are for.
    """

    def __init__(self, host: Host, shipper: LogShipper) -> None:
        self._host, self._shipper = host, shipper
        self._tasks: dict[UUID, asyncio.Task[None]] = {}
        self._built: set[UUID] = set()
        self._wake = asyncio.Event()

    def has_built(self, run_id: UUID) -> bool:
        """Whether what a run needs was built for it; asked once, when its turn has come."""
        built = run_id in self._built
        self._built.discard(run_id)
        return built

    def look(self) -> None:
        """Look at the head of the queue, soon."""
        self._wake.set()

    async def run(self) -> None:
        """Follow it for ever; what goes wrong is logged, and the next look tries again."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                try:
                    await self._follow()
                except Exception:
                    log.exception("The head of the queue could not be read")
        finally:
            await self._stop(list(self._tasks))

    async def _follow(self) -> None:
        head = await until_answered(functools.partial(self._next, count)) if (count := self._count()) else []
        ids = {run.id for run in head}
        # Cancelled, or taken by another agent; what is taken here goes on, and the run itself joins it.
        await self._stop([i for i in self._tasks if i not in ids and not self._host.has_taken(i)])
        new = [run for run in head if run.id not in self._tasks and not self._host.has_taken(run.id)]
        for attempt, configuration in await self._host.resolved(new) if new else []:
            task = asyncio.get_running_loop().create_task(self._build(attempt, configuration))
            self._tasks[attempt.run_id] = task

    def _count(self) -> int:
        """How many waiting runs are built for."""
        pool = self._host.work_pool
        if pool.is_paused or pool.concurrency_limit == 0:
            return 0
        default = pool.base_job_template.get("variables", {}).get("properties", {}).get("builder", {}).get("default")
        try:
            return ResolvedBuilder.model_validate(default or {}).ahead
        except ValidationError:  # each run of this queue will say so
            return BuilderSpec().ahead

    async def _next(self, count: int) -> list[FlowRun]:
        """The next runs, as they will start: the server's own list of them is empty while the limit is reached."""
        pool = self._host.work_pool.name
        queues = {queue.id: queue for queue in await self._host.client.read_work_queues(work_pool_name=pool)}
        served = self._host.served_queues
        scheduled = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED]))
        runs = await self._host.client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
            flow_run_filter=FlowRunFilter(state=scheduled),
            sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
            limit=SEEN,
        )
        due = []
        for run in runs:
            queue = queues.get(run.work_queue_id) if run.work_queue_id else None
            start = run.next_scheduled_start_time
            if (
                queue is None
                or queue.is_paused
                or queue.concurrency_limit == 0
                or (start is not None and start > now())
            ):
                continue
            if not served or queue.name in served:
                due.append((queue.priority or 1, run))
        ordered = [run for _, run in sorted(due, key=lambda found: found[0])]  # stable: then by their time
        return (await self._host.command_runs(ordered))[:count]

    async def _build(self, attempt: Attempt, configuration: Any) -> None:
        redact = Redactor(attempt.secrets)

        def say(text: str, level: int = logging.INFO) -> None:
            if not self._host.carries_out(attempt.run_id):  # its own lifecycle hears the rest
                self._shipper.add_now(attempt.run_id, AGENT_LOGGER, level, [(redact(text), now())])

        async def on_build() -> None:
            say(f"{attempt.agent} builds ahead what this run will need, while it waits.")

        try:
            await self._host.prepare_ahead(attempt, configuration, say, on_build)
            self._built.add(attempt.run_id)
        except LaunchError as error:
            say(f"This could not be built ahead: {error}", logging.WARNING)
        except Exception:
            log.exception("Run %s could not be built for ahead", attempt.run_id)

    async def _stop(self, ids: list[UUID]) -> None:
        tasks = [self._tasks.pop(i) for i in ids]
        self._built.difference_update(ids)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
