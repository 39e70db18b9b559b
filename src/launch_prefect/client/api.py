"""The connection to the Prefect API, and its errors as ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.utilities.asyncutils import run_coro_as_sync

from launch_prefect.errors import Unreachable
from launch_prefect.server.connect import resolve_api_url
from launch_prefect.settings import get_settings

T = TypeVar("T")


def is_configured(url: str) -> bool:
    """Whether an address is the one Prefect is configured with, and so are its credentials."""
    return url.rstrip("/") == (PREFECT_API_URL.value() or "").rstrip("/")


# Making a client costs as much as several requests: one for each event loop and address.
_CLIENTS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, PrefectClient]] = WeakKeyDictionary()


async def _client(url: str) -> PrefectClient:
    clients = _CLIENTS.setdefault(asyncio.get_running_loop(), {})
    if url not in clients:
        configured = get_client() if is_configured(url) else PrefectClient(url)
        clients[url] = await configured.__aenter__()
    return clients[url]


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run an asynchronous twin from blocking code, also inside a running event loop."""
    return run_coro_as_sync(work)


def api_url() -> str:
    """The Prefect API to use: PREFECT_API_URL or the profile's, else that of a running `prefect-launch up`.

    Raises:
        Unreachable: There is none.
    """
    url = resolve_api_url(get_settings())
    if url is None:
        raise Unreachable(
            "No Prefect server is known.", mend="Start one with `prefect-launch up`, or set PREFECT_API_URL."
        )
    return url


def ui_url(path: str = "") -> str:
    """Address of a page of the Prefect UI.

    Args:
        path: Such as `/runs/flow-run/ID`.
    """
    base = PREFECT_UI_URL.value() if PREFECT_API_URL.value() else None
    return (base or api_url().removesuffix("/api")).rstrip("/") + path


@asynccontextmanager
async def connect() -> AsyncIterator[PrefectClient]:
    """A client of the API.

    Raises:
        Unreachable: No server is known, it does not answer, or it refuses the credentials.
    """
    url = api_url()
    try:
        yield await _client(url)
    except httpx.TransportError as error:
        raise Unreachable(
            f"The Prefect server at {url} does not answer ({type(error).__name__}).",
            mend="Start it with `prefect-launch up`, or correct PREFECT_API_URL.",
        ) from None
    except httpx.HTTPStatusError as error:
        if error.response.status_code in (401, 403):
            raise Unreachable(
                f"The Prefect server at {url} refuses the credentials.", mend="Set PREFECT_API_KEY or log in."
            ) from None
        if error.response.status_code >= 500:
            raise Unreachable(
                f"The Prefect server at {url} answers with an error ({error.response.status_code}).",
                mend="Look at its log.",
            ) from None
        raise
