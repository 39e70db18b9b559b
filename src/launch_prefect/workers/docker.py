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
from launch_prefect.images.service import ImageService
from launch_prefect.spec import ImageSource
from launch_prefect.workers import _prefect
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.base import LaunchWorker
from launch_prefect.workers.configuration import LaunchJobConfiguration
from launch_prefect.workers.container import RunningContainer
from launch_prefect.workers.engine_log import LOST
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
        self._images = ImageService(self.settings)

    async def prepare(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> str:
        """The id of the image it runs."""
        if isinstance(attempt.source, ImageSource):
            login = configuration.registry_credentials
            return await self._images.resolve(
                attempt.source.image,
                log=say,
                policy=configuration.image_pull_policy,
                credentials=login and (login.registry_url, login.username, login.password.get_secret_value()),
            )
        image = await self._images.ensure(
            job=attempt.job,
            source=attempt.source,
            base_image=configuration.base_image,
            log=say,
            on_build=on_build,
        )
        return image.id

    async def start_attempt(
        self, attempt: Attempt, configuration: DockerLaunchJobConfiguration, prepared: str
    ) -> RunningContainer:
        """Create and start its container."""
        client = await in_thread(connect)
        output = attempt.output_folder(self.settings)
        output.chmod(0o777)
        configuration = configuration.model_copy()
        configuration._command_job = True
        configuration.image = prepared
        configuration.name = naming.container_name(attempt.job, str(attempt.run_id), attempt.number)
        configuration.env = dict(attempt.environment(OUTPUT_DIR, prepared))
        configuration.labels = {**configuration.labels, **attempt.labels}
        configuration.volumes = [*configuration.volumes, f"{output}:{OUTPUT_DIR}"]
        configuration.auto_remove = False
        settings = _prefect.container_settings(self, client, configuration)
        settings |= _limits(attempt) | _OURS | {"command": attempt.words(prepared), "init": configuration.init}
        return RunningContainer(client, await in_thread(_start, client, settings, configuration.networks[1:], attempt))

    def facts(self, attempt: Attempt, prepared: str) -> dict[str, Any]:
        """The image's id, and where its outputs are."""
        return {
            "launch.image": prepared,
            "launch.version": attempt.source.version,
            "launch.outputs": str(attempt.output_folder(self.settings)),
        }


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
