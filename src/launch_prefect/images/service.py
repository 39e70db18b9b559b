"""The image of a job: found where it exists, built once where it does not."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
import threading
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from filelock import AsyncFileLock

from launch_prefect import naming
from launch_prefect.errors import DiskFull, ImageMissing, InvalidInput
from launch_prefect.images import dockerfile, engine, plan
from launch_prefect.images.builders.docker import DockerBuilder
from launch_prefect.images.detect import Environment, detect
from launch_prefect.images.index import Entry, ImageIndex
from launch_prefect.images.processes import Log, in_thread
from launch_prefect.images.sharing import Build, OnBuild, SharedBuilds
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec.source import CodeSource

LABEL_ENVIRONMENT = f"{naming.LABEL}.environment"
LABEL_CODE = f"{naming.LABEL}.code"
PULL_POLICIES = ("IfNotPresent", "Always", "IfPossible", "Never")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine has.

    Attributes:
        id: What it is run by, `sha256:…`.
        name: Its name, for people.
        built: Whether it was built just now.
        reason: Why it was built or not, as a sentence for the log.
    """

    id: str
    name: str
    built: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Plan:
    environment: Environment
    base: str
    environment_key: str
    name: str


class ImageService:
    """Images of the local Docker engine. One event loop uses one service.

    Args:
        settings: Where state is kept, the default base image, the CA bundle of builds.
    """

    def __init__(self, settings: LaunchSettings) -> None:
        self._settings = settings
        self._index = ImageIndex(settings.folder("images", "index"))
        self._locks = settings.folder("images", "locks")
        self._builder = DockerBuilder()
        self._builds: SharedBuilds[Image] = SharedBuilds()
        self._pulls: SharedBuilds[str] = SharedBuilds()

    async def ensure(
        self, *, job: str, source: CodeSource, base_image: str | None, log: Log, on_build: OnBuild
    ) -> Image:
        """The image of a job's code, built if the engine does not have it.

        Wanted by several at once, it is built once; it stops being built when none of them waits any more.

        Args:
            job: Name of the job.
            source: Its code, pinned by digest.
            base_image: Reference of the base image, in which `{python}` takes the version; None for this machine's.
            log: Takes the lines of the build's output.
            on_build: Awaited once when something has to be built.

        Returns:
            The image.

        Raises:
            BuildFailed: It cannot be built from what the job says.
            ImageMissing: The base image cannot be had.
            InvalidInput: The code or its dependency files are not valid.
            NotFound: The code store has no such snapshot.
            DiskFull: No space is left.
            Unreachable: The engine or the code store does not answer.
            LaunchError: There is no Docker client that can build.
        """
        if source.digest is None:
            raise InvalidInput(f"The code {source.code} has no digest.", mend="Submit the folder again.")
        template = base_image or self._settings.base_image
        runtime = await asyncio.to_thread(_runtime_digest)
        platform = await asyncio.to_thread(engine.platform)
        key = (source.digest, template, platform, runtime)
        if image := await asyncio.to_thread(self._known, job, key):
            return image

        async def work(build: Build) -> Image:
            return await self._find_or_build(job, source, key, build)

        return await self._builds.run("\n".join([job, *key]), work, log=log, on_build=on_build)

    async def resolve(
        self,
        reference: str,
        *,
        log: Log,
        policy: str | None = None,
        credentials: engine.Credentials | None = None,
    ) -> str:
        """The id of an image that is not ours, pulled as the policy says.

        Args:
            reference: Its name or id. What is named by an id is never pulled.
            log: Takes a line before and after a pull, and one if it fails and the image that is here is taken.
            policy: `IfNotPresent`; `Always`, where a pull that fails is an error; `IfPossible`, where the image that
                is here is then taken; `Never`. None is `IfPossible` for the tag `latest` or no tag, and
                `IfNotPresent` for all other names.
            credentials: Used for a pull from the registry that they are for, and for no other.

        Returns:
            Its id, `sha256:…`.

        Raises:
            InvalidInput: There is no such policy.
            ImageMissing: There is no such image, the registry refuses it, or it would have to be pulled and may not.
            DiskFull: No space is left where the engine keeps images.
            Unreachable: The engine does not answer.
        """
        if policy not in (None, *PULL_POLICIES):
            raise InvalidInput(
                f"image_pull_policy cannot be {policy!r}.", mend=f"What is accepted: {', '.join(PULL_POLICIES)}."
            )
        here = await asyncio.to_thread(engine.find, reference)
        is_id = reference.startswith("sha256:") or (here or "").startswith(f"sha256:{reference}")
        policy = policy or ("IfPossible" if _may_change(reference) else "IfNotPresent")
        if here and (is_id or policy in ("IfNotPresent", "Never")):
            return here
        if is_id:
            raise engine.missing(reference, "it is not on this machine, and an id names an image of one machine only")
        if policy == "Never":
            raise ImageMissing(
                f"The image {reference} is not on this machine, and image_pull_policy is Never.",
                mend=f"Pull it on the agent's machine (docker pull {reference}), or set the queue's image_pull_policy "
                "to IfNotPresent.",
            )
        try:
            return await self._pull(reference, credentials, log)
        except (ImageMissing, DiskFull) as error:
            if here is None or policy != "IfPossible":
                raise
            log(f"{error.message} The one that is on this machine is taken: {here}")
            return here

    async def _pull(self, reference: str, credentials: engine.Credentials | None, log: Log) -> str:
        if credentials and not engine.is_credentials_for(reference, credentials):
            log(f"The registry credentials are for {credentials[0]}, not for {reference}: they are not used.")
            credentials = None

        async def work(build: Build) -> str:
            build.log(f"Pulling image {reference}")
            stop = threading.Event()
            try:
                image = await asyncio.to_thread(engine.pull, reference, stop, credentials)
            finally:
                stop.set()
            build.log(f"Pulled image {reference}: {image}")
            return image

        # Who has other credentials does not share a refusal, nor an image that those would not lead to.
        key = f"{reference}\n{hash(credentials)}"
        return await self._pulls.run(key, work, log=log, on_build=_nothing)

    def _known(self, job: str, key: tuple[str, ...]) -> Image | None:
        """The image that the index leads to, if the engine has it and its base image is still the same."""
        entry = self._index.get(*key)
        if entry is None:
            return None
        # A base image that has been removed meanwhile does not make what stands on it any older.
        if engine.find(entry.base) not in (None, entry.base_id):
            return None
        name = naming.job_image(job, entry.image_key)
        image = engine.find(name)
        return Image(image, name, False, "The image is here already.") if image else None

    async def _find_or_build(self, job: str, source: CodeSource, key: tuple[str, ...], build: Build) -> Image:
        digest, template, platform, runtime = key
        with needing_space(tempfile.gettempdir()):
            context = Path(tempfile.mkdtemp(prefix="launch-context-"))
        try:
            code = context / dockerfile.CODE
            code.parent.mkdir()
            store = CodeStore(source.store or self._settings.code_store_url)
            await in_thread(store.unpack, digest, code)
            environment = await asyncio.to_thread(detect, code)
            base = plan.base_reference(template, environment.python)
            base_id = await self.resolve(base, log=build.log, policy="IfNotPresent")
            environment_key = plan.environment_key(environment, base=base_id, platform=platform)
            image_key = plan.image_key(environment_key, digest, runtime)
            planned = _Plan(environment, base, environment_key, naming.job_image(job, image_key))
            image = await self._ensure_code(job, digest, planned, context, build)
            await asyncio.to_thread(self._index.put, Entry(image_key, base, base_id), *key)
            return image
        finally:
            await asyncio.to_thread(shutil.rmtree, context, ignore_errors=True)

    async def _ensure_code(self, job: str, code: str, planned: _Plan, context: Path, build: Build) -> Image:
        async with self._lock(planned.name):
            if image := await asyncio.to_thread(engine.find, planned.name):
                return Image(image, planned.name, False, "The image is here already.")
            build.begin()
            installed = await self._ensure_environment(planned, build)
            await in_thread(_complete_context, context)
            build.log(f"Building image {planned.name}")
            labels = {naming.LABEL: naming.LABEL_VERSION, naming.LABEL_JOB: job, LABEL_CODE: code}
            image = await self._builder.build(
                context,
                dockerfile.code_dockerfile(naming.environment_image(planned.environment_key)),
                planned.name,
                secrets={},
                labels=labels | {LABEL_ENVIRONMENT: planned.environment_key},
                log=build.log,
            )
        what = "environment built and code added" if installed else "environment kept, code added"
        return Image(image, planned.name, True, f"{planned.environment.reason}: {what}.")

    async def _ensure_environment(self, planned: _Plan, build: Build) -> bool:
        """Build the environment's image if the engine does not have it; whether it was built."""
        name = naming.environment_image(planned.environment_key)
        async with self._lock(name):
            if await asyncio.to_thread(engine.find, name):
                return False
            build.log(f"Building environment {name} on {planned.base}: {planned.environment.reason}")
            with tempfile.TemporaryDirectory(prefix="launch-context-") as folder:
                await in_thread(_write_files, planned.environment, Path(folder))
                await self._builder.build(
                    Path(folder),
                    dockerfile.environment_dockerfile(planned.environment, planned.base),
                    name,
                    secrets=self._secrets(),
                    labels={
                        naming.LABEL: naming.LABEL_VERSION,
                        LABEL_ENVIRONMENT: planned.environment_key,
                    },
                    log=build.log,
                )
        return True

    def _secrets(self) -> dict[str, Path]:
        bundle = self._settings.ca_bundle
        if bundle is None:
            return {}
        if not bundle.is_file():
            raise InvalidInput(f"There is no CA bundle {bundle}.", mend="Correct LAUNCH_CA_BUNDLE, or remove it.")
        return {dockerfile.CA_SECRET: bundle.resolve()}

    def _lock(self, name: str) -> AsyncFileLock:
        """Held while this machine builds an image: other agents here wait and then find it."""
        return AsyncFileLock(self._locks / f"{naming.slug(name, limit=120)}.lock", run_in_executor=False)


