"""`prefect-launch prune`: make room on this machine."""

from __future__ import annotations

import asyncio

from launch_prefect.cli import output
from launch_prefect.cli.output import Json, note, print_json, say, table, working
from launch_prefect.cli.session import reach
from launch_prefect.errors import InvalidInput, Unreachable


async def prune(*, budget: str | None = None, dry_run: bool = False, json: Json = False) -> None:
    """Remove images, environments, git mirrors and snapshots of code that nothing needs, least recently used first.

    ```
    prefect-launch prune --dry-run
    prefect-launch prune --budget 50Gi
    ```

    Agents do this by themselves. Never removed is what a job, a waiting run or a container needs, and what was used
    in the last ten minutes.

    Args:
        budget: What all of it may take together on this machine, such as 50Gi; 0 removes all that nothing needs.
            Default: LAUNCH_DISK_BUDGET.
        dry_run: Remove nothing, and show what would be removed.
        json: Print JSON, and nothing else, on standard output.
    """
    from launch_prefect.client.api import connect
    from launch_prefect.client.needed import needed_code
    from launch_prefect.images.housekeeping import Usage, keep_house
    from launch_prefect.settings import get_settings

    allowed, settings = _bytes(budget), get_settings()
    await reach()
    with working("Looking at what is needed"):
        async with connect() as client:
            needed = await needed_code(client)
        engine = await _has_engine()
        removed = await asyncio.to_thread(
            keep_house,
            settings,
            Usage(settings),
            needed=needed,
            budget=allowed,
            engine=engine,
            dry_run=dry_run,
            log=lambda line: note(line) if line.startswith("Could not") else None,
        )
    freed = sum(each.size for each in removed)
    if json:
        listed = [{"kind": each.kind, "name": each.name, "size": each.size} for each in removed]
        print_json({"dry_run": dry_run, "freed": freed, "removed": listed})
        return
    table(
        ("KIND", "NAME", "SIZE"),
        [(each.kind, each.name, output.size(each.size)) for each in removed],
        empty="There is nothing to remove.",
    )
    if removed:
        say(f"{'This would free' if dry_run else 'Freed'} {output.size(freed)}.")


def _bytes(budget: str | None) -> int | None:
    if budget is None:
        return None
    from launch_prefect.spec.resources import to_bytes

    try:
        return max(to_bytes(budget), 1)  # for house-keeping 0 would be no limit
    except ValueError as error:
        raise InvalidInput(f"--budget {budget}: {error}.") from None


async def _has_engine() -> bool:
    from launch_prefect.images import engine

    try:
        await asyncio.to_thread(engine.platform)
    except Unreachable as error:
        note(f"{error.message} Its images are left alone.")
        return False
    return True
