"""Where built images are kept: the engine, and a registry where there is one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from launch_prefect import naming
from launch_prefect.images import engine, registry
from launch_prefect.images.engine import Credentials
from launch_prefect.images.locks import BuildLock
from launch_prefect.images.processes import Log

Result = TypeVar("Result")
STOP_SECONDS = 5.0
"""How long something blocking is waited for that has been told to give up."""


@dataclass(frozen=True, slots=True)
class Kept:
    """An image that the engine has.

    Attributes:
        id: Its id, `sha256:…`.
        digest: What the registry knows it by, `sha256:…`; None without a registry.
        built: Whether it was built just now.
    """

    id: str
    digest: str | None = None
    built: bool = False


class Images:
    """Images by name, of one engine and at most one registry.

    Args:
        address: The registry and folder that the names begin with; None for the engine alone.
        credentials: Of the registry.
        lock: Held while an image is built and pushed.
        used: Told the id of each image that is found or made, so that house-keeping leaves it alone.
    """

    def __init__(
        self, address: str | None, credentials: Credentials | None, lock: BuildLock, *, used: Callable[[str], None]
    ) -> None:
        self._address, self._credentials, self._lock = address, credentials, lock
        self.used = used

    async def find(self, name: str, log: Log) -> Kept | None:
        """An image that is there: on the engine, else pulled from the registry.

        Args:
            name: Its name, with the tag that its content gives it.
            log: Takes lines about a pull.

        Raises:
            Unreachable: The engine or the registry does not answer.
            RegistryRefused: The registry refuses the credentials.
            DiskFull: No space is left where the engine keeps images.
        """
        repository = naming.repository(name)
        here = await asyncio.to_thread(engine.find, name)
        if self._address is None:
            return Kept(here) if here else None
        if here is not None:  # what has been pushed or pulled is in the registry; else it is to be pushed
            digest = await asyncio.to_thread(engine.find_repo_digest, repository, here)
            return Kept(here, digest) if digest else None
        digest = await asyncio.to_thread(registry.find_digest, name, self._credentials)
        if digest is None:
            return None
        reference = f"{repository}@{digest}"
        log(f"Pulling {reference}: the registry has it.")
        pulled = await until_stopped(lambda stop: engine.pull(reference, stop, self._credentials))
        await asyncio.to_thread(engine.tag, pulled, name)
        return Kept(pulled, digest)

    async def find_or_make(
        self, name: str, make: Callable[[], Awaitable[str]], *, log: Log, begin: Callable[[], None], anew: bool
    ) -> Kept:
        """An image, made where it is not there, by one of all who want it.

        Args:
            name: Its name.
            make: Builds it under that name; returns its id.
            log: Takes lines about pulls and pushes.
            begin: Called before there is anything to wait for.
            anew: Make it though it is there.

        Raises:
            LaunchError: See `find`, and what `make` raises.
        """
        kept = await self._find_or_make(name, make, log, begin, anew)
        self.used(kept.id)
        return kept

    async def _find_or_make(
        self, name: str, make: Callable[[], Awaitable[str]], log: Log, begin: Callable[[], None], anew: bool
    ) -> Kept:
        if not anew and (there := await self.find(name, log)):
            return there
        begin()
        async with self._lock(name):
            if not anew and (there := await self.find(name, log)):
                return there  # somebody else has made it meanwhile
            # One that is here and not in the registry was built, and then not pushed.
            pushes = self._address is not None
            image = await asyncio.to_thread(engine.find, name) if pushes and not anew else None
            made = Kept(image) if image else Kept(await make(), built=True)
            if self._address is None:
                return made
            log(f"Pushing {name}")
            digest = await until_stopped(lambda stop: engine.push(name, stop, self._credentials, log))
            return replace(made, digest=digest)


async def until_stopped(call: Callable[[threading.Event], Result]) -> Result:
    """Call something blocking that takes an event which tells it to give up: set when this task is cancelled.

    It is then waited for, so that nothing is written any more when the caller removes what was made.
    """
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(call, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        raise
