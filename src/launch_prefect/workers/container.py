"""One container of the Docker engine as something that runs."""

from __future__ import annotations

import functools
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
import requests.exceptions
from docker import DockerClient
from docker.models.containers import Container
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter
from urllib3.exceptions import HTTPError

from launch_prefect import dockerpy
from launch_prefect.errors import InfrastructureLost, Unreachable
from launch_prefect.workers.running import Chunk, Exit, Stream

ENGINE_PATIENCE_SECONDS = 60
"""How long an engine may be away, as while it is being restarted, before its runs are given up."""

_THREADS = anyio.CapacityLimiter(1000)  # one thread per followed container: they wait, they do not work
_STREAMS: dict[int, Stream] = {1: "stdout", 2: "stderr"}
_LOST = (requests.exceptions.ConnectionError, requests.exceptions.Timeout, HTTPError, ConnectionError)
T = TypeVar("T")


def engine_address(client: DockerClient) -> str:
    """Where the engine is, for messages."""
    return str(client.api.base_url).replace("http+docker://localhost", "the local socket")


def unreachable(address: str) -> Unreachable:
    """The error of an engine that does not answer."""
    return Unreachable(
        f"The Docker engine at {address} does not answer.",
        mend="Start it (`systemctl start docker`), or set DOCKER_HOST to one that runs.",
    )


async def in_thread(call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a blocking call of docker-py in a thread of its own."""
    return await anyio.to_thread.run_sync(functools.partial(call, *args, **kwargs), limiter=_THREADS)


class RunningContainer:
    """A container that was started; implements `running.Running`.

    Args:
        client: The engine it is on.
        container: The container.
    """

    def __init__(self, client: DockerClient, container: Container) -> None:
        self._client = client
        self._container = container
        self._name: str = container.name or container.id or ""

    @property
    def identifier(self) -> str:
        """What a person finds it by."""
        return f"container {self._name}"

    async def output(self, position: str = "") -> AsyncIterator[Chunk]:
        """Its output from `position` on until it ends; goes on after the engine was away."""
        while True:
            send, receive = anyio.create_memory_object_stream[Chunk](16)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, send, position)
                async with receive:
                    async for chunk in receive:
                        position = chunk.position
                        yield chunk
            if (await self._state())["Status"] in ("exited", "dead"):
                return

    async def _follow(self, send: Any, position: str) -> None:
        """One connection to the container's log, in a thread, until it breaks or the container ends."""

        def follow() -> None:
            for chunk in self._read(position):
                anyio.from_thread.run(send.send, chunk)

        async with send:
            try:
                await in_thread(follow)
            except (*_LOST, dockerpy.APIError, anyio.BrokenResourceError):
                return  # whoever reads looks at the container's state, and connects again if it still runs

    def _read(self, position: str) -> Iterator[Chunk]:
        # Engine API: GET /containers/{id}/logs; frames of stream, length and bytes, each record with its time.
        params: dict[str, Any] = {"follow": 1, "stdout": 1, "stderr": 1, "timestamps": 1}
        if position:
            params["since"] = _unix(position)
        api = self._client.api
        url = f"{api.base_url}/v{api._version}/containers/{self._container.id}/logs"
        with api.get(url, params=params, stream=True, timeout=None) as response:
            if response.status_code >= 400:
                return
            raw = response.raw
            while header := _exactly(raw, 8):
                kind, length = struct.unpack(">BxxxL", header)
                stamp, _, data = _exactly(raw, length).partition(b" ")
                at = stamp.decode("ascii", errors="replace")
                if at > position:  # `since` includes its own moment
                    yield Chunk(_STREAMS.get(kind, "stdout"), data, _moment(at), at)

    async def wait(self) -> Exit:
        """Its end, from the engine's record."""
        while (state := await self._state())["Status"] not in ("exited", "dead"):
            try:
                await in_thread(self._container.wait)
            except (*_LOST, dockerpy.APIError):
                continue  # the next look at its state waits for the engine, or gives up
        return Exit(code=int(state["ExitCode"]) & 0xFF, out_of_memory=bool(state["OOMKilled"]))

    async def _state(self) -> dict[str, Any]:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(_LOST),
                wait=wait_exponential_jitter(initial=0.1, max=2, jitter=0.2),
                stop=stop_after_delay(ENGINE_PATIENCE_SECONDS),
                reraise=True,
            ):
                with attempt:
                    await in_thread(self._container.reload)
        except dockerpy.NotFound:
            raise InfrastructureLost(
                f"The container {self._name} was removed by somebody else while its run went on.",
                mend="Submit the run again.",
            ) from None
        except _LOST:
            raise InfrastructureLost(
                f"The Docker engine at {engine_address(self._client)} stopped answering and was away for "
                f"{ENGINE_PATIENCE_SECONDS} s.",
                mend="Start it, look at its log, and submit the run again.",
            ) from None
        return dict(self._container.attrs["State"])

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL after `grace` seconds."""
        try:
            await in_thread(self._container.stop, timeout=max(0, round(grace)))
        except dockerpy.NotFound:
            return
        except dockerpy.APIError as error:
            raise InfrastructureLost(f"The container {self._name} could not be stopped: {error.explanation}.") from None
        except _LOST:
            raise unreachable(engine_address(self._client)) from None

    async def remove(self) -> None:
        """Remove the container, whatever state it is in."""
        try:
            await in_thread(self._container.remove, force=True, v=True)
        except (dockerpy.APIError, *_LOST):
            return  # gone already, or the engine is: then house-keeping finds it by its label


def _exactly(raw: Any, length: int) -> bytes:
    """So many bytes; fewer only where the stream ends."""
    parts = []
    while length:
        part = raw.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


def _moment(stamp: str) -> datetime:
    # RFC 3339 with nanoseconds; datetime holds microseconds.
    head, _, fraction = stamp.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}+00:00")


def _unix(stamp: str) -> str:
    _, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{int(_moment(stamp).timestamp())}.{fraction:0<9}"
