"""What commands that talk to the server share: is it there, which queue is meant, may this be deleted."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from launch_prefect.cli.output import err, note
from launch_prefect.errors import InvalidInput

if TYPE_CHECKING:
    from launch_prefect.client import Queue

_SECONDS_TO_ANSWER = 8

QueueName = Annotated[str | None, Parameter(name=("--queue", "-q"))]
Yes = Annotated[bool, Parameter(name=("--yes", "-y"), negative="")]


async def reach() -> None:
    """Make sure that the server answers, so that a command says within seconds that it does not.

    Raises:
        Unreachable: It does not.
    """
    from launch_prefect.server.connect import ensure_reachable, resolve_api_url
    from launch_prefect.settings import get_settings

    await ensure_reachable(resolve_api_url(get_settings()), timeout=_SECONDS_TO_ANSWER)


async def chosen_queue(named: str | None) -> str:
    """The queue a command means: the one named, else `LAUNCH_QUEUE`, else the only one, else "local"."""
    if name := named or os.environ.get("LAUNCH_QUEUE"):
        return name
    from launch_prefect.client import Queue

    queues = await Queue.alist()
    return queues[0].name if len(queues) == 1 else "local"


async def warn_if_nothing_runs(queue: Queue) -> None:
    """Say so where a run submitted to a queue now would wait for ever."""
    await queue.aload()
    if queue.paused:
        note(f"The queue {queue.name!r} is paused; the run waits until `prefect-launch queue resume {queue.name}`.")
    elif queue.concurrency == 0:
        note(f"The queue {queue.name!r} has a limit of 0 runs at once; the run waits until the limit is raised.")
    elif not any(worker.status == "ONLINE" for worker in await queue.aworkers()):
        note(f"No agent serves the queue {queue.name!r} now; start one with `prefect-launch agent -q {queue.name}`.")


def assignments(pairs: Iterable[str], option: str) -> dict[str, str]:
    """`KEY=VALUE` words as a mapping of texts.

    Raises:
        InvalidInput: A word has no `=` or no key, or a key comes twice.
    """
    values: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"{option} {pair}: write KEY=VALUE.")
        if key in values:
            raise InvalidInput(f"{option} {key} is given twice.")
        values[key] = value
    return values


def confirm(question: str, *, otherwise: str = "Nothing has been deleted", yes: str = "Add --yes to delete.") -> None:
    """Ask before something is done that may not be meant.

    Args:
        question: What is asked.
        otherwise: What is said where the answer is no.
        yes: What to do where nobody is there to answer.

    Raises:
        InvalidInput: The answer is no, or nobody is there to answer.
    """
    if not sys.stdin.isatty():
        raise InvalidInput(f"{otherwise}: nobody is there to be asked.", mend=yes)
    if err.input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise InvalidInput(f"{otherwise}.")
