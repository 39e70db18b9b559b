"""When to look whether a run has ended: at the server's word, and now and then in case a word was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from uuid import UUID

from prefect.client.schemas.objects import TERMINAL_STATES
from prefect.events.clients import PrefectEventSubscriber, get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.settings import PREFECT_API_URL

from launch_prefect.client.api import api_url

_FINAL = {state.value for state in TERMINAL_STATES}
LOOK_SECONDS = 5
"""At most this long passes between two looks."""


async def looks(run_id: UUID) -> AsyncGenerator[None]:
    """Yields when it is worth looking whether a run has ended: at once, when it ends, and every `LOOK_SECONDS`.

    Args:
        run_id: The run.
    """
    changed = asyncio.Event()
    listener = asyncio.create_task(_listen(run_id, changed))
    try:
        while True:
            changed.clear()
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await changed.wait()
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await listener


async def _listen(run_id: UUID, changed: asyncio.Event) -> None:
    wanted = EventFilter(
        event=EventNameFilter(prefix=["prefect.flow-run."]),
        resource=EventResourceFilter(id=[f"prefect.flow-run.{run_id}"]),
    )
    while True:
        with suppress(Exception):  # whatever the connection breaks with: looking now and then goes on
            async with _subscriber(wanted) as events:
                changed.set()  # what happened before anybody listened
                async for event in events:
                    if event.resource.get("prefect.state-type") in _FINAL:
                        changed.set()
        await asyncio.sleep(LOOK_SECONDS)


def _subscriber(wanted: EventFilter) -> PrefectEventSubscriber:
    url = api_url()
    if url == PREFECT_API_URL.value():
        return get_events_subscriber(wanted, reconnection_attempts=0)
    return PrefectEventSubscriber(url, filter=wanted, reconnection_attempts=0)
