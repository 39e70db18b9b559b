"""The one family of errors a user meets. Each names the cause and, where there is one, the mend."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """How a run ends when this error stops it."""

    FAILED = "Failed"
    """The job is at fault: its code, its image, its inputs."""
    CRASHED = "Crashed"
    """The infrastructure is at fault: an engine, a disk, an agent."""


class LaunchError(Exception):
    """Base of every error that is shown to a user without a traceback.

    Args:
        message: What went wrong, in one or a few lines.
        mend: What to do about it, as a full sentence.
    """

    exit_code = 2
    ending = Ending.CRASHED

    def __init__(self, message: str, *, mend: str = "") -> None:
        self.message = message
        self.mend = mend
        super().__init__(f"{message}{'' if message.endswith(chr(10)) else ' '}{mend}".strip())


class InvalidInput(LaunchError):
    """A value given by the user does not fit; nothing has been changed (exit code 2)."""

    ending = Ending.FAILED


class NotFound(InvalidInput):
    """A job, queue, run, file or folder named by the user does not exist (exit code 2)."""


class Unreachable(LaunchError):
    """The Prefect API or an engine does not answer (exit code 3)."""

    exit_code = 3


class RunFailed(LaunchError):
    """A run ended Failed, Crashed or Cancelled (exit code 1)."""

    exit_code = 1
    ending = Ending.FAILED


class BuildFailed(LaunchError):
    """An image or an environment could not be built from what the job says.

    Args:
        message: See `LaunchError`.
        mend: See `LaunchError`.
        passing: Whether the same content may well be built the next time: after a time-out, or once the machine has
            what it lacked.
    """

    exit_code = 1
    ending = Ending.FAILED

    def __init__(self, message: str, *, mend: str = "", passing: bool = False) -> None:
        super().__init__(message, mend=mend)
        self.passing = passing


class ImageMissing(LaunchError):
    """An image reference does not lead to an image that can be run."""

    exit_code = 1
    ending = Ending.FAILED


class RegistryRefused(LaunchError):
    """A registry answers, and refuses: no credentials, wrong ones, or no right to do this with them."""

    exit_code = 1
    ending = Ending.FAILED


class StartFailed(LaunchError):
    """The job's command could not be started: no such program, not executable."""

    exit_code = 1
    ending = Ending.FAILED


class InfrastructureLost(LaunchError):
    """What ran the job is gone: a container removed, an engine stopped, a supervisor killed."""

    exit_code = 1


class DiskFull(LaunchError):
    """No space is left where the agent keeps its files."""

    exit_code = 1
