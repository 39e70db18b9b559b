"""One round of house-keeping."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from filelock import FileLock, Timeout

from launch_prefect.errors import LaunchError
from launch_prefect.images.housekeeping import images
from launch_prefect.images.housekeeping.choice import GRACE_SECONDS, Candidate, choose, total
from launch_prefect.images.housekeeping.folders import Folders
from launch_prefect.images.housekeeping.images import Images
from launch_prefect.images.housekeeping.usage import Kind, Usage
from launch_prefect.settings import LaunchSettings

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Removed:
    """Something that has been removed.

    Attributes:
        kind: What it was.
        name: Its name; see `Candidate`.
        size: Bytes that are free now; what it shared with others is not.
    """

    kind: Kind
    name: str
    size: int


def keep_house(
    settings: LaunchSettings,
    usage: Usage,
    *,
    needed: frozenset[str] = frozenset(),
    budget: int | None = None,
    engine: bool = True,
    dry_run: bool = False,
    log: Callable[[str], None] = _LOG.info,
) -> list[Removed]:
    """Remove what was not used for longest until the rest fits the budget. Blocking: call it in a thread.

    Never removed: what is needed, what a container or an attempt uses, what has been used in the last ten minutes,
    what is being built or fetched, the environment of an image that is kept, and anything that is not ours. If
    another process of this machine does it at this moment, nothing is done.

    Args:
        settings: Where state is kept, and the budget.
        usage: When things were last used.
        needed: Digests, keys and names that must stay: of the code that deployments and waiting runs refer to, of
            images (ids, names or digests) and environments.
        budget: Bytes that images, environments, snapshots and git mirrors may take together; 0 for any. None is
            `settings.disk_budget`.
        engine: Whether there is a Docker engine to look at.
        dry_run: Remove nothing, and return what would be removed.
        log: Takes a line for each that is removed, and for what cannot be.

    Returns:
        What has been removed.

    Raises:
        Unreachable: The engine does not answer; nothing has been removed.
    """
    try:
        with FileLock(settings.folder("usage") / "housekeeping.lock", timeout=0):
            return _keep_house(settings, usage, needed, budget, engine, dry_run, log)
    except Timeout:
        return []


def _keep_house(
    settings: LaunchSettings,
    usage: Usage,
    needed: frozenset[str],
    budget: int | None,
    engine: bool,
    dry_run: bool,
    log: Callable[[str], None],
) -> list[Removed]:
    folders = Folders(settings, usage)
    if not dry_run:
        folders.sweep(time.time())
    allowed = int(settings.disk_budget if budget is None else budget)
    if not allowed:
        return []
    seen = images.find(usage) if engine else Images()
    candidates = [*seen.ours, *folders.find()]
    chosen = choose(candidates, allowed, now=time.time(), needed=needed, others=seen.others)
    removed = []
    for choice in chosen:
        candidate, now = choice.candidate, time.time()
        about = (
            f"{candidate.kind} {candidate.shown} ({choice.size / 1024**2:.1f} MiB), last used {_ago(candidate, now)}"
        )
        if not dry_run:
            # It takes a while to come to the last of them; meanwhile one may have been used.
            if _last_used(candidate, folders, usage) > now - GRACE_SECONDS:
                continue
            try:
                gone = images.remove(candidate.name) if candidate.kind == "image" else folders.remove(candidate)
            except (LaunchError, OSError) as error:
                log(f"Could not remove {about}: {error}")
                continue
            if not gone:
                continue
            if candidate.kind != "git":
                usage.forget(candidate.kind, candidate.name)
            log(f"Removed {about}.")
        removed.append(Removed(candidate.kind, candidate.name, choice.size))
    left = total(candidates, seen.others) - sum(each.size for each in removed)
    if left > allowed and not dry_run:
        log(
            f"Images, environments and code take {left / 1024**3:.1f} GiB, and LAUNCH_DISK_BUDGET is "
            f"{allowed / 1024**3:.1f} GiB: all the rest is needed or in use."
        )
    return removed


def _last_used(candidate: Candidate, folders: Folders, usage: Usage) -> float:
    if candidate.kind == "image":
        return usage.last("image", candidate.name) or 0
    return folders.last_used(candidate.kind, candidate.name)


def _ago(candidate: Candidate, now: float) -> str:
    seconds = max(now - candidate.last_used, 0)
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} seconds ago"
