"""What all our workers share: taking runs off a queue and carrying them out."""

from __future__ import annotations

import abc
import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar
from uuid import UUID, uuid4

import anyio
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import DeploymentResponse, WorkerFlowRunResponse
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_logger
from prefect.states import Pending
from prefect.utilities.collections import batched_iterable
from prefect.workers.base import BaseVariables, BaseWorker, BaseWorkerResult

from launch_prefect.errors import LaunchError
from launch_prefect.scratch import leave, sweep
from launch_prefect.settings import LaunchSettings, get_settings
from launch_prefect.workers import _prefect, outcome
from launch_prefect.workers.ahead import Ahead
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.bound import Bound
from launch_prefect.workers.configuration import LaunchJobConfiguration
from launch_prefect.workers.events import PoolEvents
from launch_prefect.workers.known import Known
from launch_prefect.workers.lifecycle import Lifecycle, Say
from launch_prefect.workers.logs import LogShipper, now
from launch_prefect.workers.outcome import Stopped
from launch_prefect.workers.reporting import Reporter, until_answered
from launch_prefect.workers.resolve import resolve
from launch_prefect.workers.running import Running
from launch_prefect.workers.threads import widen

CHECK_SECONDS = 5
"""How often runs in progress are compared with the server, in one request, in case an event was lost."""
FRESH_SECONDS = 0.05
"""In so short a time nobody else takes, starts, watches and reports a run: that takes four requests and a process."""
REPORT_SECONDS = 30
"""How long a worker that is being stopped waits for a server that is away, to report the runs it has ended."""
REST_SECONDS = 0.2
"""Between two polls: a hundred events at once need no hundred polls, and the first is still served at once."""
AHEAD = timedelta(seconds=15)
"""Runs scheduled for this soon are waited for; later ones the next poll finds. Longer than a poll's 13 s at most."""

C = TypeVar("C", bound=LaunchJobConfiguration)
V = TypeVar("V", bound=BaseVariables)
R = TypeVar("R", bound=BaseWorkerResult)
log = get_logger("launch.worker")


