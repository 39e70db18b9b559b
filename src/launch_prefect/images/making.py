"""One image on its way from code to the engine: fetch, detect, plan, build in two layers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from launch_prefect import naming
from launch_prefect.errors import BuildFailed, InvalidInput
from launch_prefect.images import dockerfile, plan
from launch_prefect.images.builders.docker import DockerBuilder
from launch_prefect.images.detect import Environment, detect
from launch_prefect.images.index import Entry
from launch_prefect.images.kept import Images, Kept, until_stopped
from launch_prefect.images.processes import in_thread
from launch_prefect.images.pulling import Puller
from launch_prefect.images.recipe import Recipe
from launch_prefect.images.sharing import Build
from launch_prefect.runtime import module
from launch_prefect.scratch import scratch
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.disk import needing_space

LABEL_ENVIRONMENT = f"{naming.LABEL}.environment"
LABEL_CODE = f"{naming.LABEL}.code"
LABEL_SOURCE = f"{naming.LABEL}.source"


@dataclass(frozen=True, slots=True)
class Tools:
    """What makes images on this machine.

    Attributes:
        settings: Where state is kept, and the CA bundle of builds.
        builder: Builds.
        puller: Finds base images.
        slots: A token for each build that may go on at once.
    """

    settings: LaunchSettings
    builder: DockerBuilder
    puller: Puller
    slots: anyio.CapacityLimiter


@dataclass(frozen=True, slots=True)
class Made:
    """An image that is there now.

    Attributes:
        kept: The image.
        entry: What leads to it without a look at the code.
        name: Its name.
        reason: Why it was built or not, as a sentence for the log.
    """

    kept: Kept
    entry: Entry
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Plan:
    code: str
    environment: Environment
    base: str
    environment_key: str
    environment_name: str
    name: str


class Making:
    """Makes one image.

    Args:
        recipe: What it is made from.
        platform: Platform of the image.
        runtime: Digest of the runtime module.
        tools: What makes it.
        images: Where it is kept.
        build: Takes the lines of the log, and is told when something has to be built.
    """

    def __init__(
        self, recipe: Recipe, *, platform: str, runtime: str, tools: Tools, images: Images, build: Build
    ) -> None:
        self._recipe, self._platform, self._runtime = recipe, platform, runtime
        self._tools, self._images, self._build = tools, images, build
        self._foundation = ""

    async def make(self) -> Made:
        """Find the image, or build it.

        Raises:
            LaunchError: See `ImageService.ensure`.
        """
        folder = scratch(self._tools.settings)
        with needing_space(folder):
            context = Path(tempfile.mkdtemp(prefix="context-", dir=folder))
        try:
            code = context / dockerfile.CODE
            code.parent.mkdir()
            digest = await self._fetch(code)
            environment = await asyncio.to_thread(detect, code, build=self._recipe.build, command=self._recipe.command)
            for note in environment.notes:
                self._build.log(note)
            return await self._make(context, digest, environment)
        finally:
            await asyncio.to_thread(shutil.rmtree, context, ignore_errors=True)

    async def _fetch(self, into: Path) -> str:
        return await until_stopped(lambda stop: self._recipe.code.fetch(into, log=self._build.log, stop=stop))

    async def _make(self, context: Path, code: str, environment: Environment) -> Made:
        recipe, own = self._recipe, environment.kind == "dockerfile"
        base, base_id = "", ""
        if not own:
            base = plan.base_reference(recipe.base_image, environment.python)
            base_id = await self._tools.puller.resolve(
                base,
                log=self._build.log,
                policy="IfPossible" if recipe.rebuild else "IfNotPresent",
                credentials=recipe.credentials,
            )
        environment_key = plan.environment_key(
            environment, base=base_id, platform=self._platform, build=recipe.build, code=code
        )
        image_key = plan.image_key(environment_key, code, self._runtime, build=recipe.build)
        planned = _Plan(
            code,
            environment,
            base,
            environment_key,
            naming.environment_image(environment_key, recipe.registry),
            naming.job_image(recipe.job, image_key, recipe.registry),
        )
        installed: list[bool] = []

        async def make() -> str:
            installed.append(await self._ensure_environment(context, planned))
            return await self._build_code(context, planned)

        kept = await self._images.find_or_make(
            planned.name, make, log=self._build.log, begin=self._build.begin, anew=recipe.rebuild
        )
        entry = Entry(image_key, base, base_id, environment.reason)
        return Made(kept, entry, planned.name, _reason(environment, kept, any(installed)))

    async def _ensure_environment(self, context: Path, planned: _Plan) -> bool:
        """Make the image of the environment if it is not there; whether it was built."""

        async def make() -> str:
            environment = planned.environment
            on = "" if environment.kind == "dockerfile" else f" on {planned.base}"
            self._build.log(f"Building environment {planned.environment_name}{on}: {environment.reason}")
            labels = {naming.LABEL: naming.LABEL_VERSION, LABEL_ENVIRONMENT: planned.environment_key}
            with _secret_files(self._recipe.secrets, self._tools.settings) as secrets:
                if environment.kind == "dockerfile":
                    folder = context / dockerfile.CODE
                    text = environment.files[str(environment.dockerfile)].decode("utf-8", errors="replace")
                    return await self._run(
                        folder / environment.context, text, planned.environment_name, labels, secrets
                    )
                text = dockerfile.environment_dockerfile(
                    environment, planned.base, build=self._recipe.build, secrets=sorted(self._recipe.secrets)
                )
                with tempfile.TemporaryDirectory(prefix="context-", dir=scratch(self._tools.settings)) as name:
                    await in_thread(_write_files, environment, Path(name))
                    return await self._run(Path(name), text, planned.environment_name, labels, secrets)

        kept = await self._images.find_or_make(
            planned.environment_name, make, log=self._build.log, begin=self._build.begin, anew=self._recipe.rebuild
        )
        self._foundation = kept.id
        return kept.built

    async def _build_code(self, context: Path, planned: _Plan) -> str:
        with_code = planned.environment.kind != "dockerfile"
        await in_thread(_complete_context, context, with_code)
        self._build.log(f"Building image {planned.name}")
        text = dockerfile.code_dockerfile(planned.environment_name, build=self._recipe.build, with_code=with_code)
        labels = {
            naming.LABEL: naming.LABEL_VERSION,
            naming.LABEL_JOB: self._recipe.job,
            LABEL_CODE: planned.code,
            LABEL_SOURCE: self._recipe.code.key,
            LABEL_ENVIRONMENT: planned.environment_key,
        }
        return await self._run(context, text, planned.name, labels, {})

    async def _run(self, context: Path, text: str, name: str, labels: dict[str, str], secrets: dict[str, Path]) -> str:
        timeout = self._recipe.timeout
        async with self._slot():
            if self._foundation:  # after a long wait; house-keeping sees nothing that stands on it yet
                self._images.used(self._foundation)
            try:
                async with asyncio.timeout(timeout):
                    return await self._tools.builder.build(
                        context,
                        text,
                        name,
                        secrets=secrets,
                        labels=labels,
                        log=self._build.log,
                        platform=self._recipe.platform,
                        no_cache=self._recipe.rebuild,
                        credentials=self._recipe.credentials,
                    )
            except TimeoutError:
                raise BuildFailed(
                    f"The image {name} was not built within {timeout:g} s, and the build was stopped.",
                    mend="Set builder.timeout of the queue (in seconds), or install less.",
                    passing=True,
                ) from None

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        slots = self._tools.slots
        if slots.borrowed_tokens >= slots.total_tokens:
            self._build.log(f"Waiting until fewer than {slots.total_tokens:g} images are being built (max_builds).")
        who = object()
        await slots.acquire_on_behalf_of(who)
        try:
            yield
        finally:
            slots.release_on_behalf_of(who)


def _reason(environment: Environment, kept: Kept, installed: bool) -> str:
    if not kept.built:
        return f"{environment.reason}: the image is here already."
    if environment.kind == "dockerfile":
        return f"{environment.reason}: built as it says."
    what = "environment built and code added" if installed else "environment kept, code added"
    return f"{environment.reason}: {what}."


@contextmanager
def _secret_files(secrets: Mapping[str, str], settings: LaunchSettings) -> Iterator[dict[str, Path]]:
    """Build secrets as files that nobody else may read, removed again."""
    bundle = settings.ca_bundle
    if bundle is not None and not bundle.is_file():
        raise InvalidInput(f"There is no CA bundle {bundle}.", mend="Correct LAUNCH_CA_BUNDLE, or remove it.")
    folder = scratch(settings)
    with needing_space(folder), tempfile.TemporaryDirectory(prefix="secrets-", dir=folder) as name:
        files = {secret: Path(name) / secret for secret in secrets}
        for secret, file in files.items():
            file.touch(mode=0o600)
            file.write_text(secrets[secret])
        yield files | ({dockerfile.CA_SECRET: bundle.resolve()} if bundle else {})


def _write_files(environment: Environment, context: Path) -> None:
    with needing_space(context):
        for name, content in environment.files.items():
            file = context / dockerfile.FILES / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _complete_context(context: Path, with_code: bool) -> None:
    """Add the runtime module, and let any user write in the workspace: jobs need not run as root."""
    with needing_space(context):
        runtime = context / dockerfile.RUNTIME / "launch_run.py"
        runtime.parent.mkdir(exist_ok=True)
        runtime.parent.chmod(0o755)
        runtime.write_bytes(module())
        runtime.chmod(0o644)
    if not with_code:
        return
    code = context / dockerfile.CODE
    for path in [code, *code.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o777 if path.is_dir() or mode & 0o100 else 0o666)
