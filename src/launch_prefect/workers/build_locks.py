"""A lock among all agents of a Prefect server, so that what two of them want is built by one."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate, VariableUpdate
from prefect.client.schemas.objects import Variable
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_logger
from tenacity import AsyncRetrying, retry_if_result, wait_exponential_jitter

from launch_prefect.images.locks import BuildLock
from launch_prefect.workers.reporting import until_answered

RENEW_SECONDS = 10.0
"""How often a holder says that it is still there."""
LOST_SECONDS = 45.0
"""A holder that has been silent for so long, by the clock of who waits, is gone."""
TAG = "launch-prefect"
log = get_logger("launch.build-locks")


def of_server(client: PrefectClient, *, holder: str, scope: Callable[[str], Awaitable[str]]) -> BuildLock:
    """A lock that is a Prefect variable: its name is unique, and it is there while an image is built.

    A variable rather than a leased concurrency slot: it survives a restart of any server, whatever its lease storage.
    Two holders at once are possible when one was silent for too long; an image is then built twice, and is the same.

    Args:
        client: The API.
        holder: Who builds, for people who look at the variables.
        scope: Gives, for the name of an image, what shares it where that is less than the server: an engine, for
            images of no registry.
    """

    @asynccontextmanager
    async def lock(name: str) -> AsyncIterator[None]:
        key = f"launch-build-{hashlib.sha256(f'{await scope(name)} {name}'.encode()).hexdigest()[:40]}"
        held = _Held(client, key, {"image": name, "agent": holder, "token": uuid4().hex})
        renewing: asyncio.Future[None] | None = None
        try:
            await held.acquire()  # cancelled, it may be ours without our knowing
            renewing = asyncio.ensure_future(held.renew())
            yield
        finally:
            if renewing:
                renewing.cancel()
                await asyncio.wait({renewing})
            await asyncio.shield(held.release())

    return lock


class _Held:
    def __init__(self, client: PrefectClient, name: str, value: dict[str, object]) -> None:
        self._client, self._name, self._value = client, name, value
        self._seen: object = None
        self._since = 0.0

    async def acquire(self) -> None:
        """Wait until it is ours."""
        retrying = AsyncRetrying(
            retry=retry_if_result(lambda made: not made), wait=wait_exponential_jitter(initial=0.1, max=2, jitter=0.2)
        )
        await retrying(until_answered, self._make)

    async def _make(self) -> bool:
        try:
            await self._client.create_variable(VariableCreate(name=self._name, value=self._value, tags=[TAG]))
        except ObjectAlreadyExists:
            return await self._is_ours_after_all()
        return True

    async def _is_ours_after_all(self) -> bool:
        """Remove what is held by somebody who is gone; whether it is then ours is for the next try."""
        there = await self._client.read_variable_by_name(self._name)
        if there is None:
            return False
        if self._is_mine(there):
            return True  # the answer to an earlier request was lost
        now = asyncio.get_running_loop().time()
        if self._seen != there.value:
            self._seen, self._since = there.value, now
        elif now - self._since > LOST_SECONDS:
            log.warning("%s has not been heard of for %.0f s: its build is taken over", there.value, now - self._since)
            await self._delete()
        return False

    def _is_mine(self, there: Variable | None) -> bool:
        return there is not None and isinstance(there.value, dict) and there.value.get("token") == self._value["token"]

    async def renew(self) -> None:
        """Say again and again that this holder is there, until it is no longer the one."""
        for count in itertools.count(1):
            await asyncio.sleep(RENEW_SECONDS)
            try:
                if not await until_answered(functools.partial(self._renew_once, count)):
                    log.warning("Another agent has taken over the build of %s", self._value["image"])
                    return
            except httpx.HTTPStatusError as error:
                log.warning("The build lock %s could not be renewed: %s", self._name, error)

    async def _renew_once(self, count: int) -> bool:
        if not self._is_mine(await self._client.read_variable_by_name(self._name)):
            return False
        await self._client.update_variable(VariableUpdate(name=self._name, value={**self._value, "renewed": count}))
        return True

    async def release(self) -> None:
        """Give it up, unless somebody else has it by now."""
        try:
            if self._is_mine(await until_answered(lambda: self._client.read_variable_by_name(self._name))):
                await until_answered(self._delete)
        except httpx.HTTPStatusError as error:  # who waits takes it over
            log.warning("The build lock %s could not be given up: %s", self._name, error)

    async def _delete(self) -> None:
        with suppress(ObjectNotFound):
            await self._client.delete_variable_by_name(self._name)
