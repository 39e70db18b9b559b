"""Reading what a supervised command does."""

from __future__ import annotations

import contextlib
import sys
import textwrap
from pathlib import Path

import pytest

from launch_prefect.runtime import supervise
from launch_prefect.workers.running import Chunk
from launch_prefect.workers.supervision import SupervisedProcess

linux_only = pytest.mark.skipif(not supervise.LINUX, reason="needs /proc and a child subreaper")


def processes_with(mark: str, folder: str) -> list[str]:
    if not supervise.LINUX:
        return []
    found = []
    for pid, _ in supervise.all_processes():
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes() or folder.encode() in command:
                found.append(f"{pid}: {command!r}")
    return found


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


class Starter:
    def __init__(self, folder: Path, env: dict[str, str], cwd: Path) -> None:
        self.folder, self.env, self.cwd = folder, env, cwd
        self.started: list[SupervisedProcess] = []

    async def __call__(self, *command: str, grace: float = 5.0) -> SupervisedProcess:
        folder = self.folder if not self.started else self.folder.with_name(f"attempt{len(self.started)}")
        process = await SupervisedProcess.start(folder, command=command, env=self.env, cwd=self.cwd, grace=grace)
        self.started.append(process)
        return process


async def everything(process: SupervisedProcess, position: str = "") -> list[Chunk]:
    return [chunk async for chunk in process.output(position)]


def text_of(chunks: list[Chunk], stream: str | None = None) -> bytes:
    return b"".join(chunk.data for chunk in chunks if stream in (None, chunk.stream))


async def first_line(process: SupervisedProcess) -> str:
    """Wait for the first line of output: the job is up."""
    seen = b""
    output = process.output()
    async with contextlib.aclosing(output):
        async for chunk in output:
            seen += chunk.data
            if b"\n" in seen:
                break
    return seen.split(b"\n")[0].decode()


def pids(folder: Path) -> tuple[int, int]:
    """Process ids of the supervisor and of the command."""
    lines = (folder / supervise.PID).read_text().splitlines()
    return int(lines[0].split()[0]), int(lines[1].split()[0])


def exists(pid: int) -> bool:
    stat = supervise.read_stat(pid)
    return stat is not None and stat.state not in "ZX"
