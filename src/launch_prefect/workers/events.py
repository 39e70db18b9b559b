"""What happens to the runs of one work pool, as the server tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import anyio
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.logging import get_logger

_PREFIX = "prefect.flow-run."
_CANCELS = {"Cancelling", "Cancelled"}
# A run that enters the queue, or one that leaves the target and frees a slot.
_WAKES = {"Scheduled", "AwaitingRetry", "Late", "Completed", "Failed", "Crashed", "Cancelled", "TimedOut"}
RECONNECT_SECONDS = 2
log = get_logger("launch.events")


@dataclasses.dataclass(frozen=True, slots=True)
class PoolEvent:
    """One change of one run.

    Attributes:
        run_id: The run.
        state: Name of the state it entered, such as `Scheduled`.
    """

    run_id: UUID
    state: str

    @property
    def cancels(self) -> bool:
        """Whether the run must not go on."""
        return self.state in _CANCELS

    @property
    def may_free_or_add(self) -> bool:
        """Whether a run may be able to start now that could not before."""
        return self.state in _WAKES


class PoolEvents:
    """Follows the events of a pool for ever; connects again after every loss.

    Args:
        pool_id: Gives the pool's id, or None while it is not known.
    """

    def __init__(self, pool_id: Callable[[], UUID | None]) -> None:
        self._pool_id = pool_id

    async def __aiter__(self) -> AsyncIterator[PoolEvent]:
        while True:
            pool = self._pool_id()
            if pool is not None:
                try:
                    async with get_events_subscriber(self._filter(pool), reconnection_attempts=0) as events:
                        yield PoolEvent(UUID(int=0), "Scheduled")  # what happened while nobody listened
                        async for event in events:
                            if found := _read(event):
                                yield found
                except Exception as error:  # whatever the connection breaks with, the poll is the safety net
                    log.debug("Lost the events of pool %s: %s", pool, error)
            await anyio.sleep(RECONNECT_SECONDS)

    @staticmethod
    def _filter(pool: UUID) -> EventFilter:
        return EventFilter(
            event=EventNameFilter(prefix=[_PREFIX]),
            any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{pool}"]),
        )


def _read(event: Event) -> PoolEvent | None:
    _, _, run_id = event.resource.id.rpartition(".")
    try:
        return PoolEvent(UUID(run_id), event.event.removeprefix(_PREFIX))
    except ValueError:
        return None
