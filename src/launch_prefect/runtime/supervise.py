"""Runs one command and outlives the agent that asked for it, so that killing the agent loses nothing.

Standard library only, and run by its path: `python -I -S supervise.py FOLDER BELL_FD`, in a session of its
own. The agent's side (`launch_prefect.workers.supervision`) imports it for the names and formats below.

Files in FOLDER:
    lock        Locked by an open file that the agent hands over: locked as long as this program lives.
    bell        A named pipe: a byte in it says "there is news", its end says "the supervisor is gone".
    spec.json   What to run. Removed before the command starts, because its environment may hold secrets.
    pid         Two lines, "PID START": this program, then (once it runs) the command. START is the kernel's.
    output.log  Frames of output, in the order read: HEADER (stream, microseconds, length), then the bytes.
    stop.json   The grace, in seconds, of a SIGTERM to this program; the spec's grace holds without it.
    end.json    How it ended; written last, in one step, in space that was set aside at the beginning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

LOCK, BELL, SPEC, PID, LOG, STOP, END = (
    "lock",
    "bell",
    "spec.json",
    "pid",
    "output.log",
    "stop.json",
    "end.json",
)
ERRORS, RESERVED = "supervisor.err", "end.reserved"
FILES = (LOG, BELL, SPEC, STOP, ERRORS, RESERVED, PID, LOCK, END)
"""In the order to remove them: whoever is interrupted there still finds the end, and starts nothing twice."""

HEADER = struct.Struct(">BQI")
STDOUT, STDERR = 1, 2
LARGEST = 256 * 1024
"""Most bytes of output in one frame."""

SETTLE = 0.2
"""Seconds for what the main process leaves behind to end by itself, such as a `tee` with lines to write."""
GIVE_UP = 30.0
"""Seconds after SIGKILL until one that can't be killed (another user's, stuck in a driver) is left alone."""
LOOK_AGAIN = 0.1
LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


class Stat(NamedTuple):
    """What the kernel says of a process (/proc/PID/stat)."""

    state: str
    parent: int
    session: int
    start: int


def read_stat(pid: int) -> Stat | None:
    """The kernel's word on a process; None where there is none, or no /proc."""
    try:
        # The name before the last parenthesis may hold anything, blanks and parentheses included.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return Stat(fields[0].decode(), int(fields[1]), int(fields[3]), int(fields[19])) if len(fields) > 19 else None


def start_time(pid: int) -> int:
    """Start time of a process in the kernel's ticks; 0 where it is not known."""
    return stat.start if (stat := read_stat(pid)) else 0


def all_processes() -> Iterator[tuple[int, Stat]]:
    """Every process of the machine that is not a zombie."""
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and (stat := read_stat(int(entry.name))) and stat.state not in "ZX":
            yield int(entry.name), stat


def descendants(ancestor: int) -> list[tuple[int, int]]:
    """Process id and start time of everything that descends from a process, in whatever group or session."""
    children: dict[int, list[tuple[int, int]]] = {}
    for pid, stat in all_processes():
        children.setdefault(stat.parent, []).append((pid, stat.start))
    found = list(children.get(ancestor, []))
    for pid, _ in found:
        found.extend(children.get(pid, []))
    return found


def _prctl() -> Callable[[int, int], object]:
    """The system call of that name, loaded before any fork; does nothing where there is none."""
    try:
        import ctypes

        call = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return lambda option, value: None
    word = ctypes.c_ulong
    return lambda option, value: call(option, word(value), word(0), word(0), word(0))


