"""`prefect-launch agent`: serve queues on this machine."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from launch_prefect.cli.output import say
from launch_prefect.errors import InvalidInput


async def agent(
    *,
    queue: Annotated[list[str], Parameter(name=("--queue", "-q"))],
    name: str | None = None,
    max_jobs: int | None = None,
) -> None:
    """Serve queues: take their runs in order and run them on this machine, until Ctrl-C.

    ```
    prefect-launch agent -q gpu -q small
    ```

    Ctrl-C and SIGTERM stop the runs in progress and report them Cancelled.

    Args:
        queue: A queue to serve; repeat it for several.
        name: The agent's name. Default: the machine's.
        max_jobs: Most runs at once of each queue, on top of the queue's own limit.
    """
    if max_jobs is not None and max_jobs < 1:
        raise InvalidInput(f"--max-jobs {max_jobs}: give a number from 1.")
    from prefect.logging.configuration import setup_logging

    from launch_prefect.agent.agent import run_agent

    setup_logging()
    names = ", ".join(dict.fromkeys(queue))
    await run_agent(
        queue, name=name, max_jobs=max_jobs, ready=lambda: say(f"Serving {names}. Ctrl-C stops it and its runs.")
    )
