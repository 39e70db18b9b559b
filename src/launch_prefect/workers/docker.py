"""The target `docker`: runs as containers of a Docker engine, images built by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, cast

from docker import DockerClient
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration, DockerWorkerResult
from pydantic import Field, PrivateAttr

from launch_prefect import dockerpy, naming
from launch_prefect.errors import InvalidInput, StartFailed
from launch_prefect.images import engine
from launch_prefect.images.service import Image, ImageService
from launch_prefect.spec import ImageSource
from launch_prefect.workers import _prefect, build_locks, recipes
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.base import LaunchWorker
from launch_prefect.workers.configuration import LaunchJobConfiguration
from launch_prefect.workers.container import RunningContainer
from launch_prefect.workers.engine_log import LOST
from launch_prefect.workers.house import keep_house_for_ever
from launch_prefect.workers.lifecycle import Say
from launch_prefect.workers.threads import in_thread

OUTPUT_DIR = "/launch/outputs"
# The log is read from the engine: framed by stream, and complete, whatever its daemon.json says of rotation.
_OURS = {
    "tty": False,
    "log_config": LogConfig(
        type=LogConfig.types.JSON, config={"max-size": "1000g", "max-file": "1", "compress": "false"}
    ),
}


class DockerLaunchJobConfiguration(LaunchJobConfiguration, DockerWorkerJobConfiguration):
    """Job variables of a `launch-docker` queue: prefect-docker's and ours."""

    base_image: str | None = Field(
        default=None,
        title="Base image",
        description="Image that generated Dockerfiles start from. Default: the agent's setting LAUNCH_BASE_IMAGE.",
    )
    init: bool = Field(
        default=True,
        title="Init process",
        description="Run a small init process as PID 1, so that signals and orphaned children are handled.",
    )
    _command_job: bool = PrivateAttr(default=False)

    def get_network_mode(self) -> str | None:
        """As configured: a command job does not talk to the API, so a local API must not change its network."""
        return self.network_mode if self._command_job else cast("str | None", super().get_network_mode())

    def get_extra_hosts(self, docker_client: DockerClient) -> dict[str, str] | None:
        """None for a command job, for the same reason."""
        inherited = super().get_extra_hosts
        return None if self._command_job else cast("dict[str, str] | None", inherited(docker_client))


