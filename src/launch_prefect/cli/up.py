"""`prefect-launch up`: a running system in one command."""

from __future__ import annotations

import asyncio
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from launch_prefect.cli.output import out
from launch_prefect.cli.queue import queue_from_file
from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.spec import QueueSpec

_LOOK_SECONDS = 0.3


async def up(
    *,
    file: Annotated[list[Path] | None, Parameter(name=("--file", "-f"))] = None,
    port: int | None = None,
) -> int:
    """Start a Prefect server if none is reachable, queues, and an agent; Ctrl-C ends what it started.

    ```
    prefect-launch up
    prefect-launch up -f gpu.yaml --port 4300
    ```

    Without -f it serves one queue, "local", whose runs are processes on this machine.

    Args:
        file: A queue file (YAML); repeat it for several queues.
        port: Port of the Prefect server, where one is started. Default: 4200.
    """
    if port is not None and not 0 < port < 65536:
        raise InvalidInput(f"--port {port}: give a number from 1 to 65535.")
    queues = _queues(file or [])
    from launch_prefect.server.up import up as run_up
    from launch_prefect.settings import get_settings

    return await run_up(
        queues,
        port=port,
        settings=get_settings(),
        console=out,
        apply_queue=_apply,
        agent_command=_agent_command,
        wait_for_agent=_wait_for_agent,
    )


def _queues(files: list[Path]) -> list[QueueSpec]:
    from launch_prefect.spec import QueueSpec

    if not files:
        return [QueueSpec(queue_name="local", target="process", description="Processes on this machine.")]
    queues = [queue_from_file(file) for file in files]
    for name, count in Counter(queue.queue_name for queue in queues).items():
        if count > 1:
            raise InvalidInput(f"{count} files describe the queue {name!r}.", mend="Give each queue once.")
    return queues


async def _apply(spec: QueueSpec) -> None:
    from prefect.client.orchestration import get_client

    from launch_prefect.queues import pools

    # Not through `client`, which prefers the environment's address: `up` names its server by Prefect's settings.
    async with get_client() as client:
        await pools.ensure(client, spec)


def _agent_name() -> str:
    return f"{platform.node()} up"


def _agent_command(queues: list[str]) -> list[str]:
    options = [word for queue in queues for word in ("--queue", queue)]
    return [sys.executable, "-m", "launch_prefect.cli", "agent", "--name", _agent_name(), *options]


async def _wait_for_agent(queues: list[str]) -> None:
    """Return when the agent has been heard of on every queue since we began to listen."""
    from prefect.client.orchestration import get_client

    async with get_client() as client:

        async def heard(queue: str) -> dict[str, Any]:
            workers = await client.read_workers_for_work_pool(queue)
            return {
                worker.name: worker.last_heartbeat_time for worker in workers if worker.name.startswith(_agent_name())
            }

        before = {queue: await heard(queue) for queue in queues}  # an agent that was killed is still listed
        for queue in queues:
            while await heard(queue) == before[queue]:  # noqa: ASYNC110  (the event is on the server)
                await asyncio.sleep(_LOOK_SECONDS)
