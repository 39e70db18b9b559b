"""Blocking calls in threads of their own."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar
from weakref import WeakSet

import anyio
import anyio.to_thread

_THREADS = anyio.CapacityLimiter(1000)  # one for each followed container: they wait, they do not work
P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call; many may wait at once, unlike in anyio's default 40 threads."""
    return await anyio.to_thread.run_sync(functools.partial(call, *args, **kwargs), limiter=_THREADS)


_widened: WeakSet[asyncio.AbstractEventLoop] = WeakSet()


def widen() -> None:
    """Let this event loop's `asyncio.to_thread` have many threads, rather than as few as the machine has processors.

    A git server, a registry or an engine that does not answer holds its thread: what waits for another one must not
    wait for it.
    """
    loop = asyncio.get_running_loop()
    if loop not in _widened:
        _widened.add(loop)
        loop.set_default_executor(ThreadPoolExecutor(500, thread_name_prefix="launch"))