class DockerLaunchWorker(LaunchWorker[DockerLaunchJobConfiguration, Any, DockerWorkerResult], DockerWorker):
    """Serves `launch-docker` queues."""

    type = "launch-docker"
    job_configuration = DockerLaunchJobConfiguration
    _display_name = "Launch: Docker"
    _description = (
        "Run jobs as Docker containers: code is built into an image once, images run by digest. "
        "Needs a Docker engine on the agent's machine."
    )
    _documentation_url = "https://github.com/launch-prefect/launch-prefect/tree/main/docs"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._images: ImageService | None = None

    async def setup(self) -> None:
        """Connect; builds are locked among all agents of the server."""
        await super().setup()
        lock = build_locks.of_server(self.client, holder=self.name, scope=_who_shares)
        self._images = ImageService(self.settings, lock=lock)
        self._spawn(keep_house_for_ever(self.client, self.settings, engine=True), self._services)

    async def prepare(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> Image:
        """The image it runs."""
        image = await self._image(attempt, configuration, say, on_build)
        say(image.reason)
        return image

    async def prepare_ahead(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> None:
        """Build or pull the image that a waiting run will need."""
        await self._image(attempt, configuration, say, on_build)

    async def _image(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> Image:
        assert self._images is not None  # noqa: S101 - made in setup
        if isinstance(attempt.source, ImageSource):
            reference = attempt.source.reference
            found = await self._images.puller.resolve(
                reference,
                log=say,
                policy=configuration.image_pull_policy,
                credentials=await recipes.registry_credentials(configuration, reference),
            )
            digest = await in_thread(_digest, reference, found)
            return Image(found, reference, built=False, reason=f"Image {reference}: {found}", digest=digest)
        recipe = await recipes.recipe_for(self, attempt, configuration, self.settings)
        self._images.slots.total_tokens = configuration.builder.max_builds
        return await self._images.ensure(recipe, log=say, on_build=on_build)

    async def start_attempt(
        self, attempt: Attempt, configuration: DockerLaunchJobConfiguration, prepared: Image
    ) -> RunningContainer:
        """Create and start its container."""
        client = await in_thread(connect)
        output = attempt.output_folder(self.settings)
        output.chmod(0o777)
        configuration = configuration.model_copy()
        configuration._command_job = True
        configuration.image = prepared.reference
        configuration.name = naming.container_name(attempt.job, str(attempt.run_id), attempt.number)
        configuration.env = dict(attempt.environment(OUTPUT_DIR, prepared.reference))
        configuration.labels = {**configuration.labels, **attempt.labels}
        configuration.volumes = [*configuration.volumes, f"{output}:{OUTPUT_DIR}"]
        configuration.auto_remove = False
        settings = _prefect.container_settings(self, client, configuration)
        settings |= {"command": attempt.words(prepared.reference), "init": configuration.init}
        settings |= _limits(attempt) | _OURS
        return RunningContainer(client, await in_thread(_start, client, settings, configuration.networks[1:], attempt))

    def facts(self, attempt: Attempt, prepared: Image) -> dict[str, Any]:
        """The image, by its digest, and where its outputs are."""
        return {"launch.image": prepared.reference, **attempt.facts(self.settings)}


async def _who_shares(name: str) -> str:
    """Who sees an image of a name: all agents, where a registry keeps it, else those of one engine."""
    if not name.startswith(f"{naming.IMAGE_REPOSITORY}/"):
        return ""
    return await in_thread(engine.identity)


def _digest(reference: str, image: str) -> str | None:
    return None if reference.startswith("sha256:") else engine.find_repo_digest(naming.repository(reference), image)


def connect() -> DockerClient:
    """A client of the engine that the agent's environment names.

    Raises:
        Unreachable: It does not answer.
    """
    try:
        client = dockerpy.docker.from_env()
        client.ping()
    except (dockerpy.DockerException, OSError):
        raise engine.unreachable() from None
    return client


def _limits(attempt: Attempt) -> dict[str, Any]:
    wanted = attempt.resources
    limits: dict[str, Any] = {}
    if wanted.memory_bytes is not None:
        # without a swap limit a job that exceeds its memory crawls instead of ending
        limits |= {"mem_limit": wanted.memory_bytes, "memswap_limit": wanted.memory_bytes}
    if wanted.cpu is not None:
        limits["nano_cpus"] = round(wanted.cpu * 1e9)
    if wanted.gpu:
        limits["device_requests"] = [DeviceRequest(count=wanted.gpu, capabilities=[["gpu"]])]
    return limits


def _start(client: DockerClient, settings: dict[str, Any], networks: Sequence[str], attempt: Attempt) -> Container:
    """Create and start a container; whatever fails, none is left."""
    try:
        container = _create(client, settings, attempt)
        for name in networks:
            client.networks.get(name).connect(container)
        container.start()
    except dockerpy.NotFound as error:
        _discard(client, settings["name"])
        raise InvalidInput(f"The container could not be created: {error.explanation}.") from None
    except dockerpy.APIError as error:
        _discard(client, settings["name"])
        raise _start_error(error, attempt) from None
    except LOST:
        _discard(client, settings["name"])
        raise engine.unreachable() from None
    return container


def _create(client: DockerClient, settings: dict[str, Any], attempt: Attempt) -> Container:
    try:
        return client.containers.create(**settings)
    except dockerpy.APIError as error:
        if error.status_code == 400:
            raise InvalidInput(
                f"The Docker engine refuses the run's settings: {error.explanation}.",
                mend="Correct the resource configuration, or give the job a command if its image has none.",
            ) from None
        raise


def _discard(client: DockerClient, name: str) -> None:
    with suppress(dockerpy.APIError, *LOST):
        client.api.remove_container(name, force=True, v=True)


def _start_error(error: dockerpy.APIError, attempt: Attempt) -> StartFailed:
    text = str(error.explanation)
    program = attempt.command[0] if attempt.command else "the image's command"
    if "executable file not found" in text or "no such file or directory" in text:
        return StartFailed(
            f"Command not found: {program!r} is not in the image.",
            mend="Check the job's command, or use an image that contains it.",
        )
    if "permission denied" in text:
        return StartFailed(
            f"Command not executable: {program!r}.", mend="Make it executable, or name its interpreter first."
        )
    if "device driver" in text and attempt.resources.gpu:
        return StartFailed(
            "The engine cannot give a container a GPU.",
            mend="Install the NVIDIA Container Toolkit on the agent's machine, or submit to a queue with GPUs.",
        )
    return StartFailed(f"The Docker engine could not start the container: {text}.")
