"""The image of a job: found where it exists, built once where it does not."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass

import anyio

from launch_prefect import naming
from launch_prefect.images import engine, locks
from launch_prefect.images.builders.docker import DockerBuilder
from launch_prefect.images.failures import Failures, digest_of
from launch_prefect.images.housekeeping.usage import Usage
from launch_prefect.images.index import ImageIndex
from launch_prefect.images.kept import Images
from launch_prefect.images.making import Making, Tools
from launch_prefect.images.processes import Log
from launch_prefect.images.pulling import Puller
from launch_prefect.images.recipe import Recipe
from launch_prefect.images.sharing import Build, OnBuild, SharedBuilds
from launch_prefect.runtime import module
from launch_prefect.settings import LaunchSettings


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has.

    Attributes:
        id: Its id, `sha256:…`.
        name: Its name, for people.
        built: Whether it was built just now.
        reason: Why it was built or not, as a sentence for the log.
        digest: What its registry knows it by, `sha256:…`; None without a registry.
    """

    id: str
    name: str
    built: bool
    reason: str
    digest: str | None = None

    @property
    def reference(self) -> str:
        """What it is run by: its repository and digest, else its id."""
        return f"{naming.repository(self.name)}@{self.digest}" if self.digest else self.id


class ImageService:
    """Images of the local Docker engine, and of the registry that a recipe names. One event loop uses one service.

    Args:
        settings: Where state is kept, and the CA bundle of builds.
        lock: Held while an image is built. Default: one among the processes of this machine.
        max_builds: Most builds at once.
    """

    def __init__(
        self, settings: LaunchSettings, *, lock: locks.BuildLock | None = None, max_builds: int | None = None
    ) -> None:
        self._settings = settings
        self._index = ImageIndex(settings.folder("images", "index"))
        self._failures = Failures(settings.folder("images", "failures"))
        self._usage = Usage(settings)
        self._platform: str | None = None
        self._lock = lock or locks.of_machine(settings.folder("images", "locks"))
        self.puller = Puller()
        self.slots = anyio.CapacityLimiter(max_builds or float("inf"))
        """How many builds may go on at once; its `total_tokens` can be set at any time."""
        self._tools = Tools(settings, DockerBuilder(settings), self.puller, self.slots)
        self._builds: SharedBuilds[Image] = SharedBuilds()

    async def ensure(self, recipe: Recipe, *, log: Log, on_build: OnBuild) -> Image:
        """The image of a job's code, built if neither the engine nor the registry has it.

        Wanted by several at once, it is built once; it stops being built when none of them waits any more.

        Args:
            recipe: What it is made from.
            log: Takes the lines of the build's output.
            on_build: Awaited once when something has to be built.

        Returns:
            The image.

        Raises:
            BuildFailed: It cannot be built from what the job says, or could not before.
            ImageMissing: The base image cannot be had.
            InvalidInput: The code or its dependency files are not valid.
            NotFound: The code is not where the job says.
            DiskFull: No space is left.
            Unreachable: The engine, the registry, the code store or the git server does not answer.
            RegistryRefused: The registry refuses the credentials.
            LaunchError: There is no Docker client that can build.
        """
        runtime = f"sha256:{hashlib.sha256(module()).hexdigest()}"
        if self._platform is None:
            self._platform = await asyncio.to_thread(engine.platform)
        platform = recipe.platform or self._platform
        key = recipe.key(platform, runtime)
        self._usage.used("snapshot", recipe.code.key)
        image = await self._find_or_build(recipe, key, platform, runtime, log, on_build)
        self._used(image.id)
        return image

    def _used(self, image: str) -> None:
        self._usage.used("image", image)

    async def _find_or_build(
        self, recipe: Recipe, key: tuple[str, ...], platform: str, runtime: str, log: Log, on_build: OnBuild
    ) -> Image:
        if not recipe.rebuild and (image := await asyncio.to_thread(self._known, recipe, key)):
            return image

        async def work(build: Build) -> Image:
            making = Making(
                recipe,
                platform=platform,
                runtime=runtime,
                tools=self._tools,
                images=Images(recipe.registry, recipe.credentials, self._lock, used=self._used),
                build=build,
            )
            made = await self._failures.unless_failed(key, making.make, secrets=recipe.secrets, anyway=recipe.rebuild)
            await asyncio.to_thread(self._index.put, made.entry, *key)
            return Image(made.kept.id, made.name, made.kept.built, made.reason, made.kept.digest)

        # Who has other secrets shares no lines of a log in which those would not be masked.
        together = "\n".join([recipe.job, str(recipe.rebuild), digest_of(recipe.secrets), *key])
        return await self._builds.run(together, work, log=log, on_build=on_build)

    def _known(self, recipe: Recipe, key: tuple[str, ...]) -> Image | None:
        """The image that the index leads to, if the engine has it and its base image is still the same."""
        entry = self._index.get(*key)
        if entry is None:
            return None
        # A base image that has been removed meanwhile does not make what stands on it any older.
        if entry.base and engine.find(entry.base) not in (None, entry.base_id):
            return None
        name = naming.job_image(recipe.job, entry.image_key, recipe.registry)
        image = engine.find(name)
        digest = engine.find_repo_digest(naming.repository(name), image) if image and recipe.registry else None
        if image is None or (recipe.registry and digest is None):
            return None
        return Image(image, name, False, f"{entry.reason}: the image is here already.", digest)
