"""What a supervisor keeps in its folder, read and written by the agent, and what to tell a person of it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launch_prefect.errors import DiskFull, InfrastructureLost, LaunchError, StartFailed
from launch_prefect.runtime import supervise
from launch_prefect.workers.running import Chunk, Stream

_BLOCK = 1024 * 1024
_TOGETHER = 50_000
"""Microseconds within which neighbouring frames become one chunk, so that times of lines stay true."""


def write_private(path: Path, content: bytes) -> None:
    """Write a file that nobody else can read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)


def remove_files(folder: Path) -> None:
    """Remove the supervisor's files, and the folder if it holds nothing else."""
    for name in supervise.FILES:
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


def is_locked(folder: Path) -> bool:
    """Whether a supervisor lives (or is just being started) in this folder."""
    try:
        lock = os.open(folder / supervise.LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two who look at the same time don't take each other for a supervisor.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_pids(folder: Path) -> list[tuple[int, int]]:
    """Process id and start time of the supervisor and, once it runs, of the command."""
    try:
        text = (folder / supervise.PID).read_text()
    except FileNotFoundError:
        return []
    return [(int(pid), int(start)) for pid, start in (line.split() for line in text.split("\n")[:-1])]


def read_end(folder: Path) -> dict[str, Any] | None:
    """How it ended, as the supervisor wrote it; None where it did not."""
    try:
        end: dict[str, Any] = json.loads((folder / supervise.END).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return end


async def end_session(leader: int, start: int) -> None:
    """Kill what a killed supervisor could not, the members of its command's session, and see them gone."""

    def members() -> Iterator[int]:
        now = supervise.read_stat(leader)
        if now is None or now.start == start:
            yield from (p for p, s in supervise.all_processes() if s.session == leader and s.start >= start)

    if not supervise.LINUX:
        with contextlib.suppress(OSError):
            os.killpg(leader, signal.SIGKILL)
        return
    for _ in range(500):
        remaining = await asyncio.to_thread(lambda: list(members()))
        if not remaining:
            return
        for pid in remaining:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)


def read_chunks(log: Path, offset: int) -> list[Chunk]:
    """The whole frames of the next block, neighbours of one stream joined."""
    try:
        with log.open("rb", buffering=0) as file:
            file.seek(offset)
            block = memoryview(file.read(_BLOCK))
    except FileNotFoundError:
        return []
    chunks: list[Chunk] = []
    parts: list[memoryview] = []
    stream = first = at = 0

    def flush() -> None:
        if parts:
            when = datetime.fromtimestamp(first / 1e6, UTC)
            name: Stream = "stdout" if stream == supervise.STDOUT else "stderr"
            chunks.append(Chunk(name, b"".join(parts), when, str(offset + at)))
            parts.clear()

    while at + supervise.HEADER.size <= len(block):
        kind, time, length = supervise.HEADER.unpack_from(block, at)
        begin = at + supervise.HEADER.size
        if begin + length > len(block):
            break
        if kind != stream or not 0 <= time - first < _TOGETHER:
            flush()
            stream, first = kind, time
        parts.append(block[begin : begin + length])
        at = begin + length
    flush()
    return chunks


def start_failed(error: dict[str, Any]) -> LaunchError:
    """Why a command could not be started, from the supervisor's record of the system's error."""
    program, number = error["program"], error["errno"]
    if error["at_cwd"]:
        return StartFailed(f"The folder to run in can't be entered: {error['cwd']} ({error['text']}).")
    if number in (errno.ENOMEM, errno.EAGAIN):
        return InfrastructureLost(f"The machine can't start {program!r}: {error['text']}.", mend="Try again later.")
    place = str(Path(error["cwd"]) / program) if "/" in program else program
    if number == errno.ENOENT and not shutil.which(place, path=error["path"]):
        return StartFailed(
            f"No such program: {program!r}.",
            mend=f"Check the command; it is looked up in PATH={error['path']}",
        )
    if number == errno.ENOENT:
        mend = "Its first line (#!) names a program that is not on this machine, or its loader is missing."
        return StartFailed(f"{program!r} is there, but what runs it is not.", mend=mend)
    if number == errno.EACCES:
        return StartFailed(f"Permission denied: {program!r}.", mend=f"Make it executable: chmod +x {program}")
    if number == errno.ENOEXEC:
        return StartFailed(
            f"{program!r} is not a program that this machine can run (exec format error).",
            mend="If it is a script, add a #! line; if it is a binary, build it for this machine.",
        )
    if number == errno.E2BIG:
        return StartFailed("The command and its environment are too long.", mend="Pass large values in a file.")
    return StartFailed(f"The command can't be started: {program!r}: {error['text']}.", mend="Check the command.")


def not_supervised(folder: Path, number: int) -> LaunchError:
    """Why nothing could be started in a folder, from the number of the system's error."""
    if number in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"No space is left for the files of the run in {folder}.", mend="Free some space there.")
    reason = os.strerror(number) if number > 0 else "it was killed"
    return InfrastructureLost(f"The job could not be supervised in {folder}: {reason}.{_last_error(folder)}")


def lost(identifier: str, folder: Path) -> InfrastructureLost:
    """What to say where the supervisor is gone and left no word on the end."""
    cause = f"The process that watched the job was killed, and the job with it ({identifier})."
    return InfrastructureLost(
        cause + _last_error(folder),
        mend="Start the run again; if this machine ran out of memory, give the job less of it to use.",
    )


def _last_error(folder: Path) -> str:
    try:
        lines = (folder / supervise.ERRORS).read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f" Its last words: {lines[-1]}" if lines else ""
