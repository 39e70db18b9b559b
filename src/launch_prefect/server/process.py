"""Child processes of `up`: started in a session of their own, logged to a file, ended in order."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from tenacity import AsyncRetrying, retry_if_result, wait_fixed

from launch_prefect.errors import DiskFull, LaunchError
from launch_prefect.server import child as launcher

_KEPT_LOG = 5_000_000
_BETWEEN_SIGNALS = 0.5  # seconds: two signals at once may arrive as one


@dataclass(frozen=True)
class Child:
    """A process we started and own.

    Attributes:
        name: What people call it.
        process: The process.
        log: File of its output.
        log_start: Where in the file the output of this process begins.
        stop_signal: Signal that asks it to end.
        hurry_signal: Signal that ends it without waiting; it may be the one that asks, sent once more.
        grace: Seconds it may take to end when asked; None for as long as it takes.
        hurry_grace: Seconds it may take to end when hurried, before SIGKILL.
    """

    name: str
    process: asyncio.subprocess.Process
    log: Path
    log_start: int
    stop_signal: signal.Signals
    hurry_signal: signal.Signals
    grace: float | None
    hurry_grace: float

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def last_lines(self, count: int = 8) -> str:
        """The end of what it wrote, for error messages."""
        return "\n".join(f"  {line}" for line in tail(self.log, count=count, start=self.log_start))

    def ended(self) -> str:
        """How it ended, in words."""
        code = self.process.returncode
        if code is None:
            return "is running"
        if code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def private_folder(folder: Path) -> Path:
    """Make a folder that only its owner can enter; one that exists is left as it is.

    Raises:
        LaunchError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    except OSError as error:
        raise explain_os_error(error, folder) from None
    return folder


def explain_os_error(error: OSError, folder: Path) -> LaunchError:
    """What an operating system error in the state folder means to a person."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(folder)
    where = error.filename or folder
    if isinstance(error, PermissionError):
        return not_permitted(f"No permission to write {where}.")
    return LaunchError(f"Cannot use {where}: {error.strerror}.", mend=_OTHER_FOLDER)


def explain_log(text: str, folder: Path) -> LaunchError | None:
    """What the end of a child's log says went wrong, where that is the disk or a permission."""
    if "No space left on device" in text or "Disk quota exceeded" in text:
        return disk_full(folder)
    denied = re.search(r"^.*(?:Permission denied|Operation not permitted|Read-only file system).*$", text, re.M)
    return not_permitted(f"The state folder {folder} cannot be used: {denied[0].strip()}.") if denied else None


_OTHER_FOLDER = "Set LAUNCH_HOME to a folder that you can write."


def disk_full(folder: Path) -> LaunchError:
    """The error of a full disk."""
    return DiskFull(
        f"No space is left on the disk of {folder}.",
        mend="Free some space, or set LAUNCH_HOME to a folder on a larger disk.",
    )


def not_permitted(message: str) -> LaunchError:
    """The error of a missing permission."""
    return LaunchError(message, mend=_OTHER_FOLDER)


def tail(log: Path, *, count: int, start: int = 0) -> list[str]:
    """The last lines of a log that are not blank.

    Args:
        log: The file; a missing one has no lines.
        count: Most lines.
        start: Byte to read from at the earliest.

    Returns:
        The lines, oldest first.
    """
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - 64_000))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


