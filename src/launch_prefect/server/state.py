"""What a running `up` records of itself, and the ending of what a killed one left behind."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from launch_prefect.server import postgres
from launch_prefect.server.process import explain_os_error, kill_processes, private_folder
from launch_prefect.settings import LaunchSettings

_SAME_START = 2.0  # seconds: the start time is computed from the clock, which may be set meanwhile


class ProcessRecord(BaseModel):
    """A process that cannot be mistaken for another with the same id.

    Attributes:
        name: What people call it.
        pid: Its process id.
        created: When it started, seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    pid: int
    created: float

    @classmethod
    def of(cls, name: str, pid: int) -> ProcessRecord:
        """The record of a running process; of one that has just ended, a record that matches nothing."""
        try:
            return cls(name=name, pid=pid, created=psutil.Process(pid).create_time())
        except psutil.Error:
            return cls(name=name, pid=pid, created=0)

    def alive(self) -> psutil.Process | None:
        """The process, if it still runs and is the one recorded."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < _SAME_START
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None


class UpState(BaseModel):
    """A running `up`.

    Attributes:
        up: Its process.
        api_url: Address of the Prefect API it uses.
        ui_url: Address of the web page.
        started: When it was started.
        ready: Whether everything has started.
        queues: Names of the queues its agent serves.
        children: The processes it started.
    """

    model_config = ConfigDict(frozen=True)

    up: ProcessRecord
    api_url: str
    ui_url: str
    started: datetime = Field(default_factory=lambda: datetime.now(UTC))
    ready: bool = False
    queues: tuple[str, ...] = ()
    children: tuple[ProcessRecord, ...] = ()


def _home(settings: LaunchSettings) -> Path:
    return settings.home.expanduser().resolve()


def state_file(settings: LaunchSettings) -> Path:
    """File that a running `up` describes itself in."""
    return _home(settings) / "up.json"


def read(settings: LaunchSettings) -> UpState | None:
    """What the file says, whether or not it is still true; None without a file that can be read."""
    try:
        return UpState.model_validate_json(state_file(settings).read_bytes())
    except (OSError, ValidationError):
        return None


def write(settings: LaunchSettings, state: UpState) -> None:
    """Record the state, wholly or not at all, readable by its owner only."""
    file = state_file(settings)
    new = file.with_suffix(".new")
    try:
        with suppress(FileNotFoundError):
            new.unlink()
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as output:
            output.write(state.model_dump_json(indent=2))
        new.replace(file)
    except OSError as error:
        raise explain_os_error(error, file.parent) from None


def forget(settings: LaunchSettings) -> None:
    """Remove the record after everything has ended."""
    with suppress(OSError):
        state_file(settings).unlink()


def running(settings: LaunchSettings) -> UpState | None:
    """The `up` that runs with this state folder.

    Args:
        settings: They name the state folder.

    Returns:
        Its state, or None where there is none or it is dead.
    """
    state = read(settings)
    return state if state and state.up.alive() else None


def lock(settings: LaunchSettings) -> FileLock | None:
    """Take the lock that one `up` holds for as long as it runs; the system frees it when it dies.

    Returns:
        The lock, held, or None where another `up` holds it.

    Raises:
        LaunchError: The state folder cannot be written.
    """
    home = private_folder(_home(settings))
    held = FileLock(home / "up.lock", mode=0o600, thread_local=False)
    try:
        held.acquire(timeout=0)
    except Timeout:
        return None
    except OSError as error:
        raise explain_os_error(error, home) from None
    return held


def leftovers(settings: LaunchSettings) -> list[ProcessRecord]:
    """Processes that a killed `up` started and that still run, in the order they are to be ended."""
    state = read(settings)
    if state is None or state.up.alive():
        return []
    return [record for record in reversed(state.children) if record.alive()]


def end_leftovers(settings: LaunchSettings, *, grace: float = 30) -> list[str]:
    """End what a killed `up` left behind, and nothing else. Call it with the lock held.

    Args:
        settings: They name the state folder.
        grace: Seconds each process may take to end when asked.

    Returns:
        Names of what was ended.
    """
    ended = []
    for record in leftovers(settings):
        process = record.alive()
        if process is None:  # ended with the one before it
            continue
        ended.append(record.name)
        with suppress(psutil.Error):
            process.send_signal(signal.SIGINT if record.name == postgres.NAME else signal.SIGTERM)
        with suppress(psutil.TimeoutExpired):
            process.wait(timeout=grace)
            continue
        _kill(process)
    forget(settings)
    return ended


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        started = process.children(recursive=True)
        kill_processes([process, *started])
        psutil.wait_procs([process, *started], timeout=5)
