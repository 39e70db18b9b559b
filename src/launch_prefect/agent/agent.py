"""One process that serves several queues: one Prefect worker for each."""

from __future__ import annotations

import asyncio
import platform
import signal
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from prefect.logging import get_logger
from prefect.workers.base import BaseWorker
from tenacity import AsyncRetrying, before_sleep_log, retry_if_exception_type, wait_exponential_jitter

from launch_prefect import naming
from launch_prefect.client.api import api_url, connect
from launch_prefect.errors import InvalidInput, Unreachable
from launch_prefect.queues import pools
from launch_prefect.server.connect import using_api
from launch_prefect.workers.base import LaunchWorker

log = get_logger("launch.agent")


async def run_agent(
    queues: Sequence[str],
    *,
    name: str | None = None,
    max_jobs: int | None = None,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve queues until SIGINT or SIGTERM; runs in progress are then stopped and reported Cancelled.

    What was taken but not started goes back into its queue. A second signal kills without grace.

    Waits for a Prefect server that is away.

    Args:
        queues: Names of existing queues.
        name: The agent's name. Default: the machine's.
        max_jobs: Most runs at once of each queue, on top of the queue's own limit.
        ready: Called once when every queue is served.

    Raises:
        NotFound: A queue does not exist.
        InvalidInput: No queue is given, or a queue's target is not installed.
        Unreachable: No Prefect server is known.
    """
    if not queues:
        raise InvalidInput("An agent needs a queue.", mend="Give one with -q QUEUE.")
    agent = name or platform.node()
    with using_api(api_url()):  # Prefect's worker knows settings alone, and not a running `up`
        await _serve_all([(queue, f"{agent} ({queue})") for queue in dict.fromkeys(queues)], max_jobs, ready)


async def _serve_all(queues: Sequence[tuple[str, str]], max_jobs: int | None, ready: Callable[[], None]) -> None:
    """Serve queues, each under a worker's name, until a signal."""
    workers = [await _worker(queue, worker, max_jobs) for queue, worker in queues]
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stopping.is_set():
            log.warning("Asked to stop again: runs in progress are killed")
            for worker in workers:
                worker.hurry()
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    try:
        async with anyio.create_task_group() as tasks:
            waiting = [asyncio.Event() for _ in workers]
            for worker, served in zip(workers, waiting, strict=True):
                tasks.start_soon(_serve, worker, served)
            tasks.start_soon(_announce, waiting, ready)
            await stopping.wait()
            log.info("Stopping; runs in progress are stopped with the agent")
            tasks.cancel_scope.cancel()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


async def _announce(waiting: Sequence[asyncio.Event], ready: Callable[[], None]) -> None:
    for served in waiting:
        await served.wait()
    ready()


async def _serve(worker: BaseWorker[Any, Any, Any], served: asyncio.Event) -> None:
    """One queue, for ever; its trouble is logged and does not touch the others."""

    def printer(text: str) -> None:
        log.info(text)
        served.set()

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Exception),
        wait=wait_exponential_jitter(initial=1, max=30),
        before_sleep=before_sleep_log(log, 40, exc_info=True),
    ):
        with attempt:
            await worker.start(printer=printer)


async def _worker(queue: str, name: str, max_jobs: int | None) -> LaunchWorker[Any, Any, Any]:
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(Unreachable), wait=wait_exponential_jitter(initial=0.2, max=5)
    ):
        with attempt:
            async with connect() as client:
                pool = await pools.read(client, queue)
    kind = BaseWorker.get_worker_class_from_type(pool.type)
    if kind is None or not issubclass(kind, LaunchWorker):
        target = naming.target_of(pool.type)
        raise InvalidInput(
            f"The target {target!r} of queue {queue!r} is not installed here.",
            mend=f"pip install 'launch-prefect[{target}]'.",
        )
    return kind(work_pool_name=queue, name=name, limit=max_jobs, create_pool_if_not_found=False)
