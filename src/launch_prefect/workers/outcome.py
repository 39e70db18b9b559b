"""The final state of a run, from how it ended. Pure."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from enum import Enum

from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Crashed, Failed, Scheduled

from launch_prefect.errors import Ending, LaunchError
from launch_prefect.workers.running import Exit

MESSAGE_LIMIT = 2000
LAST_LINES = 5
LAST_LINES_FOLLOW = "\nLast lines:\n"


class Stopped(Enum):
    """Why the agent stopped a run."""

    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    AGENT = "agent stopped"


def of_exit(end: Exit, last_lines: Sequence[str], *, memory: str | None = None) -> State[None]:
    """The state of a run that ended by itself.

    Args:
        end: How it ended.
        last_lines: The last lines of its output.
        memory: Its memory limit, for the message.

    Returns:
        Completed for 0; Crashed where the kernel or a signal ended it; Failed for every other exit code.
    """
    if end.out_of_memory:
        limit = f" of {memory}" if memory else ""
        return Crashed(
            message=_message(
                f"Out of memory: the job used more than its limit{limit}. Raise resources.memory.", last_lines
            )
        )
    if end.code == 0:
        return Completed(message="Exit code 0.")
    if (number := end.signal) is not None and (name := _signal_name(number)):
        return Crashed(
            message=_message(f"Killed by {name} (exit code {end.code}). {_SIGNAL_MENDS.get(name, '')}", last_lines)
        )
    return Failed(message=_message(f"Exit code {end.code}.{_code_mend(end.code)}", last_lines))


def of_stop(
    why: Stopped, *, timeout: float | None = None, exit_code: int | None = None, started: bool = True
) -> State[None]:
    """The state of a run that the agent stopped.

    Args:
        why: The reason.
        timeout: The run's time-out in seconds.
        exit_code: How it took the stop.
        started: Whether anything of it had been started.

    Returns:
        Its final state; Scheduled for what an agent that is stopped had not started: it goes back into its queue.
    """
    how = f" It ended with exit code {exit_code}." if started else " It had not started."
    match why:
        case Stopped.CANCELLED:
            return Cancelled(message=f"Cancelled on request.{how}")
        case Stopped.TIMED_OUT:
            return Failed(
                name="TimedOut",
                message=f"Stopped after its time-out of {timeout:g} s. Raise `timeout` if it needs longer.{how}",
            )
        case Stopped.AGENT if started:
            return Cancelled(message=f"Its agent was stopped, and the run with it.{how}")
        case Stopped.AGENT:
            return Scheduled(message="Back in its queue: its agent was stopped before it had started.")


def of_bug(error: Exception) -> State[None]:
    """The state of a run that the agent failed."""
    return Crashed(message=f"The agent failed: {type(error).__name__}: {error}. This is a bug; please report it.")


def of_error(error: LaunchError) -> State[None]:
    """The state of a run that an error stopped."""
    make = Failed if error.ending is Ending.FAILED else Crashed
    mend = error.mend
    cause = str(error).removesuffix(mend)  # with what stands between them
    if len(cause) + len(mend) > MESSAGE_LIMIT:  # the mend stays, whatever a tool has printed
        cause = cause[: max(0, MESSAGE_LIMIT - len(mend) - 3)] + " … "
    return make(message=(cause + mend)[:MESSAGE_LIMIT])


_SIGNAL_MENDS = {
    "SIGKILL": "Somebody or the kernel's out-of-memory killer ended it; look at the machine's memory.",
    "SIGSEGV": "It touched memory that is not its own: a fault in native code.",
    "SIGTERM": "Somebody asked it to end from outside.",
    "SIGABRT": "It gave up by itself: a failed assertion or a fault in native code.",
}


def _code_mend(code: int) -> str:
    # The shell's and Docker's own codes: https://tldp.org/LDP/abs/html/exitcodes.html
    return {
        126: " The command is not executable. Make it executable, or name its interpreter first.",
        127: " A program of the command was not found. Correct the command, or use an image that contains it.",
    }.get(code, "")


def _signal_name(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None


def _message(what: str, last_lines: Sequence[str]) -> str:
    lines = [line for line in last_lines if line.strip()][-LAST_LINES:]
    if not lines:
        return what.strip()
    shown = "\n".join(line[:300] for line in lines)
    return f"{what.strip()}{LAST_LINES_FOLLOW}{shown}"[:MESSAGE_LIMIT]
