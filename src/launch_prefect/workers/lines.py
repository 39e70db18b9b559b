"""Chunks of bytes into lines of text, whatever a program writes."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from launch_prefect.workers.running import Chunk, Stream

MAX_LINE_BYTES = 512 * 1024
"""A longer line goes on in a further record: Prefect takes records of up to 1 MB."""


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of a run's output, without its line feed.

    Attributes:
        stream: Which stream it came from.
        text: Its text; bytes that are no UTF-8 are replaced by U+FFFD, and NUL, which PostgreSQL
            cannot hold, by U+2400.
        at: When its last piece was written.
    """

    stream: Stream
    text: str
    at: datetime


class LineAssembler:
    """Puts lines together across chunks, each stream for itself."""

    def __init__(self) -> None:
        self._rest: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def feed(self, chunk: Chunk) -> list[Line]:
        """The lines that `chunk` completes."""
        rest = self._rest[chunk.stream]
        rest += chunk.data
        *whole, last = bytes(rest).split(b"\n") if b"\n" in chunk.data else (bytes(rest),)
        pieces = [piece for line in whole for piece in _split(line)]
        while len(last) > MAX_LINE_BYTES:
            piece, last = _cut(last)
            pieces.append(piece)
        self._rest[chunk.stream] = bytearray(last)
        return [Line(chunk.stream, _decode(piece), chunk.at) for piece in pieces]

    def finish(self, at: datetime) -> list[Line]:
        """What is left when the output has ended without a line feed."""
        left = [Line(stream, _decode(bytes(rest)), at) for stream, rest in self._rest.items() if rest]
        self._rest = {"stdout": bytearray(), "stderr": bytearray()}
        return left


def _split(line: bytes) -> list[bytes]:
    pieces = []
    while len(line) > MAX_LINE_BYTES:
        piece, line = _cut(line)
        pieces.append(piece)
    return [*pieces, line]


def _cut(line: bytes) -> tuple[bytes, bytes]:
    """Cut before the limit, but not inside a UTF-8 character."""
    at = MAX_LINE_BYTES
    while at > MAX_LINE_BYTES - 4 and line[at] & 0xC0 == 0x80:
        at -= 1
    return line[:at], line[at:]


def _decode(line: bytes) -> str:
    # A terminal shows what follows the last carriage return: the newest state of a progress bar.
    line = line.rstrip(b"\r").rpartition(b"\r")[2]
    return storable(line.decode("utf-8", errors="replace"))


def storable(text: str) -> str:
    """The text without what no request and no database holds: lone surrogates (a file's name may have them) and NUL."""
    return text.encode("utf-8", errors="replace").decode().replace("\x00", "\u2400")
