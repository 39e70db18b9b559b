"""One container of the Docker engine as something that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from docker import DockerClient
from docker.models.containers import Container
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from launch_prefect import dockerpy
from launch_prefect.errors import InfrastructureLost
from launch_prefect.images import engine
from launch_prefect.workers.engine_log import LOST, EngineLog
from launch_prefect.workers.running import Chunk, Exit
from launch_prefect.workers.threads import in_thread

ENGINE_PATIENCE_SECONDS = 60
"""How long an engine may be away, as while it is being restarted, before its runs are given up."""

_ENDED = ("exited", "dead")


class RunningContainer:
    """A container that was started; implements `running.Running`.

    Args:
        client: The engine it is on.
        container: The container.
    """

    def __init__(self, client: DockerClient, container: Container) -> None:
        self._client = client
        self._container = container
        self._log = EngineLog(client, container.id or "")
        self._name: str = container.name or container.id or ""

    @property
    def identifier(self) -> str:
        """What a person finds it by."""
        return f"container {self._name}"

    async def output(self, position: str = "") -> AsyncIterator[Chunk]:
        """Its output from `position` on until it ends; goes on after the engine was away."""
        ended = False
        while not ended:
            # the state first: what is read after the end is complete, which following alone is not
            ended = (await self._state())["Status"] in _ENDED
            async for chunk in self._log.read(position, follow=not ended):
                position = chunk.position
                yield chunk

    async def wait(self) -> Exit:
        """Its end, from the engine's record."""
        while (state := await self._state())["Status"] not in _ENDED:
            try:
                await in_thread(self._container.wait)
            except (*LOST, dockerpy.APIError):
                continue  # the next look at its state waits for the engine, or gives up
        return Exit(code=int(state["ExitCode"]) & 0xFF, out_of_memory=bool(state["OOMKilled"]))

    async def _state(self) -> dict[str, Any]:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception_type(LOST),
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
        except LOST:
            raise InfrastructureLost(
                f"The Docker engine at {engine.address()} stopped answering and was away for "
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
        except LOST:
            raise engine.unreachable() from None

    async def remove(self) -> None:
        """Remove the container, whatever state it is in."""
        try:
            await in_thread(self._container.remove, force=True, v=True)
        except (dockerpy.APIError, *LOST):
            return  # gone already, or the engine is: then house-keeping finds it by its label
