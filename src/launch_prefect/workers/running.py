"""What every target gives the lifecycle: something that runs, its output, its end."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Literal, Protocol

Stream = Literal["stdout", "stderr"]


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output; it may end anywhere, also inside a line or a character.

    Attributes:
        stream: Which of the two streams it came from.
        data: The bytes as the program wrote them.
        at: When they were written, with its time zone.
        position: Where to go on reading after this chunk, for a reader that starts again.
    """

    stream: Stream
    data: bytes
    at: datetime
    position: str


@dataclasses.dataclass(frozen=True, slots=True)
class Exit:
    """How it ended.

    Attributes:
        code: Exit code, 0 to 255; `128 + signal` where a signal ended it, as shells and Docker report it.
        out_of_memory: Whether the kernel ended it for exceeding its memory limit.
        note: What else a person should know of its end, such as output that was lost; mostly empty.
    """

    code: int
    out_of_memory: bool = False
    note: str = ""

    @property
    def signal(self) -> int | None:
        """The signal that ended it, or None where it exited by itself."""
        return self.code - 128 if 128 < self.code <= 128 + 64 else None


class Running(Protocol):
    """One attempt that a target has started."""

    @property
    def identifier(self) -> str:
        """What a person finds it by: a process id, a container's name."""

    def output(self, position: str = "") -> AsyncIterator[Chunk]:
        """Its output from `position` on (default: the beginning) until it ends and all of it is read.

        Raises:
            InfrastructureLost: What ran it is gone.
        """

    async def wait(self) -> Exit:
        """Its end.

        Raises:
            InfrastructureLost: What ran it is gone and the end can't be known.
        """

    async def stop(self, grace: float) -> None:
        """End it and everything it started: SIGTERM, and SIGKILL after `grace` seconds. Returns when it is gone."""

    async def remove(self) -> None:
        """Remove what it leaves on the machine, once its end and its output are recorded."""
