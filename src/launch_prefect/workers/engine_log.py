"""A container's output out of the Docker engine's log, as fast as the engine gives it."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import requests.exceptions
from docker import DockerClient
from urllib3.exceptions import HTTPError

from launch_prefect import dockerpy
from launch_prefect.workers.running import Chunk, Stream
from launch_prefect.workers.threads import in_thread

LOST = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, HTTPError, ConnectionError)
"""What a connection to an engine that goes away breaks with."""

_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_MERGE_BYTES = 256 * 1024
_BUFFER_BYTES = 8 * 1024 * 1024


class EngineLog:
    """The log of one container.

    A position is the time of the last record read and how many records of that very time were: the pieces of a long
    line share one.

    Args:
        client: The engine.
        container: The container's id.
    """

    def __init__(self, client: DockerClient, container: str) -> None:
        self._client = client
        self._container = container

    async def read(self, position: str, *, follow: bool) -> AsyncIterator[Chunk]:
        """The records after `position`, neighbours of a stream merged.

        Args:
            position: Where an earlier reading has come to; empty for the beginning.
            follow: Go on until the container ends or the connection breaks; otherwise until the end of what there is.
        """
        handover = _Handover(asyncio.get_running_loop())
        thread = asyncio.ensure_future(in_thread(self._fill, handover, position, follow))
        try:
            while chunks := await handover.take():
                for chunk in _merged(chunks):
                    yield chunk
        finally:
            handover.give_up()
            await asyncio.shield(thread)

    def _fill(self, handover: _Handover, position: str, follow: bool) -> None:
        try:
            for chunk in self._records(position, follow, handover):
                if not handover.put(chunk):
                    return
        except (*LOST, dockerpy.APIError):
            return  # whoever reads looks at the container, and reads on if it still runs
        finally:
            handover.end()

    def _records(self, position: str, follow: bool, handover: _Handover) -> Iterator[Chunk]:
        # Engine API, GET /containers/{id}/logs: frames of stream and length, and each record begins with its time.
        params: dict[str, Any] = {"follow": int(follow), "stdout": 1, "stderr": 1, "timestamps": 1}
        start, _, count = position.partition("#")
        if start:
            params["since"] = _unix(start)  # includes its own moment
        api = self._client.api
        url = f"{api.base_url}/v{api.api_version}/containers/{self._container}/logs"
        with api.get(url, params=params, stream=True, timeout=None) as response:
            if response.status_code >= 400:
                return
            handover.on_give_up(response.close)
            at, number = "", 0
            for kind, record in _frames(response.raw.stream(1 << 16)):
                stamp, _, data = record.partition(b" ")
                before, at = at, stamp.decode("ascii", errors="replace")
                number = number + 1 if at == before else 1
                if at > start or (at == start and number > int(count)):
                    yield Chunk(_STREAMS.get(kind, "stdout"), data, _moment(at), f"{at}#{number}")


def _frames(pieces: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    buffer = bytearray()
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start >= 8:
            kind, length = struct.unpack_from(">BxxxL", buffer, start)
            if len(buffer) - start - 8 < length:
                break
            yield kind, bytes(buffer[start + 8 : start + 8 + length])
            start += 8 + length
        del buffer[:start]


def _merged(chunks: list[Chunk]) -> Iterator[Chunk]:
    first, parts, size = chunks[0], [chunks[0].data], len(chunks[0].data)
    position = first.position
    for chunk in chunks[1:]:
        if chunk.stream == first.stream and size < _MERGE_BYTES:
            parts.append(chunk.data)
            size += len(chunk.data)
        else:
            yield Chunk(first.stream, b"".join(parts), first.at, position)
            first, parts, size = chunk, [chunk.data], len(chunk.data)
        position = chunk.position
    yield Chunk(first.stream, b"".join(parts), first.at, position)


class _Handover:
    """Chunks from a thread to the event loop, many at a time, the thread waiting while too many wait."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._chunks: list[Chunk] = []
        self._size = 0
        self._ended = False
        self._given_up = False
        self._on_give_up: Any = None

    def put(self, chunk: Chunk) -> bool:
        """In the thread: hand a chunk over; False when nobody wants it any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < _BUFFER_BYTES or self._given_up)
            self._chunks.append(chunk)
            self._size += len(chunk.data)
            if len(self._chunks) == 1:
                self._loop.call_soon_threadsafe(self._ready.set)
            return not self._given_up

    def end(self) -> None:
        """In the thread: there will be no more."""
        with self._changed:
            self._ended = True
            self._loop.call_soon_threadsafe(self._ready.set)

    def on_give_up(self, call: Any) -> None:
        """In the thread: what breaks it off when it waits for the engine."""
        self._on_give_up = call

    async def take(self) -> list[Chunk]:
        """In the loop: what has come since; empty at the end."""
        while True:
            await self._ready.wait()
            with self._changed:
                chunks, self._chunks, self._size = self._chunks, [], 0
                if not self._ended:
                    self._ready.clear()
                self._changed.notify_all()
            if chunks or self._ended:
                return chunks

    def give_up(self) -> None:
        """In the loop: no more is wanted."""
        with self._changed:
            self._given_up = True
            self._changed.notify_all()
        if not self._ended and self._on_give_up is not None:
            self._on_give_up()


def _moment(stamp: str) -> datetime:
    # RFC 3339 with nanoseconds; datetime holds microseconds.
    head, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}+00:00")


def _unix(stamp: str) -> str:
    _, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{int(_moment(stamp).timestamp())}.{fraction:0<9}"