async def spawn(
    name: str,
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    stop_signal: signal.Signals = signal.SIGTERM,
    death_signal: signal.Signals | None = None,
    hurry_signal: signal.Signals = signal.SIGKILL,
    grace: float | None = 10,
    hurry_grace: float = 6,  # PostgreSQL's SIGQUIT may take a moment; SIGKILL does not
    user: tuple[int, int] | None = None,
) -> Child:
    """Start a process that a terminal's Ctrl-C does not reach and that ends when we die.

    Call it in the main thread: Linux sends the signal of a parent's death when the thread that forked ends.

    Args:
        name: What people call it.
        command: Program and arguments.
        env: Its whole environment.
        log: File its output is appended to.
        cwd: Its working directory; ours by default.
        stop_signal: Signal that asks it to end.
        death_signal: Signal it gets when we die without ending it (Linux only); `stop_signal` by default.
        hurry_signal: Signal that ends it without waiting; it may be the one that asks, sent once more.
        grace: Seconds it may take to end when asked; None for as long as it takes.
        hurry_grace: Seconds it may take to end when hurried, before SIGKILL.
        user: User and group it runs as; ours by default.

    Returns:
        The child.

    Raises:
        LaunchError: The log cannot be written or no process can be made.
    """
    uid, gid = user or (-1, -1)
    prefix = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), str(int(death_signal or stop_signal))]
    try:
        output = _open_log(log)
        try:
            start = os.lseek(output, 0, os.SEEK_END)
            process = await asyncio.create_subprocess_exec(
                *prefix, str(uid), str(gid), *command,
                stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
                env=dict(env), cwd=cwd, start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(output)
    except OSError as error:
        raise explain_os_error(error, log.parent) from None
    return Child(name, process, log, start, stop_signal, hurry_signal, grace, hurry_grace)


def _open_log(log: Path) -> int:
    if log.exists() and log.stat().st_size > _KEPT_LOG:
        log.replace(log.with_suffix(".old.log"))
    return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


async def run_tool(name: str, command: Sequence[str], **options: object) -> Child:
    """Run a command to its end; it is killed with its children if we are cancelled.

    Args:
        name: What people call it.
        command: Program and arguments.
        **options: As `spawn` takes them.

    Returns:
        The child, which has ended.
    """
    child = await spawn(name, command, **options)  # type: ignore[arg-type]
    try:
        await child.process.wait()
    finally:
        if child.process.returncode is None:
            kill_group(child.pid)
            await child.process.wait()
    return child


async def until(check: Callable[[], Awaitable[bool]], *, every: float) -> None:
    """Wait until something is so.

    Args:
        check: Tells whether it is.
        every: Seconds between two checks.
    """

    async def attempt() -> bool:  # tenacity awaits only what is declared async
        return await check()

    await AsyncRetrying(retry=retry_if_result(lambda so: not so), wait=wait_fixed(every))(attempt)


async def ready_or_dead(child: Child, ready: Awaitable[object], *, timeout: float) -> Literal["ready", "dead", "late"]:
    """Wait until a child is ready, and no longer than it lives.

    Args:
        child: The child.
        ready: Done when the child is ready; what it raises is raised.
        timeout: Most seconds to wait.

    Returns:
        What came first.
    """
    waiting = asyncio.ensure_future(ready)
    died = asyncio.ensure_future(child.process.wait())
    try:
        await asyncio.wait({waiting, died}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            return "dead"
        if not waiting.done():
            return "late"
        waiting.result()
        return "ready"
    finally:
        waiting.cancel()
        died.cancel()
        await asyncio.gather(waiting, died, return_exceptions=True)


def kill_group(pid: int) -> None:
    """SIGKILL to every process of the session a child leads."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


async def stop(child: Child, hurry: asyncio.Event) -> None:
    """Ask a child to end, wait, and end it and what it started when it does not.

    Args:
        child: The child; one that has ended is fine.
        hurry: When set, it is hurried and no longer waited for than `hurry_grace`.
    """
    if hurry.is_set():
        if child.hurry_signal == child.stop_signal:
            _send(child, child.stop_signal)
            await _ended(child, _BETWEEN_SIGNALS)
    else:
        _send(child, child.stop_signal)
        hurried = asyncio.create_task(hurry.wait())
        ended = asyncio.create_task(child.process.wait())
        try:
            await asyncio.wait({hurried, ended}, timeout=child.grace, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hurried.cancel()
            ended.cancel()
    if child.process.returncode is None:
        started = descendants(child.pid)
        _send(child, child.hurry_signal)
        await _ended(child, child.hurry_grace)
        if child.process.returncode is None:
            started += descendants(child.pid)
        kill_group(child.pid)
        await child.process.wait()
        kill_processes(started)
    kill_group(child.pid)


async def _ended(child: Child, timeout: float) -> None:
    """Wait until a child has ended, and no longer than some seconds."""
    with suppress(TimeoutError):
        await asyncio.wait_for(child.process.wait(), timeout=timeout)


def _send(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        child.process.send_signal(number)


def descendants(pid: int) -> list[psutil.Process]:
    """Processes that a process started, and theirs."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def kill_processes(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to each process that is still the one it was."""
    for process in processes:
        with suppress(psutil.Error):
            process.kill()
