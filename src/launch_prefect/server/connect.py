"""Which Prefect API to talk to, and whether it is there. Prefect never starts a server of its own silently."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from launch_prefect.errors import Unreachable
from launch_prefect.server import state
from launch_prefect.settings import LaunchSettings

_MEND = "Start one with `prefect-launch up`, or set PREFECT_API_URL to the address of yours."


def configured_api_url() -> str | None:
    """The API that the environment or the active Prefect profile names."""
    named = os.environ.get("PREFECT_API_URL")
    if not named:
        # Imported here: it takes a second or two, which a command that is told the address need not wait for.
        from prefect.settings import get_current_settings

        named = get_current_settings().api.url
    return named.rstrip("/") if named else None


def resolve_api_url(settings: LaunchSettings) -> str | None:
    """The Prefect API that commands on this machine use.

    Args:
        settings: They name the state folder of a running `up`.

    Returns:
        What `PREFECT_API_URL` or the Prefect profile says, else the running `up`'s, else None.
    """
    configured = configured_api_url()
    if configured:
        return configured
    up = state.running(settings)
    return up.api_url if up else None


@contextmanager
def using_api(api_url: str) -> Iterator[None]:
    """Prefect clients made inside talk to this API and start no server of their own."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE, temporary_settings

    with temporary_settings({PREFECT_API_URL: api_url, PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False}):
        yield


async def ensure_reachable(api_url: str | None, *, timeout: float = 10) -> None:
    """Check that a Prefect API answers.

    Args:
        api_url: Its address; None where none is known.
        timeout: Seconds to wait for an answer.

    Raises:
        Unreachable: It does not answer, or refuses our credentials.
    """
    if not api_url:
        raise Unreachable("No Prefect server is running here and none is named.", mend=_MEND)
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    # Prefect's own client, because it knows the credentials, certificates and proxies that are configured.
    problem: Exception | None
    try:
        with using_api(api_url), temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            async with asyncio.timeout(timeout), get_client() as client:
                problem = await client.api_healthcheck()
    except (TimeoutError, httpx.HTTPError, RuntimeError, ValueError) as error:
        problem = error
    if problem is None:
        return
    if isinstance(problem, httpx.HTTPStatusError) and problem.response.status_code in (401, 403):
        raise Unreachable(
            f"The Prefect server at {api_url} refuses the credentials.",
            mend="Set PREFECT_API_KEY or PREFECT_API_AUTH_STRING.",
        ) from None
    raise Unreachable(f"No Prefect server answers at {api_url}.", mend=_MEND) from None
