"""Build images with a Docker command line that knows BuildKit."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from launch_prefect import dockerpy
from launch_prefect.errors import BuildFailed, LaunchError
from launch_prefect.images import engine
from launch_prefect.images.processes import Ended, Log, allowed_environment, run
from launch_prefect.scratch import scratch
from launch_prefect.settings import LaunchSettings, get_settings
from launch_prefect.sources.disk import disk_full

# What the client itself needs; the rest of the agent's environment is none of its business.
_CLIENT = (
    "DOCKER_API_VERSION", "DOCKER_CERT_PATH", "DOCKER_CONFIG", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "SSH_AUTH_SOCK",
)  # fmt: skip
_VERTEX = re.compile(r"#(?P<number>\d+) (?:\d+\.\d+ )?(?P<text>.*)")
_NOISE = re.compile(r"------| > \[|#\d+ (sha256:|\d+\.\d+ \[notice\]|transferring |\d+\.\d+\s*(?:━.*)?$)|\s*$")
_SHOWN = 15
_STEP_SHOWN = 240


@dataclass(frozen=True, slots=True)
class Client:
    """A Docker client that can build with BuildKit.

    Attributes:
        command: Words of its build command.
        env: What it needs in its environment to use BuildKit.
    """

    command: tuple[str, ...]
    env: dict[str, str] = field(default_factory=dict)


async def find_client() -> Client:
    """The first on PATH that has the buildx plugin, else the first that is old enough to have BuildKit inside.

    Raises:
        LaunchError: There is none.
    """
    found = _on_path("docker")
    for program in found:
        if (await _ask(program, "buildx", "version")).code == 0:
            # "default" builds on the engine itself, where the environment's image is.
            command = (program, "buildx", "build", "--builder", "default", "--load")
            return Client(command, {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"})
    for program in found:
        version = re.search(r"Docker version (\d+)\.", "\n".join((await _ask(program, "--version")).lines))
        if version and 20 <= int(version[1]) < 23:  # later ones leave BuildKit to the plugin
            return Client((program, "build"), {"DOCKER_BUILDKIT": "1"})
    seen = f"of {', '.join(found)} none has it" if found else "there is no docker command on PATH"
    raise LaunchError(
        f"No Docker client that can build with BuildKit: {seen}.",
        mend="Install Docker's buildx plugin (package docker-buildx-plugin or docker-buildx).",
    )


def _on_path(name: str) -> list[str]:
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    found = [program for folder in folders if folder and (program := shutil.which(name, path=folder))]
    return list({os.path.realpath(program): program for program in reversed(found)}.values())[::-1]


async def _ask(program: str, *words: str) -> Ended:
    try:
        return await run([program, *words], env=_environment({}), log=lambda line: None)
    except OSError as error:  # a file of that name that is no program for this machine
        return Ended(127, (str(error),))


def _environment(extra: dict[str, str]) -> dict[str, str]:
    # The same engine that docker-py talks to, whatever context the client has selected.
    return allowed_environment(_CLIENT) | {"DOCKER_HOST": engine.address()} | extra


class DockerBuilder:
    """Builds on the Docker engine of this machine.

    Args:
        settings: Where temporary files are put, credentials among them. Default: this process's.
    """

    def __init__(self, settings: LaunchSettings | None = None) -> None:
        self._settings = settings or get_settings()
        self._client: Client | None = None

    async def build(
        self,
        context: Path,
        dockerfile: str,
        tag: str,
        *,
        secrets: dict[str, Path],
        labels: dict[str, str],
        log: Log,
        platform: str | None = None,
        no_cache: bool = False,
        credentials: engine.Credentials | None = None,
    ) -> str:
        """Build an image. When the task is cancelled, the build is stopped and leaves no image.

        Args:
            context: Folder that the Dockerfile copies from.
            dockerfile: Text of the Dockerfile.
            tag: Name of the image.
            secrets: Build secrets by id, each a file; their content enters no layer.
            labels: Labels of the image.
            log: Takes the lines of the build's output.
            platform: Platform of the image, such as `linux/arm64`; None is the engine's.
            no_cache: Carry out every step, though its result is known.
            credentials: For base images of their registry, beside this machine's own `docker login`.

        Returns:
            The image's id, `sha256:…`.

        Raises:
            BuildFailed: A step failed; the message has the step and its last lines.
            DiskFull: No space is left where the engine keeps images.
            Unreachable: The engine does not answer.
            LaunchError: There is no client that can build.
        """
        if self._client is None:
            self._client = await find_client()
        with tempfile.TemporaryDirectory(prefix="build-", dir=scratch(self._settings)) as folder:
            file, id_file = Path(folder) / "Dockerfile", Path(folder) / "id"
            await asyncio.to_thread(file.write_text, dockerfile)
            options = ["--progress", "plain", "--file", str(file), "--iidfile", str(id_file), "--tag", tag]
            options += ["--platform", platform] if platform else []
            options += ["--no-cache"] if no_cache else []
            for name, path in secrets.items():
                options += ["--secret", f"id={name},src={path}"]
            for name, value in labels.items():
                options += ["--label", f"{name}={value}"]
            env = _environment(self._client.env)
            if credentials:
                env["DOCKER_CONFIG"] = await asyncio.to_thread(_config_with, credentials, Path(folder) / "config")
            output = _Output(log)
            ended = await run([*self._client.command, *options, str(context)], env=env, log=output.take)
            if ended.code != 0:
                if not output.failed:
                    await asyncio.to_thread(engine.platform)  # raises where the engine has gone
                raise _failure(ended, output, tag)
            return (await asyncio.to_thread(id_file.read_text)).strip()


def _config_with(credentials: engine.Credentials, folder: Path) -> str:
    """A client's configuration as this machine's, with one more registry; the file is nobody else's to read."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    folder.mkdir(mode=0o700)
    try:
        config = json.loads((own / "config.json").read_text())
    except (OSError, ValueError):
        config = {}
    address, user, password = credentials
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    hub = dockerpy.docker.auth.INDEX_NAME
    host = dockerpy.docker.auth.resolve_index_name(dockerpy.docker.auth.convert_to_hostname(address))
    auths = {**config.get("auths", {}), dockerpy.docker.auth.INDEX_URL if host == hub else host: {"auth": login}}
    helpers = {name: helper for name, helper in config.get("credHelpers", {}).items() if name != host}
    file = folder / "config.json"
    file.touch(mode=0o600)
    # A store of credentials would be asked instead of what stands here.
    rest = {name: value for name, value in config.items() if name != "credsStore"}
    file.write_text(json.dumps({**rest, "auths": auths, "credHelpers": helpers}))
    if (own / "cli-plugins").is_dir():  # buildx may be there
        (folder / "cli-plugins").symlink_to((own / "cli-plugins").resolve())
    return str(folder)


