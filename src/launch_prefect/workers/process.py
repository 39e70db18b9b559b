"""The target `process`: runs as processes of the agent's machine, in an environment built once per content."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
from prefect.workers.process import (
    ProcessJobConfiguration,
    ProcessVariables,
    ProcessWorker,
    ProcessWorkerResult,
)

from launch_prefect.errors import InvalidInput
from launch_prefect.images.environments import ProcessEnvironment, ensure_environment
from launch_prefect.images.failures import Failures
from launch_prefect.images.housekeeping import Usage
from launch_prefect.images.kept import until_stopped
from launch_prefect.runtime import folder as runtime_folder
from launch_prefect.scratch import scratch
from launch_prefect.spec import ImageSource
from launch_prefect.workers import recipes
from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.base import LaunchWorker
from launch_prefect.workers.configuration import LaunchJobConfiguration
from launch_prefect.workers.house import keep_house_for_ever
from launch_prefect.workers.lifecycle import Say
from launch_prefect.workers.supervision import SupervisedProcess

IN_USE = "environment"
"""File in an attempt's folder that names the environment it runs in, so that house-keeping leaves that alone."""
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessLaunchJobConfiguration(LaunchJobConfiguration, ProcessJobConfiguration):
    """Job variables of a `launch-process` queue: Prefect's and ours."""


class ProcessLaunchWorker(
    LaunchWorker[ProcessLaunchJobConfiguration, ProcessVariables, ProcessWorkerResult], ProcessWorker
):
    """Serves `launch-process` queues."""

    type = "launch-process"
    job_configuration = ProcessLaunchJobConfiguration
    job_configuration_variables = None
    _display_name = "Launch: process"
    _description = (
        "Run jobs as processes of the agent's machine, each in its own copy of the code and in an environment "
        "that uv builds once per content. For machines without a container engine."
    )
    _documentation_url = "https://github.com/launch-prefect/launch-prefect/tree/main/docs"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._failures = Failures(self.settings.folder("images", "failures"))
        self._usage = Usage(self.settings)

    async def setup(self) -> None:
        """Connect, and keep house; images are the business of agents that have an engine."""
        await super().setup()
        self._spawn(keep_house_for_ever(self.client, self.settings, engine=False), self._services)

    async def prepare(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> ProcessEnvironment:
        """Its own copy of the code, and its environment."""
        if isinstance(attempt.source, ImageSource):
            raise InvalidInput(
                f"A queue of target process cannot run the image {attempt.source.version}.",
                mend="Submit it to a queue of target docker.",
            )
        if wanted := attempt.resources.model_dump(exclude_none=True):
            say(f"Target process limits nothing: {wanted} is not enforced.", logging.WARNING)
        folder = attempt.folder(self.settings)
        environment = await self._environment(attempt, configuration, folder / "code", say, on_build)
        (folder / IN_USE).write_text(str(environment.path))
        self._usage.used("environment", environment.path.name)
        say(environment.reason)
        return environment

    async def prepare_ahead(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> None:
        """Build the environment that a waiting run will need."""
        with tempfile.TemporaryDirectory(prefix="ahead-", dir=scratch(self.settings)) as name:
            await self._environment(attempt, configuration, Path(name) / "code", say, on_build)

    async def _environment(
        self, attempt: Attempt, configuration: Any, code: Path, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> ProcessEnvironment:
        source = recipes.code_for(attempt, configuration, self.settings)
        self._usage.used("snapshot", source.key)
        digest = await until_stopped(lambda stop: source.fetch(code, log=say, stop=stop))
        secrets, rebuild = recipes.build_secrets(configuration), recipes.rebuilds(attempt, configuration)

        async def build() -> ProcessEnvironment:
            return await ensure_environment(
                code,
                code_digest=digest,
                settings=self.settings,
                log=say,
                on_build=on_build,
                build=configuration.build,
                command=attempt.command,
                secrets=secrets,
                rebuild=rebuild,
                timeout=configuration.builder.timeout,
            )

        key = ("environment", digest, configuration.build.key)
        return await self._failures.unless_failed(key, build, secrets=secrets, anyway=rebuild)

    async def start_attempt(
        self, attempt: Attempt, configuration: ProcessLaunchJobConfiguration, prepared: ProcessEnvironment
    ) -> SupervisedProcess:
        """Start it under its supervisor."""
        folder = attempt.folder(self.settings)
        code = folder / "code"
        (temporary := folder / "tmp").mkdir(exist_ok=True)
        own = attempt.environment(str(attempt.output_folder(self.settings)))
        return await SupervisedProcess.start(
            folder,
            command=attempt.words() or [],
            env=_machine_environment(prepared, code, temporary) | own,
            cwd=code,
            grace=attempt.stop_grace,
        )

    def facts(self, attempt: Attempt, prepared: ProcessEnvironment) -> dict[str, Any]:
        """Code, environment, and where its outputs are."""
        return {"launch.environment": prepared.key, **attempt.facts(self.settings)}

    async def clean(self, attempt: Attempt) -> None:
        """Remove the attempt's copy of the code."""
        folder = attempt.folder(self.settings)
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()


def _machine_environment(environment: ProcessEnvironment, code: Path, temporary: Path) -> dict[str, str]:
    """What a program needs to run on this machine at all; nothing of the agent's own environment."""
    home, user = _user()
    is_conda = (environment.path / "conda-meta").is_dir()
    paths = [runtime_folder(), *([code / "src"] if (code / "src").is_dir() else [])]
    return {
        "PATH": f"{environment.bin}:{SYSTEM_PATH}",
        "CONDA_PREFIX" if is_conda else "VIRTUAL_ENV": str(environment.path),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "LANG": "C.UTF-8",
        "TMPDIR": str(temporary),
    }


def _user() -> tuple[str, str]:
    """Home folder and name of the agent's user; in a container it may have no entry."""
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:
        return "/tmp", str(os.getuid())  # noqa: S108 - a home that every user can write to
    return entry.pw_dir, entry.pw_name
