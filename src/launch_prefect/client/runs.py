"""Runs: what became of what was submitted."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
    WorkPoolFilterType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling

from launch_prefect import naming
from launch_prefect.client.api import connect, ui_url, wait_for
from launch_prefect.client.changes import looks
from launch_prefect.client.deployments import flow_names
from launch_prefect.client.log_lines import LogCursor, LogLine
from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.tracking.metrics import MetricsLine, parse_metrics

_PAGE = 200
_LOOK_SECONDS = 0.5  # between looks at a run that goes on


class Run:
    """One run of a job.

    Attributes:
        id: Its id.
        job: Name of its job.
        queue: Name of its queue.
    """

    def __init__(self, flow_run: FlowRun, *, job: str = "", queue: str = "") -> None:
        self._flow_run = flow_run
        self.id: UUID = flow_run.id
        self.job = job
        self.queue = queue or flow_run.work_pool_name or ""

    def __repr__(self) -> str:
        return f"Run({self.name!r}, {self.state}, {self.id})"

    @property
    def name(self) -> str:
        """Its name."""
        return self._flow_run.name

    @property
    def url(self) -> str:
        """Its page in the Prefect UI."""
        return ui_url(f"/runs/flow-run/{self.id}")

    @property
    def state(self) -> str:
        """Name of its state when it was last read: Scheduled, Pending, Building, Running, Completed, Failed, …."""
        return self._state.name or self._state.type.value.title()

    @property
    def state_type(self) -> str:
        """Type of its state, as Prefect groups them, such as `FAILED` for TimedOut."""
        return self._state.type.value

    @property
    def message(self) -> str:
        """Cause and mend, as its state says."""
        return self._state.message or ""

    @property
    def is_final(self) -> bool:
        """Whether it has ended."""
        return self._state.is_final()

    @property
    def succeeded(self) -> bool:
        """Whether it has ended Completed."""
        return self._state.is_completed()

    @property
    def _state(self) -> State[Any]:
        state = self._flow_run.state
        if state is None:
            raise NotFound(f"The run {self.id} has no state.")
        return state

    @property
    def config(self) -> dict[str, Any]:
        """Its config: the job's defaults with what was set for it."""
        return dict(self._flow_run.parameters)

    @property
    def exit_code(self) -> int | None:
        """Exit code of its last attempt, or None where none has ended."""
        code = self.facts.get("exit_code")
        return int(code) if code is not None else None

    @property
    def facts(self) -> dict[str, Any]:
        """What exactly ran: agent, attempt, version, image or environment, outputs, exit code."""
        labels = self._flow_run.labels or {}
        return {key.removeprefix("launch."): value for key, value in labels.items() if key.startswith("launch.")}

    @property
    def flow_run(self) -> FlowRun:
        """The Prefect flow run, as it was last read."""
        return self._flow_run

    async def arefresh(self) -> Run:
        """Asynchronous twin of `refresh`."""
        async with connect() as client:
            await self._look(client)
        return self

    async def _look(self, client: PrefectClient) -> None:
        with self._known():
            self._flow_run = await client.read_flow_run(self.id)

    @contextmanager
    def _known(self) -> Iterator[None]:
        try:
            yield
        except ObjectNotFound:
            raise NotFound(f"The run {self.id} is not on the server any more; somebody has deleted it.") from None

    def refresh(self) -> Run:
        """Read it again from the server.

        Raises:
            NotFound: It has been deleted.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.arefresh())

    @classmethod
    async def aget(cls, run_id: str | UUID) -> Run:
        """Asynchronous twin of `get`."""
        async with connect() as client:
            flow_run = await _read(client, str(run_id))
            names = await flow_names(client, {flow_run.flow_id})
        return cls(flow_run, job=names.get(flow_run.flow_id, ""))

    @classmethod
    def get(cls, run_id: str | UUID) -> Run:
        """A run by its id.

        Args:
            run_id: The id, or at least its first 8 characters.

        Raises:
            NotFound: There is none.
            InvalidInput: Several runs' ids begin so.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.aget(run_id))

    @classmethod
    async def alist(cls, *, queue: str | None = None, states: tuple[StateType, ...] = (), limit: int = 50) -> _Runs:
        """Asynchronous twin of `list`."""
        async with connect() as client:
            found = await client.read_flow_runs(
                work_pool_filter=_pools(queue),
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))))
                if states
                else None,
                sort=FlowRunSort.EXPECTED_START_TIME_DESC,
                limit=min(limit, _PAGE),
            )
            names = await flow_names(client, {run.flow_id for run in found})
        return [cls(run, job=names.get(run.flow_id, "")) for run in found]

    @classmethod
    def list(cls, *, queue: str | None = None, states: tuple[StateType, ...] = (), limit: int = 50) -> _Runs:
        """The newest runs.

        Args:
            queue: Only of this queue.
            states: Only in states of these types.
            limit: How many at most, up to 200.

        Raises:
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(cls.alist(queue=queue, states=states, limit=limit))

    async def await_end(self, timeout: float | None = None) -> Run:
        """Asynchronous twin of `wait`."""
        async with asyncio.timeout(timeout), connect() as client, aclosing(looks(self.id)) as moments:
            async for _ in moments:
                await self._look(client)
                if self.is_final:
                    break
        return self

    def wait(self, timeout: float | None = None) -> Run:
        """Wait until it has ended.

        Args:
            timeout: Seconds to wait at most; None waits for ever.

        Returns:
            The run itself, as it ended.

        Raises:
            TimeoutError: It has not ended in time.
            NotFound: It has been deleted.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.await_end(timeout))

    async def afollow(self) -> AsyncIterator[LogLine]:
        """Its log from the beginning, as it is written, until it has ended and every line was given.

        Raises:
            NotFound: It has been deleted.
            Unreachable: The Prefect API does not answer.
        """
        cursor = LogCursor(self.id)
        async with connect() as client:
            while True:
                await self._look(client)
                ended = self.is_final  # before the lines are read: with the final state the log is complete
                async for line in cursor.read(client):
                    yield line
                if ended:
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def aiter_logs(self) -> AsyncGenerator[LogLine]:
        """Its log so far, read page by page: as `logs`, for a log of any size."""
        async with connect() as client:
            async for line in LogCursor(self.id).read(client):
                yield line

    async def alogs(self) -> _Lines:
        """Asynchronous twin of `logs`."""
        return [line async for line in self.aiter_logs()]

    def logs(self) -> _Lines:
        """Its log so far.

        Raises:
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.alogs())

    async def aiter_metrics(self) -> AsyncGenerator[MetricsLine]:
        """The metrics it has logged, read page by page: as `metrics`, for a log of any size."""
        async with aclosing(self.aiter_logs()) as lines:
            async for line in lines:
                if line.stream == "stdout" and (metrics := parse_metrics(line.text)) is not None:
                    yield metrics

    async def ametrics(self) -> _Metrics:
        """Asynchronous twin of `metrics`."""
        return [metrics async for metrics in self.aiter_metrics()]

    def metrics(self) -> _Metrics:
        """The metrics it has logged with `launch_run.log`, in order.

        Raises:
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.ametrics())

    def outputs(self, into: str | Path) -> Path:
        """Copy its output folder.

        Args:
            into: Folder to copy to; made if missing.

        Returns:
            That folder.

        Raises:
            NotFound: It has no outputs yet, or they are on another machine.
        """
        where = self.facts.get("outputs")
        if not where:
            raise NotFound(f"The run {self.id} has no output folder yet.", mend="Wait until it has ended.")
        if not Path(str(where)).is_dir():
            raise NotFound(
                f"The outputs of the run {self.id} are at {where} on the machine of {self.facts.get('agent')}.",
                mend="Copy them from there.",
            )
        target = Path(into).expanduser()
        shutil.copytree(str(where), target, dirs_exist_ok=True)
        return target

    async def acancel(self) -> Run:
        """Asynchronous twin of `cancel`."""
        async with connect() as client:
            await self._look(client)
            if self.is_final:
                raise InvalidInput(f"The run {self.id} has already ended {self.state}.")
            with self._known():
                await client.set_flow_run_state(self.id, Cancelling(message="Cancelled on request."))
            await self._look(client)
        return self

    def cancel(self) -> Run:
        """Ask for its end. A waiting run ends at once; a running one when its agent has stopped it (see `wait`).

        Returns:
            The run itself.

        Raises:
            InvalidInput: It has already ended.
            NotFound: It has been deleted.
            Unreachable: The Prefect API does not answer.
        """
        return wait_for(self.acancel())


