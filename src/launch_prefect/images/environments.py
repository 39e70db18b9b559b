"""Virtual environments of the process target: built once per content by uv, and kept."""

from __future__ import annotations

import asyncio
import json
import os
import platform
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import uv
from filelock import AsyncFileLock
from packaging.specifiers import SpecifierSet

from launch_prefect.errors import BuildFailed, InvalidInput, LaunchError
from launch_prefect.images import conda, plan
from launch_prefect.images.detect import NOTHING_SAID, Environment, detect
from launch_prefect.images.housekeeping.folders import Folders
from launch_prefect.images.housekeeping.usage import Usage
from launch_prefect.images.processes import Ended, Log, allowed_environment, run
from launch_prefect.images.sharing import Build, OnBuild, SharedBuilds
from launch_prefect.naming import digest_hex
from launch_prefect.scratch import scratch
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.disk import disk_full, needing_space
from launch_prefect.spec.build import BuildSpec

_PASSED = frozenset(
    {
        "CONDA_OVERRIDE_CUDA", "CONDA_OVERRIDE_GLIBC", "RATTLER_CACHE_DIR",
        "PIP_CERT", "PIP_DEFAULT_TIMEOUT", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_INDEX_URL", "PIP_NO_INDEX",
        "PIP_TRUSTED_HOST",
        "REQUESTS_CA_BUNDLE", "SSL_CERT_DIR", "SSL_CERT_FILE", "XDG_CACHE_HOME",
        "UV_CACHE_DIR", "UV_LINK_MODE", "UV_OFFLINE", "UV_PYTHON_INSTALL_DIR", "UV_PYTHON_PREFERENCE",
        "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_STRATEGY", "UV_INDEX_URL",
        "UV_NO_INDEX", "UV_HTTP_TIMEOUT", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
    }
)  # fmt: skip
"""What uv gets of the agent's environment beside proxies and `UV_CONCURRENT_…`.

Build backends of dependencies see it, so nothing is here that exists to hold a password or a token
(`UV_PUBLISH_TOKEN`, `UV_INDEX_…_PASSWORD`).
"""
NO_SECRETS: Mapping[str, str] = MappingProxyType({})
_NETRC = "NETRC"
_READY = ".ready"
_SHOWN = 15


@dataclass(frozen=True, slots=True)
class ProcessEnvironment:
    """A virtual environment that a job's process runs in.

    Attributes:
        path: Its folder.
        bin: The folder of its programs, `python` among them.
        key: What determines it, `sha256:…`.
        built: Whether it was built just now.
        reason: Why it was built or not, as a sentence for the log.
    """

    path: Path
    bin: Path
    key: str
    built: bool
    reason: str


_builds: SharedBuilds[ProcessEnvironment] = SharedBuilds()


async def ensure_environment(
    code: Path,
    *,
    code_digest: str,
    settings: LaunchSettings,
    log: Log,
    on_build: OnBuild,
    build: BuildSpec = NOTHING_SAID,
    command: Sequence[str] | None = None,
    secrets: Mapping[str, str] = NO_SECRETS,
    rebuild: bool = False,
    timeout: float | None = None,
) -> ProcessEnvironment:
    """The virtual environment of a job's code, built if this machine does not have it.

    Args:
        code: The unpacked code.
        code_digest: Its digest, for messages; a change of code alone leads to the same environment.
        settings: Where state is kept, and the CA bundle of package indexes.
        log: Takes what the user should know of the choice, and the lines of the installer's output.
        on_build: Awaited once when something has to be built.
        build: The job's part in how it is built.
        command: The job's command.
        secrets: Build secrets, name → value: environment variables of the installer alone.
        rebuild: Build it even if it is here. What runs in the one that is here keeps it; one that nothing runs in,
            and that nothing was to run in lately, is removed.
        timeout: Seconds that the build may take; None for as long as it needs.

    Returns:
        The environment.

    Raises:
        BuildFailed: The requirements do not resolve, this machine lacks the Python that the code asks for, or it
            took too long.
        InvalidInput: A dependency file is not valid, or the job cannot be built without an engine for images.
        NotFound: A requirements file includes one that is not there.
        DiskFull: No space is left.
    """
    environment = await asyncio.to_thread(detect, code, build=build, command=command, dockerfiles=False)
    for note in environment.notes:
        log(note)
    python, version = _interpreter(environment)
    host = f"{sys.platform}/{platform.machine()}"
    # Not the whole of `build`: what an image alone has (its user, its packages) leads to no other environment.
    key = plan.environment_key(environment, base=f"python {version}", platform=host)
    with needing_space(settings.home):
        path = settings.folder("envs") / digest_hex(key)
    ready = None if rebuild else _ready(path, key, environment)
    if ready is not None:
        return ready

    async def work(building: Build) -> ProcessEnvironment:
        async with AsyncFileLock(path.with_suffix(".lock"), run_in_executor=False):
            # another process may have built it meanwhile
            if not rebuild and (ready := _ready(path, key, environment)) is not None:
                return ready
            building.begin()
            building.log(f"Building the environment of {code_digest[:19]}: {environment.reason}")
            folder = _next_folder(path)
            builder = _Builder(environment, python, folder, settings, building.log, secrets)
            await _in_time(builder.build(), timeout)
        if rebuild:
            await asyncio.to_thread(Folders(settings, Usage(settings)).remove_superseded, time.time())
        return _environment(folder, key, True, f"{environment.reason}: environment built.")

    # Who has other secrets does not share a refusal, and who wants it new does not share what is here.
    shared = f"{path}\n{rebuild}\n{hash(frozenset(secrets.items()))}"
    return await _builds.run(shared, work, log=log, on_build=on_build)