class LaunchWorker(BaseWorker[C, V, R], abc.ABC, Generic[C, V, R]):  # ABC: Prefect registers no type for it
    """Takes command jobs off a work pool and drives them; flow jobs go the stock worker's way.

    Subclasses name the Prefect worker of their target as a further base class and implement `Target`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings: LaunchSettings = get_settings()
        self._in_progress: dict[UUID, Lifecycle] = {}
        self._taken: set[UUID] = set()
        self._listed_at = 0.0
        self._token = uuid4().hex[:8]
        self._known = Known(lambda: self.client)
        self._dispatching = anyio.Lock()
        self._wake = anyio.Event()
        self._next_wake: datetime | None = None
        # Plain tasks: they outlive the scope they are made in, and teardown awaits them under a shield.
        self._services: set[asyncio.Task[None]] = set()
        self._runs: set[asyncio.Task[None]] = set()
        self._accepting = False
        self._shipper: LogShipper | None = None
        self._ahead: Ahead | None = None

    # What a target implements; see lifecycle.Target

    @abc.abstractmethod
    async def prepare(
        self, attempt: Attempt, configuration: C, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> Any:
        """Get ready what the attempt runs in."""

    async def prepare_ahead(
        self, attempt: Attempt, configuration: C, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> None:
        """Get ready what a waiting run will need, of which nothing is for that attempt alone."""
        await self.prepare(attempt, configuration, say, on_build)

    @abc.abstractmethod
    async def start_attempt(self, attempt: Attempt, configuration: C, prepared: Any) -> Running:
        """Start it."""

    @abc.abstractmethod
    def facts(self, attempt: Attempt, prepared: Any) -> dict[str, Any]:
        """What exactly ran, for the run's labels."""

    async def clean(self, attempt: Attempt) -> None:
        """Remove what was made for this attempt alone."""

    # Prefect's hooks

    async def setup(self) -> None:
        """Connect, and start what serves all runs of this worker."""
        widen()
        await asyncio.to_thread(sweep, self.settings)
        await super().setup()
        self._shipper = LogShipper(self.client)
        self._ahead = Ahead(self, self._shipper)
        for service in (
            self._shipper.run,
            self._ahead.run,
            self._watch_events,
            self._check_in_progress,
            self._dispatch_when_woken,
        ):
            self._spawn(service(), self._services)
        self._accepting = True

    async def teardown(self, *exc_info: Any) -> None:
        """Stop the runs in progress, report them, and disconnect.

        Processes first, however long their grace is; then their reports, for as long as a server that is away may be
        waited for.
        """
        self._accepting = False
        with anyio.CancelScope(shield=True):
            for lifecycle in self._in_progress.values():
                lifecycle.stop(Stopped.AGENT)
            for lifecycle in list(self._in_progress.values()):
                await lifecycle.ended.wait()
            await _all_ended(self._runs, within=REPORT_SECONDS)
            for task in self._services:
                task.cancel()
            await _all_ended(self._services)
        leave(self.settings)
        await super().teardown(*exc_info)

    def hurry(self) -> None:
        """Kill the runs that are being stopped, without their grace."""
        for lifecycle in self._in_progress.values():
            self._spawn(lifecycle.kill(), self._services)

    def _spawn(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]]) -> None:
        """Run something beside the worker's own loops; a failure of it is a bug, and is logged."""
        task = asyncio.get_running_loop().create_task(work)
        among.add(task)

        def done(task: asyncio.Task[None]) -> None:
            among.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("A part of worker %r failed", self.name, exc_info=error)

        task.add_done_callback(done)

    async def sync_with_backend(self) -> None:
        """Tell the server that this worker is alive; waits while the server is away, where Prefect's would give up."""
        await until_answered(super().sync_with_backend)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take what may start now. Called by Prefect's slow poll and by every event of the pool.

        Waits while the server is away; any other failure is logged, and the next poll tries again: a worker that gives
        up would end the runs it has.

        Returns:
            The runs taken.
        """
        try:
            return await until_answered(self._dispatch)
        except Exception:
            log.exception("Worker %r could not take runs", self.name)
            return []

    async def _dispatch(self) -> list[FlowRun]:
        async with self._dispatching:  # one poll at a time: its Pending states count in the next
            if not _prefect.is_synced(self) or not self._accepting:
                return []
            entries = await self._due()
            _prefect.poll_seen(self, now())
            deployments = await self._known.deployments([entry.flow_run for entry in entries])
            return [entry.flow_run for entry in entries if await self._dispatch_one(entry, deployments)]

    async def _dispatch_one(self, entry: WorkerFlowRunResponse, deployments: dict[UUID, DeploymentResponse]) -> bool:
        run = entry.flow_run
        deployment = deployments.get(run.deployment_id) if run.deployment_id else None
        if not self._accepting:
            return False
        if deployment is None or deployment.entrypoint is not None:
            await _prefect.submit_flow_job(self, entry)
            return True
        if not _prefect.take_slot(self, run.id):
            return False
        # A task of its own: a poll that is cancelled must leave no run half taken.
        taken: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._spawn(self._take(run, deployment, taken), self._runs)
        return await asyncio.shield(taken)

    # Taking runs

    async def _due(self) -> list[WorkerFlowRunResponse]:
        self._listed_at = anyio.current_time()
        try:
            entries = await self.client.get_scheduled_flow_runs_for_work_pool(
                work_pool_name=_prefect.pool_name(self),
                work_queue_names=_prefect.work_queue_names(self),
                scheduled_before=now() + AHEAD,
            )
        except ObjectNotFound:
            return []  # the queue has been deleted; who deletes it is told of waiting runs
        due = []
        for entry in entries:
            start: datetime | None = entry.flow_run.next_scheduled_start_time
            if entry.flow_run.id in self._in_progress:
                continue
            if start is not None and start > now():
                self._wake_at(start)
            else:
                due.append(entry)
        return due

    def _wake_at(self, moment: datetime) -> None:
        if self._next_wake is not None and now() < self._next_wake <= moment:
            return
        self._next_wake = moment

        async def wait() -> None:
            await anyio.sleep(max(0.0, (moment - now()).total_seconds()))
            self.wake()

        self._spawn(wait(), self._services)

    async def _take(self, run: FlowRun, deployment: DeploymentResponse, taken: asyncio.Future[bool]) -> None:
        """One run from Pending to its final state.

        Args:
            run: The run.
            deployment: Its deployment.
            taken: Told whether it is this worker's, as soon as the server has said so.
        """
        reporter = Reporter(self.client, run.id)
        self._taken.add(run.id)
        listed = self._listed_at
        # The token tells two agents of one name apart. By no other name is Pending refused after another Pending, such
        # as the Building of the agent that was first.
        mine: State[Any] = Pending(message=f"Taken by {self.name} ({self._token}).")
        try:
            state = await reporter.propose(mine)
            if state is None or (state.name, state.message) != (mine.name, mine.message):
                return  # cancelled, deleted, or another agent was first
            taken.set_result(True)  # the next one need not wait for what follows
            if await self._ran_meanwhile(run, reporter, listed):
                return
            lifecycle = await until_answered(lambda: self._lifecycle(run, deployment, reporter))
            self._in_progress[run.id] = lifecycle
            if not self._accepting:
                lifecycle.stop(Stopped.AGENT)
            await lifecycle.run()
        except LaunchError as error:
            await reporter.propose(outcome.of_error(error))
        except Exception as error:
            log.exception("Run %s could not be taken", run.id)
            await reporter.propose(outcome.of_bug(error))
        finally:
            if not taken.done():
                taken.set_result(False)
            self._in_progress.pop(run.id, None)
            self._taken.discard(run.id)
            _prefect.free_slot(self, run.id)
            self.wake()

    async def _ran_meanwhile(self, run: FlowRun, reporter: Reporter, listed: float) -> bool:
        """Whether another agent has run it since it was listed; its end is then put back.

        Prefect's server takes Pending after Completed: whoever holds an old list could run what has ended again.
        """
        if anyio.current_time() - listed < FRESH_SECONDS:
            return False
        current = await until_answered(functools.partial(self.client.read_flow_run, run.id))
        if current.run_count == run.run_count:
            return False
        states = await until_answered(functools.partial(self.client.read_flow_run_states, run.id))
        ends = [state for state in states if state.is_final()]
        end = max(ends, key=lambda state: state.timestamp)
        await reporter.propose(State(type=end.type, name=end.name, message=end.message), force=True)
        return True

    async def _lifecycle(self, run: FlowRun, deployment: DeploymentResponse, reporter: Reporter) -> Lifecycle:
        attempt, configuration = await self._resolve(run, deployment)
        if self._ahead and self._ahead.has_built(run.id):  # anew, if it was asked for
            configuration = configuration.model_copy(update={"rebuild": False})
        assert self._shipper is not None  # noqa: S101 - made in setup
        return Lifecycle(attempt, Bound(self, configuration), reporter, self._shipper)

    async def _resolve(self, run: FlowRun, deployment: DeploymentResponse) -> tuple[Attempt, Any]:
        return await resolve(self, run, deployment, job=self._known.job(run), queue=_prefect.pool_name(self))

    # What building ahead asks for; see ahead.Host

    def has_taken(self, run_id: UUID) -> bool:
        """Whether this worker takes a run, or carries it out."""
        return run_id in self._taken

    def carries_out(self, run_id: UUID) -> bool:
        """Whether a run has begun here, and writes its own log."""
        return run_id in self._in_progress

    @property
    def served_queues(self) -> list[str]:
        """The work queues that this worker was told to serve; none means all."""
        return _prefect.work_queue_names(self)

    async def command_runs(self, runs: list[FlowRun]) -> list[FlowRun]:
        """Those of the runs that are of command jobs."""
        known = await self._known.deployments(runs)
        return [run for run in runs if run.deployment_id in known and known[run.deployment_id].entrypoint is None]

    async def resolved(self, runs: list[FlowRun]) -> list[tuple[Attempt, Any]]:
        """The attempts and configurations of those of the runs of command jobs that can be resolved."""
        known = await self._known.deployments(runs)
        found = []
        for run in runs:
            if run.deployment_id in known:
                with suppress(LaunchError):  # it says so itself when it is its turn
                    found.append(await self._resolve(run, known[run.deployment_id]))
        return found

    # What serves all runs

    def wake(self) -> None:
        """Look for runs now."""
        self._wake.set()

    async def _dispatch_when_woken(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = anyio.Event()
            await self.get_and_submit_flow_runs()
            if self._ahead and _prefect.is_limited(self):
                self._ahead.look()
            await anyio.sleep(REST_SECONDS)  # what comes meanwhile is served by one poll

    async def _watch_events(self) -> None:
        async for event in PoolEvents(lambda: self.work_pool.id if _prefect.is_synced(self) else None):
            if event.cancels and event.run_id in self._in_progress:
                self._in_progress[event.run_id].stop(Stopped.CANCELLED)
            if event.may_free_or_add:
                self.wake()

    async def _check_in_progress(self) -> None:
        """Find cancelled and deleted runs whose event was lost."""
        while True:
            await anyio.sleep(CHECK_SECONDS)
            try:
                for ids in batched_iterable(list(self._in_progress), 200):
                    self._stop_all_but(ids, await until_answered(functools.partial(self._read, list(ids))))
            except Exception:  # the next look may succeed
                log.exception("Worker %r could not look at its runs", self.name)

    def _stop_all_but(self, ids: Iterable[UUID], runs: Iterable[FlowRun]) -> None:
        live = {StateType.PENDING, StateType.RUNNING}
        wanted = {run.id for run in runs if run.state is not None and run.state.type in live}
        for run_id in set(ids) - wanted:
            if run_id in self._in_progress:
                self._in_progress[run_id].stop(Stopped.CANCELLED)

    async def _read(self, ids: list[UUID]) -> list[FlowRun]:
        return await self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)), limit=len(ids), sort=FlowRunSort.ID_DESC
        )


async def _all_ended(tasks: set[asyncio.Task[None]], *, within: float | None = None) -> None:
    """Wait for tasks, and for those they start; what has not ended in time is cancelled."""
    deadline = None if within is None else anyio.current_time() + within
    while tasks:
        left = None if deadline is None else max(0.0, deadline - anyio.current_time())
        _, late = await asyncio.wait(set(tasks), timeout=left)
        if late and left == 0:
            log.error("%s runs could not be reported: the Prefect server is away", len(late))
            for task in late:
                task.cancel()
            deadline = None
