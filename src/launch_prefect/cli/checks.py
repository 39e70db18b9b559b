"""The checks of `doctor`; each is a function that returns what it found and never raises."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from launch_prefect.cli.output import ago, size
from launch_prefect.errors import LaunchError, Unreachable

if TYPE_CHECKING:
    from launch_prefect.client import Queue
    from launch_prefect.settings import LaunchSettings

Level = Literal["ok", "warning", "problem", "unreachable"]

_FREE_WARNING = 5 * 1024**3
_FREE_PROBLEM = 500 * 1024**2
_SKEW_SECONDS = 5.0
_PATIENCE = 15.0


@dataclass(frozen=True)
class Check:
    """What one check found.

    Attributes:
        name: What was checked.
        level: Whether it would stop a run.
        message: What was found.
        mend: What to do about it.
    """

    name: str
    level: Level
    message: str
    mend: str = ""


async def all_checks(queue: str | None) -> list[Check]:
    """Every check that matters for runs of a queue, or of every queue there is."""
    from launch_prefect.cli import build_checks
    from launch_prefect.settings import get_settings

    settings = get_settings()
    found = await _server(settings)
    if any(check.level == "unreachable" for check in found):
        return found + await _machine(settings, None)
    checked, queues = await _queues(queue)
    found += checked + await build_checks.builders(queues, chosen=queue is not None)
    return found + await _machine(settings, queues if queue is not None else None, known=queues)


async def _machine(settings: LaunchSettings, only: Sequence[Queue] | None, known: Sequence[Queue] = ()) -> list[Check]:
    """What runs need of this machine: those of some queues, or of any."""
    from launch_prefect.cli import build_checks

    found = [
        await guarded("disk", lambda: asyncio.to_thread(_disk, settings)),
        await guarded("code store", lambda: asyncio.to_thread(_code_store, settings)),
        await guarded("git", lambda: asyncio.to_thread(build_checks.git)),
    ]
    docker = any(queue.target == "docker" for queue in known)
    builds = any(build_checks.builds_images(queue) for queue in known)
    if only is None or any(queue.target == "process" for queue in only):
        found.append(await guarded("uv", lambda: asyncio.to_thread(_uv)))
    if only is None or docker:
        found.append(await guarded("docker engine", lambda: _engine(needed=docker)))
        found.append(await guarded("credentials", lambda: asyncio.to_thread(_credentials)))
    if only is None or builds:
        found.append(await guarded("image builds", lambda: _builds(needed=builds)))
    return found


async def guarded(name: str, check: Callable[[], Awaitable[Check]]) -> Check:
    """What a check finds; one that breaks or takes too long is a finding itself."""
    try:
        return await asyncio.wait_for(check(), _PATIENCE)
    except TimeoutError:
        return Check(name, "problem", f"No answer within {_PATIENCE:g} s.")
    except LaunchError as error:
        return Check(name, "problem", error.message, error.mend)
    except Exception as error:
        return Check(name, "problem", f"{type(error).__name__}: {error}")


async def _server(settings: LaunchSettings) -> list[Check]:
    from launch_prefect.server.connect import ensure_reachable, resolve_api_url

    url = resolve_api_url(settings)
    try:
        await ensure_reachable(url, timeout=8)
    except Unreachable as error:
        return [Check("server", "unreachable", error.message, error.mend)]
    import prefect

    from launch_prefect.client.api import connect

    try:
        async with connect() as client:
            before = time.time()
            response = await client.request("GET", "/admin/version")
            after = time.time()
    except LaunchError as error:
        return [Check("server", "unreachable", error.message, error.mend)]
    return [
        _version(str(url), str(response.json()), prefect.__version__),
        _clock(response.headers.get("date"), before, after),
    ]


def _version(url: str, theirs: str, ours: str) -> Check:
    from packaging.version import InvalidVersion, Version

    try:
        server, client = Version(theirs), Version(ours)
    except InvalidVersion:
        return Check("server", "ok", f"Prefect at {url} answers.")
    if server.major != client.major:
        return Check(
            "server",
            "problem",
            f"Prefect {theirs} at {url} does not understand Prefect {ours} here.",
            f"Install the same major version: pip install 'prefect=={theirs}' here, or {ours} there.",
        )
    if server < client:
        return Check(
            "server",
            "warning",
            f"Prefect {theirs} at {url} is older than Prefect {ours} here.",
            f"Bring the server to {ours} or later.",
        )
    return Check("server", "ok", f"Prefect {theirs} at {url} answers.")


def _clock(date: str | None, before: float, after: float) -> Check:
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return Check("clock", "ok", "The server does not tell its time.")
    # The header has whole seconds: the server's clock was within [theirs, theirs + 1).
    skew = theirs - after if theirs > after else min(theirs + 1 - before, 0.0)
    if abs(skew) <= _SKEW_SECONDS:
        return Check("clock", "ok", "This machine and the server agree about the time.")
    which = "behind" if skew > 0 else "ahead of"
    return Check(
        "clock",
        "warning",
        f"This machine's clock is {abs(skew):.0f} s {which} the server's.",
        "Synchronise both with NTP; times in logs and durations are wrong until then.",
    )


async def _queues(named: str | None) -> tuple[list[Check], list[Queue]]:
    from launch_prefect.client import Queue

    try:
        queues = [await Queue(named).aload()] if named else await Queue.alist()
        found = [await _queue(queue, chosen=named is not None) for queue in queues]
    except LaunchError as error:
        return [Check("queue", "problem", error.message, error.mend)], []
    if not queues:
        mend = "Make one: `prefect-launch queue create NAME --target docker`."
        return [Check("queue", "warning", "There are no queues yet.", mend)], []
    return found, queues


async def _queue(queue: Queue, *, chosen: bool) -> Check:
    """Without a queue chosen, one that is paused or not served is no reason why nothing could run."""
    name = f"queue {queue.name}"
    bad: Level = "problem" if chosen else "warning"
    if queue.paused:
        return Check(name, bad, "It is paused.", f"`prefect-launch queue resume {queue.name}`.")
    if queue.concurrency == 0:
        return Check(name, bad, "Its limit is 0 runs at once.", "Raise its concurrency limit in the Prefect UI.")
    workers = await queue.aworkers()
    alive = [worker.name for worker in workers if worker.status == "ONLINE"]
    if not alive:
        last = max((worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time), default=None)
        heard = f"; the last was heard of {ago(last)}" if last else ""
        return Check(name, bad, f"No agent serves it{heard}.", f"Start one: `prefect-launch agent -q {queue.name}`.")
    return Check(name, "ok", f"Target {queue.target}, served by {', '.join(sorted(alive))}.")


def _disk(settings: LaunchSettings) -> Check:
    mend = "Free some space, or set LAUNCH_HOME to a folder on a larger disk."
    try:
        home = settings.folder()
        with tempfile.TemporaryFile(dir=home) as file:
            file.write(b"doctor")
            file.flush()
        free = shutil.disk_usage(home).free
    except OSError as error:
        return Check("disk", "problem", f"{settings.home} cannot be written: {error.strerror}.", mend)
    if free < _FREE_WARNING:
        level: Level = "problem" if free < _FREE_PROBLEM else "warning"
        return Check("disk", level, f"Only {size(free)} are free in {home}.", mend)
    return Check("disk", "ok", f"{size(free)} are free in {home}.")


def _code_store(settings: LaunchSettings) -> Check:
    import fsspec

    url = settings.code_store_url
    mend = "Set LAUNCH_CODE_STORE to a place that you can write."
    try:
        store, path = fsspec.url_to_fs(url)
        store.makedirs(path, exist_ok=True)
        probe = f"{path.rstrip('/')}/.doctor-{uuid.uuid4().hex}"
        store.pipe_file(probe, b"doctor")
        store.rm_file(probe)
    except ImportError as error:
        return Check("code store", "problem", f"{url} needs a package that is not installed: {error}.", mend)
    except Exception as error:  # every storage has errors of its own
        return Check("code store", "problem", f"{url} cannot be written: {error}.", mend)
    return Check("code store", "ok", f"{url} can be written.")


def _uv() -> Check:
    import uv

    try:
        return Check("uv", "ok", f"It is at {uv.find_uv_bin()}.")
    except FileNotFoundError:
        return Check("uv", "problem", "uv is not installed; it builds the environments.", "`pip install uv`.")


async def _engine(*, needed: bool) -> Check:
    from launch_prefect.images import engine

    try:
        platform = await asyncio.to_thread(engine.platform)
    except Unreachable as error:
        return Check("docker engine", "unreachable" if needed else "warning", error.message, error.mend)
    return Check("docker engine", "ok", f"It answers at {engine.address()} ({platform}).")


async def _builds(*, needed: bool) -> Check:
    from launch_prefect.images.builders.docker import find_client

    try:
        client = await find_client()
    except LaunchError as error:
        return Check("image builds", "problem" if needed else "warning", error.message, error.mend)
    return Check("image builds", "ok", f"With BuildKit, by `{' '.join(client.command)}`.")


def _credentials() -> Check:
    """Credentials of registries, as `docker login` keeps them; none is needed for public images."""
    name = "credentials"
    folder = os.environ.get("DOCKER_CONFIG")
    file = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    try:
        config = json.loads(file.read_text())
    except FileNotFoundError:
        return Check(name, "ok", "None for private registries; `docker login REGISTRY` adds some.")
    except (OSError, ValueError) as error:
        return Check(name, "warning", f"{file} cannot be read: {error}.", "Correct it, or log in again.")
    if not isinstance(config, dict):
        return Check(name, "warning", f"{file} is no Docker configuration.", "Correct it, or log in again.")
    registries = {*_mapping(config, "auths"), *_mapping(config, "credHelpers")}
    helpers = {str(config["credsStore"])} if config.get("credsStore") else set()
    helpers |= {str(helper) for helper in _mapping(config, "credHelpers").values()}
    missing = sorted(helper for helper in helpers if not shutil.which(f"docker-credential-{helper}"))
    if missing:
        programs = ", ".join(f"docker-credential-{helper}" for helper in missing)
        return Check(
            name, "warning", f"{file} asks for {programs}, which is not on PATH.", "Install it, or log in without it."
        )
    known = ", ".join(sorted(registries)) or "no registry"
    return Check(name, "ok", f"For {known}, in {file}.")


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key)
    return value if isinstance(value, dict) else {}
