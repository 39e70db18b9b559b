"""A part of the system that is kept running: started, started again when it dies, given up when that does not help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from launch_prefect.errors import LaunchError, Unreachable
from launch_prefect.server.process import Child, stop

Starter = Callable[[Callable[[Child], None]], Awaitable[Child]]
"""Starts a process and returns when it is ready; tells the callable of the process as soon as there is one."""

_QUICK = 20.0  # seconds: who lives longer has recovered
_MOST_QUICK_DEATHS = 5
_LONGEST_PAUSE = 10.0
_LONGEST_END = 35.0  # seconds that one which did not get ready may take to end before it is hurried


class Part:
    """One of the processes of `up`.

    Args:
        name: What people call it.
        start: Starts it.
        say: Tells the person at the terminal.
        changed: Called when its process has changed.
    """

    def __init__(self, name: str, start: Starter, *, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.name = name
        self.child: Child | None = None
        self._start = start
        self._say = say
        self._changed = changed

    async def begin(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            LaunchError: It cannot be started.
        """
        await self._start(self._spawned)

    def _spawned(self, child: Child) -> None:
        self.child = child
        self._changed()

    async def keep(self) -> LaunchError:
        """Start it again whenever it dies.

        Returns:
            Only when it has died too often: the error to end with.
        """
        deaths = 0
        problem: LaunchError | None = None
        while True:
            if problem is None:
                began = time.monotonic()
                problem = await self._death()
                deaths = 1 if time.monotonic() - began > _QUICK else deaths + 1
                self._say(problem.message)
            else:
                deaths += 1
            if deaths >= _MOST_QUICK_DEATHS:
                return Unreachable(
                    f"The {self.name} has died {deaths} times in a row; it is not started again.\n{problem.message}",
                    mend=problem.mend,
                )
            problem = await self._again(deaths)

    async def _death(self) -> LaunchError:
        assert self.child is not None  # noqa: S101 - begin() has set it
        await self.child.process.wait()
        lines = self.child.last_lines()
        return Unreachable(
            f"The {self.name} {self.child.ended()}." + (f" Its last lines:\n{lines}" if lines else ""),
            mend=f"Its log is {self.child.log}.",
        )

    async def _again(self, deaths: int) -> LaunchError | None:
        """Start it once more; the reason where that fails."""
        await asyncio.sleep(min(0.25 * 2 ** (deaths - 1), _LONGEST_PAUSE))
        try:
            await self.begin()
        except LaunchError as error:
            patience = asyncio.Event()
            asyncio.get_running_loop().call_later(_LONGEST_END, patience.set)
            await self.end(patience)
            return error
        self._say(f"The {self.name} is back.")
        return None

    async def end(self, hurry: asyncio.Event) -> None:
        """End it and what it started.

        Args:
            hurry: When set, it is hurried.
        """
        if self.child is not None:
            await stop(self.child, hurry)
