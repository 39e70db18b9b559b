"""When to look whether a run has ended: at the server's word, and now and then in case a word was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from uuid import UUID
from weakref import WeakKeyDictionary

from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.events import Event
from prefect.events.clients import PrefectEventSubscriber, get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

from launch_prefect.client.api import api_url, is_configured

LOOK_SECONDS = 5
"""At most this long passes between two looks."""
_FINAL = {state.value for state in TERMINAL_STATES}


async def looks(run_id: UUID) -> AsyncGenerator[None]:
    """Yields when it is worth looking whether a run has ended: at once, when it ends, and every `LOOK_SECONDS`.

    Args:
        run_id: The run.
    """
    yield  # before any connection: most runs that somebody asks about have ended
    loop = asyncio.get_running_loop()
    ends = _ENDS.setdefault(loop, _Ends())
    ended = ends.wanted(run_id)
    try:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await ended.wait()
            ended.clear()
            yield
    finally:
        ends.unwanted(run_id, ended)


class _Ends:
    """One connection to the server's events for all runs that are waited for in one event loop."""

    def __init__(self) -> None:
        self._wanted: dict[UUID, set[asyncio.Event]] = {}
        self._listener: asyncio.Task[None] | None = None

    def wanted(self, run_id: UUID) -> asyncio.Event:
        """Set when the run ends, and when the connection has just been made."""
        ended = asyncio.Event()
        self._wanted.setdefault(run_id, set()).add(ended)
        if self._listener is None:
            self._listener = asyncio.create_task(self._listen())
        return ended

    def unwanted(self, run_id: UUID, ended: asyncio.Event) -> None:
        """Nobody waits for `ended` any more."""
        waiting = self._wanted.get(run_id, set())
        waiting.discard(ended)
        if not waiting:
            self._wanted.pop(run_id, None)
        if not self._wanted and self._listener is not None:
            self._listener.cancel()
            self._listener = None

    async def _listen(self) -> None:
        while True:
            with suppress(Exception):  # whatever the connection breaks with: looking now and then goes on
                async with _subscriber(EventFilter(event=EventNameFilter(prefix=["prefect.flow-run."]))) as events:
                    self._tell_all()  # what happened before anybody listened
                    async for event in events:
                        self._tell(event)
            await asyncio.sleep(LOOK_SECONDS)

    def _tell_all(self) -> None:
        for waiting in self._wanted.values():
            for ended in waiting:
                ended.set()

    def _tell(self, event: Event) -> None:
        if event.resource.get("prefect.state-type") in _FINAL:
            with suppress(ValueError):
                run_id = UUID(event.resource.id.rpartition(".")[2])
                for ended in self._wanted.get(run_id, ()):
                    ended.set()


_ENDS: WeakKeyDictionary[asyncio.AbstractEventLoop, _Ends] = WeakKeyDictionary()


def _subscriber(wanted: EventFilter) -> PrefectEventSubscriber:
    url = api_url()
    if is_configured(url):
        return get_events_subscriber(wanted, reconnection_attempts=0)
    return PrefectEventSubscriber(url, filter=wanted, reconnection_attempts=0)
