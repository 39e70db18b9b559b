"""A command under a supervisor of its own (`runtime/supervise.py`), as the agent sees it.

The agent may be killed at any instant: the supervisor goes on and keeps the output and the exit code in a
folder, from which `SupervisedProcess.find` takes it up again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from launch_prefect.errors import LaunchError
from launch_prefect.runtime import supervise
from launch_prefect.workers import supervision_files as files
from launch_prefect.workers.running import Chunk, Exit


@dataclasses.dataclass(frozen=True, slots=True)
class LostOutput:
    """Output that could not be written to the disk.

    Attributes:
        size: How many bytes are missing.
        reason: The first error, in the system's words.
    """

    size: int
    reason: str


class SupervisedProcess:
    """One command, started or found again; implements `Running`.

    Made by `start` or `find`, and used in the event loop that it was made in.
    """

    def __init__(self, folder: Path, child: subprocess.Popen[bytes] | None = None) -> None:
        self._folder = folder
        self._child = child
        self._pids = files.read_pids(folder)
        self._end: dict[str, Any] | None = None
        self._gone = asyncio.Event()
        self._listeners: set[asyncio.Event] = set()
        self._bell: int | None = None
        self._finishing: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls,
        folder: Path,
        *,
        command: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        grace: float = 30.0,
    ) -> SupervisedProcess:
        """Start a command; returns when it runs.

        Args:
            folder: Where the supervisor keeps its files; made if need be, and of this one attempt only.
            command: Program and arguments; the program is looked up in the PATH of `env`.
            env: The complete environment; nothing is added to it.
            cwd: The folder to run in.
            grace: Seconds between SIGTERM and SIGKILL for what the command leaves behind, and for everything
                when the supervisor gets a SIGTERM that does not come from `stop`.

        Raises:
            StartFailed: The command can't be started; the message says why. Nothing is left in the folder.
            DiskFull: There is no space for the supervisor's files.
            InfrastructureLost: The supervisor could not do its work.
            FileExistsError: Something was started in this folder before; ask `find` about it.
        """
        folder = _absolute(folder)
        spec = {"command": list(command), "env": dict(env), "cwd": str(_absolute(cwd)), "grace": grace}
        try:
            process = cls._spawn(folder, json.dumps(spec).encode())
        except FileExistsError:
            raise
        except OSError as error:
            files.remove_files(folder)
            raise files.not_supervised(folder, error.errno or 0) from error
        try:
            await process._started()
        except LaunchError:
            await process.remove()
            raise
        except BaseException:
            process._ask_to_stop(0)
            raise
        return process

    @classmethod
    def _spawn(cls, folder: Path, spec: bytes) -> SupervisedProcess:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / supervise.LOCK).exists():
            raise FileExistsError(errno.EEXIST, "Something was started here before", str(folder))
        with contextlib.ExitStack() as ours:
            # The lock belongs to the open file, which the supervisor inherits: no instant without a holder.
            lock = os.open(folder / supervise.LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            ours.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.mkfifo(folder / supervise.BELL, 0o600)
            listening = os.open(folder / supervise.BELL, os.O_RDONLY | os.O_NONBLOCK)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(os.close, listening)
                ringing = os.open(folder / supervise.BELL, os.O_WRONLY | os.O_NONBLOCK)
                ours.callback(os.close, ringing)
                errors = os.open(folder / supervise.ERRORS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                ours.callback(os.close, errors)
                files.write_private(folder / supervise.SPEC, spec)
                program = str(Path(supervise.__file__).resolve())
                child = subprocess.Popen(
                    [sys.executable, "-I", "-S", program, str(folder), str(ringing)],
                    env=_supervisor_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    pass_fds=(lock, ringing),
                    start_new_session=True,
                )
                on_failure.pop_all()
        process = cls(folder, child)
        process._listen(listening)
        return process

    @classmethod
    async def find(cls, folder: Path) -> SupervisedProcess | None:
        """Take up again what an agent before us started in this folder.

        Returns:
            The process, running or ended or lost (then `wait` says so); None where its command never started,
            and then the folder is free for another start.
        """
        folder = _absolute(folder)
        while files.is_locked(folder):
            if len(files.read_pids(folder)) == 2:
                # Listening first, so that its end can't fall between looking and listening.
                process = cls(folder)
                process._listen(os.open(folder / supervise.BELL, os.O_RDONLY | os.O_NONBLOCK))
                return process
            await asyncio.sleep(0.01)  # Its agent was killed a moment ago, before the command ran.
        ended = (folder / supervise.END).exists()
        if not ended and ((folder / supervise.SPEC).exists() or not files.read_pids(folder)):
            files.remove_files(folder)
            return None
        process = cls(folder)
        process._end = files.read_end(folder)
        process._gone.set()
        return process

    @property
    def identifier(self) -> str:
        """The command's process id and the machine."""
        pid = self._pids[-1][0] if self._pids else "unknown"
        return f"process {pid} on {socket.gethostname()}"

    @property
    def lost_output(self) -> LostOutput | None:
        """What is missing from the output, known once it has ended; None where nothing is."""
        if not self._end or not self._end["lost_bytes"]:
            return None
        return LostOutput(self._end["lost_bytes"], self._end["lost_because"])

    @property
    def left_behind(self) -> int:
        """How many processes the command left behind when it ended by itself; they were ended."""
        return self._end.get("left_behind", 0) if self._end else 0

    @property
    def still_alive(self) -> int:
        """How many processes could not be killed: another user's, or stuck in the kernel."""
        return self._end.get("still_alive", 0) if self._end else 0

    async def output(self, position: str = "") -> AsyncIterator[Chunk]:
        """Its output from `position` on, until it ends and all of it is read.

        Raises:
            InfrastructureLost: The supervisor was killed; raised after what it had written.
        """
        offset = int(position or 0)
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while True:
                news.clear()
                gone = self._gone.is_set()
                chunks = await asyncio.to_thread(files.read_chunks, self._folder / supervise.LOG, offset)
                for chunk in chunks:
                    yield chunk
                    offset = int(chunk.position)
                if not chunks and gone:
                    break
                if not chunks:
                    await news.wait()
        finally:
            self._listeners.discard(news)
        if self._end is None:
            raise files.lost(self.identifier, self._folder)

    async def wait(self) -> Exit:
        """Its end, with everything it started gone.

        Raises:
            InfrastructureLost: The supervisor was killed.
            StartFailed: It never ran (only of one found again: `start` raises this itself).
        """
        await self._gone.wait()
        if self._end is None:
            raise files.lost(self.identifier, self._folder)
        if "start_error" in self._end:
            raise files.start_failed(self._end["start_error"])
        return Exit(self._end["code"], self._end["out_of_memory"], self._note())

    def _note(self) -> str:
        notes = []
        if (lost := self.lost_output) is not None:
            notes.append(f"{lost.size} bytes of its output were lost: {lost.reason}.")
        if self.still_alive:
            notes.append(f"{self.still_alive} of its processes could not be ended.")
        return " ".join(notes)

    async def stop(self, grace: float) -> None:
        """End it and everything it started: SIGTERM, SIGKILL after `grace` seconds. Returns once gone."""
        if not self._gone.is_set():
            self._ask_to_stop(grace)
            await self._gone.wait()

    async def remove(self) -> None:
        """Remove the supervisor's files, and the folder if it holds nothing else.

        Raises:
            RuntimeError: It still runs.
        """
        if not self._gone.is_set():
            raise RuntimeError(f"{self.identifier} still runs")
        await asyncio.to_thread(files.remove_files, self._folder)

    def detach(self) -> None:
        """Stop watching and leave it running, for `find` of another agent."""
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell)
            os.close(self._bell)
            self._bell = None

    async def _started(self) -> None:
        """Wait until the command runs.

        Raises:
            StartFailed, DiskFull, InfrastructureLost: It does not.
        """
        news = asyncio.Event()
        self._listeners.add(news)
        try:
            while len(files.read_pids(self._folder)) < 2 and not self._gone.is_set():
                await news.wait()
                news.clear()
        finally:
            self._listeners.discard(news)
        self._pids = files.read_pids(self._folder)
        if not self._gone.is_set() or (self._end and "start_error" not in self._end):
            return
        if self._end:
            raise files.start_failed(self._end["start_error"])
        raise files.not_supervised(self._folder, self._child.returncode if self._child else 0)

    def _listen(self, bell: int) -> None:
        self._bell = bell
        asyncio.get_running_loop().add_reader(bell, self._on_bell)
        self._on_bell()

    def _on_bell(self) -> None:
        if self._bell is None:
            return
        try:
            rung = os.read(self._bell, 65536)
        except BlockingIOError:
            return
        if not rung:
            self.detach()
            self._finishing = asyncio.get_running_loop().create_task(self._finish())
        for listener in self._listeners:
            listener.set()

    async def _finish(self) -> None:
        await asyncio.to_thread(self._reap)
        self._end = files.read_end(self._folder)
        if self._end is None and len(self._pids) == 2:
            await files.end_session(*self._pids[1])
        self._gone.set()
        for listener in self._listeners:
            listener.set()

    def _reap(self) -> None:
        if self._child:
            self._child.wait()
        elif self._pids:
            # Ours only where the same process detached from it.
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pids[0][0], 0)

    def _ask_to_stop(self, grace: float) -> None:
        stop = self._folder / supervise.STOP
        with contextlib.suppress(OSError):  # Without it the supervisor takes the grace it was started with.
            files.write_private(stop.with_suffix(".new"), json.dumps({"grace": grace}).encode())
            stop.with_suffix(".new").rename(stop)
        if self._child:
            self._child.send_signal(signal.SIGTERM)
        elif self._pids and supervise.start_time(self._pids[0][0]) == self._pids[0][1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pids[0][0], signal.SIGTERM)


def _absolute(path: Path) -> Path:
    return path.resolve()


def _supervisor_environment() -> dict[str, str]:
    """Only what the interpreter itself may need to find its shared library; the job sees none of it."""
    return {name: os.environ[name] for name in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if name in os.environ}
