"""House-keeping of an agent: what nothing needs is removed over the disk budget of its machine."""

from __future__ import annotations

import asyncio

from prefect.client.orchestration import PrefectClient
from prefect.logging import get_logger

from launch_prefect.client.needed import needed_code
from launch_prefect.errors import LaunchError
from launch_prefect.images.housekeeping import Usage, keep_house
from launch_prefect.settings import LaunchSettings
from launch_prefect.workers.reporting import until_answered

FIRST_SECONDS = 60.0
"""After an agent's start: what it finds to do first is not slowed."""
EVERY_SECONDS = 900.0
log = get_logger("launch.house")


async def keep_house_for_ever(client: PrefectClient, settings: LaunchSettings, *, engine: bool) -> None:
    """Look again and again whether what is kept on this machine exceeds its budget.

    Args:
        client: The API, which knows what jobs and runs still need.
        settings: Where state is kept, and the budget; with none, nothing is done.
        engine: Whether images of a Docker engine count.
    """
    if not settings.disk_budget:
        return
    usage = Usage(settings)
    await asyncio.sleep(FIRST_SECONDS)
    while True:
        try:
            needed = await until_answered(lambda: needed_code(client))
            await asyncio.to_thread(keep_house, settings, usage, needed=needed, engine=engine, log=log.info)
        except LaunchError as error:
            log.warning("House-keeping was not possible: %s", error)
        except Exception:  # the next round may succeed
            log.exception("House-keeping failed")
        await asyncio.sleep(EVERY_SECONDS)
