"""Work that many want at once is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from launch_prefect.images.processes import Log

Result = TypeVar("Result")
OnBuild = Callable[[], Awaitable[None]]


class Build:
    """A piece of work in progress, as the work itself sees it."""

    def __init__(self) -> None:
        self.listeners: list[Log] = []
        self.begun = asyncio.Event()

    def log(self, line: str) -> None:
        """Give a line to everyone who waits."""
        for listener in list(self.listeners):
            listener(line)

    def begin(self) -> None:
        """Say that something really has to be built: everyone who waits has its `on_build` called."""
        self.begun.set()


class SharedBuilds(Generic[Result]):
    """Runs one piece of work per key however many ask for it; it ends early only when nobody waits any more."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[Build, asyncio.Task[Result]]] = {}

    async def run(self, key: str, work: Callable[[Build], Awaitable[Result]], *, log: Log, on_build: OnBuild) -> Result:
        """Wait for the work of a key, which is begun if nobody has.

        Args:
            key: What identifies the result.
            work: Does it.
            log: Takes its log lines from now on.
            on_build: Awaited once when something has to be built.

        Returns:
            The result of the work, which may have raised anything.
        """
        if key not in self._running:
            build = Build()
            task = asyncio.ensure_future(work(build))
            task.add_done_callback(lambda done: self._forget(key, done))
            self._running[key] = (build, task)
        build, task = self._running[key]
        build.listeners.append(log)
        begun = asyncio.ensure_future(build.begun.wait())
        try:
            await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
            if build.begun.is_set():
                await on_build()
            return await asyncio.shield(task)
        finally:
            begun.cancel()
            build.listeners.remove(log)
            if not build.listeners and not task.done():
                self._forget(key, task)  # whoever comes next begins anew
                task.cancel()
                await asyncio.wait({task})

    def _forget(self, key: str, task: asyncio.Future[Result]) -> None:
        if key in self._running and self._running[key][1] is task:
            del self._running[key]