class _Output:
    """Passes lines on without BuildKit's noise and remembers, step by step, what a failure has to show."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._steps: dict[str, str] = {}
        self._lines: dict[str, deque[str]] = {}
        self.failed = ""

    def take(self, line: str) -> None:
        if _NOISE.match(line):
            return
        line = _for_people(line)
        match = _VERTEX.match(line)
        if match is None:
            self._log(line)
            return
        number, text = match["number"], match["text"]
        self._steps.setdefault(number, text)
        failed = text.startswith("ERROR: ") and line.startswith(f"#{number} ERROR")
        # What BuildKit does for itself is no step of the Dockerfile.
        if failed or not self._steps[number].startswith("[internal]"):
            self._log(line)
        if failed:
            self.failed = number
        elif self._steps[number] is not text:
            self._lines.setdefault(number, deque(maxlen=_SHOWN)).append(text)

    @property
    def step(self) -> str:
        """The step that failed, shortened; empty where none did."""
        return self._steps.get(self.failed, "")[:300]

    def shown(self) -> str:
        """The last lines of the step that failed."""
        return "\n".join(self._lines.get(self.failed, ()))


def _for_people(line: str) -> str:
    """A line without what our own RUN begins with, and no step told at such length that what it does is lost."""
    line = re.sub(r"--mount=type=(cache|secret),id=\S+\s+", "", line)
    line = re.sub(r"export PIP_BREAK.*?; fi\s+&& ", "", line)
    line = re.sub(r"executor failed running \[.*\]: (?=exit code)", "", line)
    step = re.match(r"#\d+ \[.*?\] RUN ", line)
    return f"{line[:_STEP_SHOWN]} …" if step and len(line) > _STEP_SHOWN else line


def _failure(ended: Ended, output: _Output, tag: str) -> LaunchError:
    if ended.disk_full:
        return disk_full("the Docker engine")
    if output.failed and output.shown():
        return BuildFailed(
            f"The image could not be built. It stopped at {output.step}:\n{output.shown()}\n",
            mend="Correct what the lines above name; the whole output is in the run's logs.",
        )
    return BuildFailed(
        f"The image {tag} could not be built (exit code {ended.code}):\n{ended.last(_SHOWN)}\n",
        mend="The whole output is in the run's logs.",
    )