def _environment(path: Path, key: str, built: bool, reason: str) -> ProcessEnvironment:
    return ProcessEnvironment(path, path / "bin", key, built, reason)


def _ready(path: Path, key: str, environment: Environment) -> ProcessEnvironment | None:
    """The newest of the key that is whole, or None. It is used from now on, as house-keeping reads its time."""
    found = next((folder for folder in reversed(_folders(path)) if _is_ready(folder)), None)
    if found is None:
        return None
    with suppress(OSError):
        os.utime(found / _READY)
    return _environment(found, key, False, f"{environment.reason}: the environment is here already.")


def _folders(path: Path) -> list[Path]:
    """Folders of a key, oldest first: the first has its name alone, those built again have a number."""
    numbered = {int(folder.suffix[1:]): folder for folder in path.parent.glob(f"{path.name}.*") if _has_number(folder)}
    return [path, *(numbered[number] for number in sorted(numbered))]


def _has_number(folder: Path) -> bool:
    return folder.suffix[1:].isdecimal()


def _next_folder(path: Path) -> Path:
    """Where to build: never in a folder that is whole, because runs may be in it."""
    last = _folders(path)[-1]
    if not _is_ready(last):
        return last
    return path.with_suffix(f".{int(last.suffix[1:] or 1) + 1}")


async def _in_time(work: Coroutine[None, None, None], timeout: float | None) -> None:
    try:
        async with asyncio.timeout(timeout) as limit:
            await work
    except TimeoutError:
        if not limit.expired():
            raise
        raise BuildFailed(
            f"The environment was not built within {timeout:g} s, which is the queue's builder.timeout.",
            mend="Raise the queue's builder.timeout, or ask for less to be installed.",
            passing=True,
        ) from None


def _is_ready(path: Path) -> bool:
    # The interpreter it stands on may have been removed since: its link then leads nowhere. (One of conda need not
    # have a Python.)
    python = path / "bin" / "python"
    return (path / _READY).is_file() and (python.exists() or not python.is_symlink())


def _interpreter(environment: Environment) -> tuple[str, str]:
    """What to ask uv for, and the version for the key: the agent's own interpreter wherever it will do."""
    own = platform.python_version()
    exact = environment.python if environment.requires_python is None else None
    if exact is not None and not f"{own}.".startswith(f"{exact}."):
        return exact, exact
    wanted = environment.requires_python
    if wanted is not None and not SpecifierSet(wanted).contains(own, prereleases=True):
        return wanted, wanted
    return sys.executable, ".".join(own.split(".")[:2])