def _pools(queue: str | None) -> WorkPoolFilter:
    ours = [naming.pool_type(target) for target in naming.TARGETS]
    return WorkPoolFilter(type=WorkPoolFilterType(any_=ours), name=WorkPoolFilterName(any_=[queue]) if queue else None)


async def _read(client: PrefectClient, text: str) -> FlowRun:
    try:
        return await client.read_flow_run(UUID(text))
    except ObjectNotFound:
        raise _unknown(text) from None
    except ValueError:
        pass
    if len(text) < 8:
        raise InvalidInput(f"{text!r} is no run id.", mend="Give the id, or at least its first 8 characters.")
    recent = await client.read_flow_runs(
        work_pool_filter=_pools(None), sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_PAGE
    )
    found = [run for run in recent if str(run.id).startswith(text.lower())]
    if len(found) > 1:
        raise InvalidInput(f"The ids of {len(found)} runs begin with {text!r}.", mend="Give more of it.")
    if not found:
        raise _unknown(text)
    return found[0]


def _unknown(text: str) -> NotFound:
    return NotFound(f"There is no run {text!r}.", mend="See `prefect-launch run list`.")


# `Run.list` hides the type inside the class.
_Runs = list[Run]
_Lines = list[LogLine]
_Metrics = list[MetricsLine]
