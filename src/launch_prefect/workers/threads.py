"""Blocking calls in threads of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import anyio
import anyio.to_thread

_THREADS = anyio.CapacityLimiter(1000)  # one for each followed container: they wait, they do not work
P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call; many may wait at once, unlike in anyio's default 40 threads."""
    return await anyio.to_thread.run_sync(functools.partial(call, *args, **kwargs), limiter=_THREADS)
