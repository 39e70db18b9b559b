"""Who builds an image, where several could."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from filelock import AsyncFileLock

from launch_prefect import naming

BuildLock = Callable[[str], AbstractAsyncContextManager[None]]
"""Called with the name of an image; held while it is built, by one builder of all that share the lock."""


def of_machine(folder: Path) -> BuildLock:
    """A lock among the processes of this machine.

    Args:
        folder: Where its files are.
    """

    @asynccontextmanager
    async def lock(name: str) -> AsyncIterator[None]:
        async with AsyncFileLock(folder / f"{naming.slug(name, limit=120)}.lock", run_in_executor=False):
            yield

    return lock
