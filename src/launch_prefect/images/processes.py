"""Run a build tool: lines to the log while it works, a small environment, nothing left when cancelled."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

Log = Callable[[str], None]
Result = TypeVar("Result")

_KEPT = 400
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})
_ALWAYS = frozenset({"PATH", "HOME", "TMPDIR"})


@dataclass(frozen=True, slots=True)
class Ended:
    """How a build tool ended.

    Attributes:
        code: Exit code; negative where a signal ended it.
        lines: Its last lines of output.
    """

    code: int
    lines: tuple[str, ...]

    @property
    def disk_full(self) -> bool:
        """Whether its output says that a disk is full."""
        return any(_FULL.search(line) for line in self.lines)

    def last(self, count: int) -> str:
        """Its last lines that are not empty, as one text."""
        return "\n".join([line for line in self.lines if line.strip()][-count:])


def allowed_environment(names: Iterable[str] = (), prefixes: tuple[str, ...] = ()) -> dict[str, str]:
    """The part of this process's environment that a build tool gets: PATH, HOME, TMPDIR, proxies, and what is named.

    Args:
        names: Further variables.
        prefixes: Beginnings of names of further variables.
    """
    known = _ALWAYS | set(names)
    return {
        name: value
        for name, value in os.environ.items()
        if name in known or name.lower() in _PROXIES or (prefixes and name.startswith(prefixes))
    }


async def run(command: list[str], *, env: Mapping[str, str], cwd: Path | None = None, log: Log) -> Ended:
    """Run a command to its end. When this task is cancelled, the command and its children are ended first.

    Args:
        command: Program and arguments.
        env: Its whole environment.
        cwd: Its working folder.
        log: Takes each line of its output.

    Returns:
        How it ended.

    Raises:
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    lines: deque[str] = deque(maxlen=_KEPT)
    try:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        async for line in _lines(process.stdout):
            lines.append(line)
            log(line)
        return Ended(await process.wait(), tuple(lines))
    finally:
        if process.returncode is None:
            await _end(process)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Lines of any length; `readline` refuses long ones."""
    rest = b""
    while piece := await stream.read(65536):
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process, grace: float = 5) -> None:
    """End the process group: SIGTERM, then SIGKILL after `grace` seconds."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), grace)
            break
        except TimeoutError:
            continue


async def in_thread(call: Callable[..., Result], *arguments: object) -> Result:
    """Call something blocking that writes files. When this task is cancelled, the call is waited for first.

    So nothing is written any more when the caller removes what was made.
    """
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