class Log:
    """The file of frames. A write that fails loses its piece of output, is counted, and stops nothing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._size = 0
        self.lost = 0
        self.error = ""

    def append(self, stream: int, data: bytes) -> None:
        """Append one frame, or nothing at all."""
        header = HEADER.pack(stream, time.time_ns() // 1000, len(data))
        total = len(header) + len(data)
        try:
            written = os.writev(self._fd, [header, data])
            while written < total:
                written += os.write(self._fd, (header + data)[written:])
        except OSError as error:
            self.lost += len(data)
            self.error = self.error or (error.strerror or str(error))
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)
        else:
            self._size += total


class Supervisor:
    """One command from its start to the end of everything it started."""

    def __init__(self, folder: Path, bell: int) -> None:
        self._folder, self._bell = folder, bell
        self._prctl = _prctl()
        self._selector = selectors.DefaultSelector()
        self._pipes: dict[int, int] = {}
        self._status: int | None = None
        self._main = self._left_behind = 0
        self._grace = 0.0
        self._childless = self._stop_asked = self._stopped = False
        self._had_sigterm: set[tuple[int, int]] = set()
        self._term_at = self._kill_at = self._look_at = math.inf

    def run(self) -> None:
        """Run the command of the folder's spec and leave its end in the folder."""
        self._catch_signals()
        _create(self._folder / PID, f"{os.getpid()} {start_time(os.getpid())}\n".encode())
        _create(self._folder / RESERVED, b" " * 4096)
        self._log = Log(self._folder / LOG)
        spec = json.loads((self._folder / SPEC).read_bytes())
        self._grace = float(spec["grace"])
        (self._folder / SPEC).unlink()
        self._prctl(PR_SET_CHILD_SUBREAPER, 1)
        if failure := self._start(spec):
            self._write_end({"start_error": failure})
            return
        try:
            with (self._folder / PID).open("ab", buffering=0) as file:
                file.write(f"{self._main} {start_time(self._main)}\n".encode())
            self._ring()
            while not self._over():
                self._turn()
            self._drain()
        except BaseException:
            self._signal_all(signal.SIGKILL)
            raise
        self._write_end(self._outcome())

    def _catch_signals(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        read, write = os.pipe()
        for end in (read, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda number, frame: setattr(self, "_stop_asked", True))
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(ignored, signal.SIG_IGN)
        self._selector.register(read, selectors.EVENT_READ)

    def _start(self, spec: dict[str, Any]) -> dict[str, Any] | None:
        """Start the command; returns what stood in the way."""
        outputs = {STDOUT: os.pipe(), STDERR: os.pipe()}
        supervisor = os.getpid()

        def in_child() -> None:
            self._prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os._exit(127)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)

        try:
            process = subprocess.Popen(
                spec["command"],
                env=spec["env"],
                cwd=spec["cwd"],
                stdin=subprocess.DEVNULL,
                stdout=outputs[STDOUT][1],
                stderr=outputs[STDERR][1],
                start_new_session=True,
                preexec_fn=in_child,
            )
        except (OSError, ValueError) as error:
            return _start_error(spec, error)
        self._main = process.pid
        process.returncode = 0  # Reaped by us together with the orphans, not by Popen.
        for stream, (read, write) in outputs.items():
            os.close(write)
            os.set_blocking(read, False)
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(read, fcntl.F_SETPIPE_SZ, 1024 * 1024)
            self._pipes[read] = stream
            self._selector.register(read, selectors.EVENT_READ)
        return None

    def _turn(self) -> None:
        timeout = None if self._look_at == math.inf else max(0.0, self._look_at - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if key.fd in self._pipes:
                self._read(key.fd)
            else:
                with contextlib.suppress(BlockingIOError):
                    os.read(key.fd, 4096)
        now = time.monotonic()
        if self._reap():
            self._look_at = min(self._look_at, now)
        if self._stop_asked:
            self._stop_asked, self._stopped = False, True
            self._end_all(now, self._stop_grace())
        elif self._status is not None and self._term_at == math.inf:
            self._end_all(now + SETTLE, self._grace)
        if self._term_at < math.inf and now >= self._look_at and not self._childless:
            self._press(now)

    def _end_all(self, begin: float, grace: float) -> None:
        self._term_at = min(self._term_at, begin)
        self._kill_at = min(self._kill_at, begin + grace)
        self._look_at = begin

    def _press(self, now: float) -> None:
        """SIGTERM what has not had it yet; from the end of the grace on, SIGKILL until nothing is left."""
        if now < self._term_at:  # Something ended by itself in the time that is given for that.
            self._look_at = self._term_at
            return
        if LINUX and self._status is not None and not self._stopped and not self._had_sigterm:
            self._left_behind = len(descendants(os.getpid()))
        if now >= self._kill_at:
            self._signal_all(signal.SIGKILL)
            self._look_at = now + LOOK_AGAIN
        else:
            self._signal_all(signal.SIGTERM)
            # Where no signal tells of orphans that end, look for them.
            self._look_at = self._kill_at if LINUX else min(self._kill_at, now + LOOK_AGAIN)

    def _signal_all(self, number: signal.Signals) -> None:
        if not LINUX:
            if number == signal.SIGKILL or not self._had_sigterm:
                self._had_sigterm.add((self._main, 0))
                with contextlib.suppress(OSError):
                    os.killpg(self._main, number)
            return
        for process in descendants(os.getpid()):
            if number == signal.SIGTERM and process in self._had_sigterm:
                continue  # To many programs a second SIGTERM means "without cleaning up".
            self._had_sigterm.add(process)
            with contextlib.suppress(OSError):
                os.kill(process[0], number)
                if number == signal.SIGTERM:
                    os.kill(process[0], signal.SIGCONT)

    def _reap(self) -> bool:
        """Take every ended child, orphans that the kernel gave us included. Returns whether there was one."""
        any_ended = False
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                any_ended = True
                if ended[0] == self._main:
                    self._status = ended[1]
        except ChildProcessError:
            # A subreaper without children has no descendants at all.
            self._childless = LINUX or not _group_exists(self._main)
        return any_ended

    def _over(self) -> bool:
        gone = self._childless or time.monotonic() >= self._kill_at + GIVE_UP
        return self._status is not None and gone

    def _stop_grace(self) -> float:
        try:
            return float(json.loads((self._folder / STOP).read_bytes())["grace"])
        except (OSError, ValueError, KeyError, TypeError):
            return self._grace

    def _read(self, pipe: int) -> int:
        try:
            data = os.read(pipe, LARGEST)
        except BlockingIOError:
            return 0
        if data:
            self._log.append(self._pipes[pipe], data)
            self._ring()
        else:
            self._selector.unregister(pipe)
            del self._pipes[pipe]
            os.close(pipe)
        return len(data)

    def _drain(self) -> None:
        """Read what is in the pipes now. A stranger who holds one open and writes on is not waited for."""
        for pipe in list(self._pipes):
            left = 1024 * 1024 + LARGEST
            while left > 0 and (read := self._read(pipe)) > 0:
                left -= read

    def _ring(self) -> None:
        # Nobody listening, or a full pipe that will wake the listener anyway: both are fine.
        with contextlib.suppress(OSError):
            os.write(self._bell, b"\n")

    def _outcome(self) -> dict[str, Any]:
        code = os.waitstatus_to_exitcode(self._status or 0)
        return {
            "code": code if code >= 0 else 128 - code,
            "signal": -code if code < 0 else None,
            "left_behind": self._left_behind,
            "still_alive": 0 if self._childless or not LINUX else len(descendants(os.getpid())),
            "stopped": self._stopped,
        }

    def _write_end(self, outcome: dict[str, Any]) -> None:
        record = {
            **outcome,
            "out_of_memory": False,
            "ended": time.time_ns() // 1000,
            "lost_bytes": self._log.lost,
            "lost_because": self._log.error,
        }
        # Overwritten in place, so that a full disk does not hide how the run ended.
        with (self._folder / RESERVED).open("r+b", buffering=0) as file:
            file.write(json.dumps(record).encode())
        (self._folder / RESERVED).rename(self._folder / END)
        self._ring()


def _create(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb", buffering=0) as file:
        file.write(content)


def _start_error(spec: dict[str, Any], error: OSError | ValueError) -> dict[str, Any]:
    return {
        "errno": getattr(error, "errno", None) or errno.EINVAL,
        "text": getattr(error, "strerror", None) or str(error),
        "program": spec["command"][0],
        "path": spec["env"].get("PATH", os.defpath),
        "cwd": spec["cwd"],
        "at_cwd": getattr(error, "filename", None) == spec["cwd"],
    }


def _group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """Supervise. Ends 0 where the folder tells the end, otherwise with the number of the error."""
    folder, bell = Path(arguments[0]), int(arguments[1])
    os.chdir("/")
    try:
        Supervisor(folder, bell).run()
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return error.errno or 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
