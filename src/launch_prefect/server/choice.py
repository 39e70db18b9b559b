"""Which Prefect server `up` uses: one that is reachable, or one it starts."""

from __future__ import annotations

import asyncio
import importlib
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from launch_prefect.errors import InvalidInput, Unreachable
from launch_prefect.server import connect, prefect_server


@dataclass(frozen=True)
class Choice:
    """The Prefect server of an `up`.

    Attributes:
        api_url: Address of its API.
        ui_url: Address of its web page.
        port: Port that one is to be started on; None where one runs already.
        notes: What the person at the terminal should know.
    """

    api_url: str
    ui_url: str
    port: int | None = None
    notes: tuple[str, ...] = ()


async def load_prefect() -> None:
    """Import Prefect's client without holding up signals and other tasks."""
    await asyncio.to_thread(importlib.import_module, "prefect.client.orchestration")


async def choose_server(port: int | None) -> Choice:
    """Find the server that is configured or listens already, or a free port for one of ours.

    Args:
        port: The port the user has asked for, if any.

    Returns:
        The choice.

    Raises:
        LaunchError: The configured server does not answer, or the port is taken by something else.
    """
    configured = await asyncio.to_thread(connect.configured_api_url)
    if configured is None:
        return await _at_port(port or _default_port())
    try:
        await load_prefect()
        await connect.ensure_reachable(configured)
    except Unreachable as error:
        own_port = _local_port(configured)
        if own_port is None or "refuses" in error.message:
            raise Unreachable(
                error.message,
                mend="Unset PREFECT_API_URL (`prefect config unset PREFECT_API_URL`) to start a server here.",
            ) from None
        return await _at_port(port or own_port, configured=configured)
    notes = [f"Using the Prefect server at {configured}; none is started."]
    if port is not None and port != _local_port(configured):
        notes.append(f"--port {port} is not used: PREFECT_API_URL names a server that answers.")
    return Choice(configured, _ui_of(configured), notes=tuple(notes))


async def _at_port(port: int, configured: str | None = None) -> Choice:
    api_url = prefect_server.api_address(port)
    ui_url = api_url.removesuffix("/api")
    if not prefect_server.port_is_free(port):
        if not await prefect_server.answers(api_url):
            raise prefect_server.port_taken(port)
        note = f"Using the Prefect server that listens on port {port}; none is started."
        return Choice(api_url, ui_url, notes=(note,))
    notes: tuple[str, ...] = ()
    if configured is not None and _local_port(configured) != port:
        notes = (f"PREFECT_API_URL names {configured}, where nothing answers; set it to {api_url}.",)
    return Choice(api_url, ui_url, port, notes)


def _default_port() -> int:
    text = os.environ.get("PREFECT_SERVER_API_PORT") or str(prefect_server.DEFAULT_PORT)
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise InvalidInput(f"PREFECT_SERVER_API_PORT is not a port: {text!r}.")
    return int(text)


def _local_port(api_url: str) -> int | None:
    """The port, where the address is one that a server of ours would have."""
    parts = urlsplit(api_url)
    ours = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost") and parts.path == "/api"
    return (parts.port or 80) if ours else None


def _ui_of(api_url: str) -> str:
    from prefect.settings import get_current_settings

    with connect.using_api(api_url):
        return get_current_settings().ui_url or api_url.removesuffix("/api")