class _Builder:
    """One build of an environment, in the folder where it will be used: environments cannot be moved."""

    def __init__(
        self,
        environment: Environment,
        python: str,
        path: Path,
        settings: LaunchSettings,
        log: Log,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> None:
        self._environment, self._python, self._path, self._log = environment, python, path, log
        self._netrc = secrets.get(_NETRC)
        self._uv = uv.find_uv_bin()
        self._env = allowed_environment(_PASSED, prefixes=("UV_CONCURRENT_",))
        self._env |= {name: value for name, value in secrets.items() if name != _NETRC}
        for name in ("INDEX_URL", "EXTRA_INDEX_URL"):  # uv reads no variable of pip's, but means the same by its own
            if f"PIP_{name}" in secrets:
                self._env.setdefault(f"UV_{name}", secrets[f"PIP_{name}"])
        self._env |= {
            "UV_BREAK_SYSTEM_PACKAGES": "1",  # that is what some Pythons of conda say of themselves
            "UV_PROJECT_ENVIRONMENT": str(path),
            "UV_PYTHON_DOWNLOADS": "never",
            "VIRTUAL_ENV": str(path),
        }
        self._settings = settings
        if settings.ca_bundle is not None:
            if not settings.ca_bundle.is_file():
                raise InvalidInput(f"There is no CA bundle {settings.ca_bundle}.", mend="Correct LAUNCH_CA_BUNDLE.")
            self._env["SSL_CERT_FILE"] = str(settings.ca_bundle.resolve())

    async def build(self) -> None:
        """Make it, install into it, and mark it as ready last; what fails leaves nothing."""
        try:
            with needing_space(self._path.parent):
                await asyncio.to_thread(self._clear)
                with (
                    _folder_of(self._environment, self._settings) as folder,
                    _netrc_file(self._netrc, self._settings) as netrc,
                ):
                    self._env |= netrc
                    await self._make(folder)
                    await self._install(folder)
                (self._path / _READY).touch()
        except BaseException:
            await asyncio.to_thread(self._clear)
            raise

    def _clear(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)

    async def _make(self, folder: Path) -> None:
        if self._environment.kind == "conda":
            return  # it brings its own Python
        ended = await self._run(folder, "venv", "--no-project", "--python", self._python, str(self._path))
        if ended.code == 0:
            return
        if self._python == sys.executable or ended.disk_full:
            raise self._failure(ended, "The virtual environment could not be made")
        raise BuildFailed(
            f"The job asks for Python {self._python}, which this machine does not have; "
            f"it has {', '.join(await self._installed(folder))}.",
            mend="Install that version on the agent's machine (`uv python install` does), or change "
            ".python-version or requires-python.",
            passing=True,
        )

    async def _installed(self, folder: Path) -> list[str]:
        ended = await run(
            [self._uv, "python", "list", "--only-installed", "--output-format", "json"],
            env=self._env,
            cwd=folder,
            log=lambda line: None,
        )
        listing = next((line for line in ended.lines if line.startswith("[")), "[]")
        return sorted({platform.python_version(), *(entry["version"] for entry in json.loads(listing))})

    async def _install(self, folder: Path) -> None:
        python = ["--python", str(self._path / "bin" / "python")]
        if self._environment.kind == "conda":
            # py-rattler, which the program needs, is kept in uv's cache.
            program = ["--no-project", "--python", sys.executable, "--script", conda.SCRIPT]
            await self._must(folder, "run", "--quiet", *program, conda.SPEC, str(self._path))
        match self._environment.kind:
            case "uv":
                skipped = ["--no-install-project", "--no-install-workspace", "--no-dev"]
                words = ["sync", "--frozen", *skipped, *python]
            case "pyproject":
                words = ["pip", "install", *python, "-r", "pyproject.toml"]
            case "requirements":
                words = ["pip", "install", *python, "-r", "requirements.txt"]
            case "conda" if conda.PIP in self._environment.files:
                words = ["pip", "install", *python, "-r", conda.PIP]
            case _:
                return
        await self._must(folder, *words)

    async def _must(self, folder: Path, *words: str) -> None:
        ended = await self._run(folder, *words)
        if ended.code != 0:
            what = f"The dependencies could not be installed ({self._environment.reason})"
            raise self._failure(ended, f"{what}. It stopped at uv {shlex.join(words)}")

    async def _run(self, folder: Path, *words: str) -> Ended:
        options = ["--no-progress", "--color", "never"]
        return await run([self._uv, words[0], *options, *words[1:]], env=self._env, cwd=folder, log=self._log)

    def _failure(self, ended: Ended, what: str) -> LaunchError:
        if ended.disk_full:
            return disk_full(self._path.parent)
        return BuildFailed(
            f"{what}:\n{ended.last(_SHOWN)}\n",
            mend="Correct what the lines above name; the whole output is in the run's logs.",
        )


@contextmanager
def _netrc_file(content: str | None, settings: LaunchSettings) -> Iterator[dict[str, str]]:
    """The variable that leads to a `.netrc` of this content, which is there for as long as the build."""
    if content is None:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="secret-", dir=scratch(settings)) as name:  # for this user alone
        file = Path(name) / "netrc"
        file.write_text(content)
        yield {_NETRC: str(file)}


@contextmanager
def _folder_of(environment: Environment, settings: LaunchSettings) -> Iterator[Path]:
    """A folder with the dependency files alone, so that uv writes nothing beside the code."""
    with tempfile.TemporaryDirectory(prefix="environment-", dir=scratch(settings)) as name:
        folder = Path(name)
        for path, content in environment.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        yield folder
