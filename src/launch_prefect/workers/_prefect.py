"""The one place that touches what is private in Prefect and its collections.

A test runs every function here against the Prefect versions we allow.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

import anyio
from docker import DockerClient
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.workers.base import BaseWorker
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

AnyWorker = BaseWorker[Any, Any, Any]


def is_synced(worker: AnyWorker) -> bool:
    """Whether the worker has its work pool from the server."""
    return worker._work_pool is not None


def pool_name(worker: AnyWorker) -> str:
    """The name of the pool it serves."""
    return worker._work_pool_name


def work_queue_names(worker: AnyWorker) -> list[str]:
    """The work queues it was told to serve; none means all."""
    return sorted(worker._work_queues)


def poll_seen(worker: AnyWorker, at: Any) -> None:
    """Tell the worker's health endpoint that a poll was made."""
    worker._last_polled_time = at


def take_slot(worker: AnyWorker, run_id: UUID) -> bool:
    """Take one of the worker's own slots (`--limit`); False where none is free."""
    if worker._limiter is None:
        return True
    try:
        worker._limiter.acquire_on_behalf_of_nowait(run_id)
    except anyio.WouldBlock:
        return False
    return True


def is_limited(worker: AnyWorker) -> bool:
    """Whether runs may wait because the pool's limit, or the worker's own, is reached."""
    pool = worker._work_pool
    if worker._limiter is not None and worker._limiter.available_tokens < 1:
        return True
    return pool is not None and pool.concurrency_limit is not None


def free_slot(worker: AnyWorker, run_id: UUID) -> None:
    """Give a slot back."""
    worker._release_limit_slot(run_id)


async def submit_flow_job(worker: AnyWorker, entry: WorkerFlowRunResponse) -> None:
    """Let the stock worker carry out a run whose engine runs inside it."""
    await worker._submit_scheduled_flow_runs([entry])


def container_settings(
    worker: DockerWorker, client: DockerClient, configuration: DockerWorkerJobConfiguration
) -> dict[str, Any]:
    """What prefect-docker makes of a configuration: the arguments of docker-py's `containers.create`."""
    return cast(dict[str, Any], worker._build_container_settings(client, configuration))