def _may_change(reference: str) -> bool:
    """Whether a name has the tag `latest` or none."""
    name = reference.rpartition("/")[2]
    return "@" not in name and name.partition(":")[2] in ("", "latest")


async def _nothing() -> None:
    return None


def _runtime_module() -> bytes:
    return (resources.files("launch_prefect.runtime") / "launch_run.py").read_bytes()


def _runtime_digest() -> str:
    return f"sha256:{hashlib.sha256(_runtime_module()).hexdigest()}"


def _write_files(environment: Environment, context: Path) -> None:
    with needing_space(context):
        for name, content in environment.files.items():
            file = context / dockerfile.FILES / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)


def _complete_context(context: Path) -> None:
    """Add the runtime module, and let any user write in the workspace: jobs need not run as root."""
    with needing_space(context):
        runtime = context / dockerfile.RUNTIME / "launch_run.py"
        runtime.parent.mkdir(exist_ok=True)
        runtime.parent.chmod(0o755)
        runtime.write_bytes(_runtime_module())
        runtime.chmod(0o644)
    code = context / dockerfile.CODE
    for path in [code, *code.rglob("*")]:
        if not path.is_symlink():
            mode = path.stat().st_mode
            path.chmod(0o777 if path.is_dir() or mode & 0o100 else 0o666)
