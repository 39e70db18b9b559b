"""Our side of `build.py`: a system, a registry behind a counting proxy, and what one run took and caused."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from docker import DockerClient
from docker.errors import ImageNotFound
from prefect.blocks.system import Secret
from tests.e2e.system import System
from tests.testbed import registry as registries
from tests.testbed.registry_proxy import Proxy

from launch_prefect import Job, Queue, Run, naming
from launch_prefect.client.api import connect, wait_for
from launch_prefect.images.builders.docker import Client, find_client
from launch_prefect.images.registry import Reference
from launch_prefect.images.shell import CA_SECRET
from launch_prefect.settings import get_settings

PLAIN, KEPT = "bench-plain", "bench-kept"
"""Queues that the agent of `up` serves: of the engine alone, and with a registry."""
COMMAND = ["python", "train.py"]
CODE_BYTES = 1_000_000  # as a repository has them beside its code: a change has a layer worth pushing
SECONDS_OF_A_RUN = 900
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CACHE = "/var/cache/launch-prefect"  # where the cache of generated Dockerfiles is mounted; its id is launch-prefect


class Failed(Exception):
    """What was to be measured did not work; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Caused:
    """What one run took and caused.

    Attributes:
        seconds: From Pending to the start of its container.
        built: Names of the images that were built.
        sent: Bytes that went to the registry, requests and all.
        image: What the run's container was started from.
    """

    seconds: float
    built: tuple[str, ...]
    sent: int
    image: str


class Folder:
    """A folder of code that nobody has seen before, with dependencies.

    Args:
        path: Where it is made.
        requirements: What it needs, as `requirements.txt` has it.
    """

    def __init__(self, path: Path, requirements: Sequence[str]) -> None:
        path.mkdir()
        self.path = path
        self.name = path.name
        self._count = 0
        # Content of its own, so that nothing of an earlier measurement is found.
        lines = [f"# {uuid.uuid4().hex}", *requirements]
        (path / "requirements.txt").write_text("\n".join(lines) + "\n")
        (path / "vocabulary.bin").write_bytes(os.urandom(CODE_BYTES))
        self.change()

    def change(self) -> None:
        """Change one line of its code."""
        self._count += 1
        (self.path / "train.py").write_text(f"import sys\n\nVERSION = {self._count}\nsys.exit(0)\n")


class Calls:
    """A `docker` for our agents that writes down what it is called with, and then is the real one.

    Args:
        folder: Where it is made.
        program: The real one.
    """

    def __init__(self, folder: Path, program: str) -> None:
        folder.mkdir()
        self._log = folder / "calls"
        self._log.touch()
        script = folder / "docker"
        log, real = shlex.quote(str(self._log)), shlex.quote(program)
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{log}\nexec {real} "$@"\n')
        script.chmod(0o755)
        self.path = f"{folder}{os.pathsep}{os.environ['PATH']}"

    def built(self) -> list[str]:
        """The names of all images that were built so far, one for each build."""
        calls = [line.split() for line in self._log.read_text().splitlines()]
        return [words[words.index("--tag") + 1] for words in calls if "build" in words[:2] and "--tag" in words]


@dataclass
class Bench:
    """A running system with what its measurements need.

    Attributes:
        folder: Where everything is kept.
        base_image: What all images stand on.
        client: The Docker client that builds, for us and for the peer alike.
        engine: The engine.
        system: The system.
        registry: Its registry.
        proxy: The way to it that everybody uses.
        calls: What our agents have asked Docker's client for.
        env: What our agents have in their environment beside the system's own.
        at_end: Takes what is to be done before the system ends.
    """

    folder: Path
    base_image: str
    client: Client
    engine: DockerClient
    system: System
    registry: registries.Registry
    proxy: Proxy
    calls: Calls
    env: Mapping[str, str]
    at_end: ExitStack
    _mounts: list[str] = field(default_factory=list)

    @property
    def program(self) -> str:
        """Docker's own command line."""
        return self.client.command[0]

    def new_folder(self, requirements: Sequence[str]) -> Folder:
        """A folder of code that nobody has seen before."""
        return Folder(self.folder / f"bench-{uuid.uuid4().hex[:12]}x", requirements)

    def cold_job(self, code: Folder) -> Job:
        """A job whose environment is installed with a cache that has nothing in it yet."""
        cache = f"{_CACHE}/{code.name}"
        wait_for(_save(code.name, cache))
        self._mounts.append(code.name)
        return Job.from_code(code.path, entrypoint=COMMAND, build={"secrets": {"PIP_CACHE_DIR": f"secret/{code.name}"}})

    def run(self, job: Job, queue: str) -> Caused:
        """One run, to its end."""
        before, sent = len(self.calls.built()), self.proxy.sent
        run = Queue(queue).submit(job)
        ended([run])
        pending = _pending(run)
        seconds = self.started({"label": f"{naming.LABEL_RUN_ID}={run.id}"}, pending) - pending
        built = tuple(self.calls.built()[before:])
        return Caused(seconds, built, self.proxy.sent - sent, str(run.facts["image"]))

    def submit_and_run(self, code: Folder, queue: str) -> Caused:
        """One run of a folder as it is now, to its end."""
        return self.run(Job.from_code(code.path, entrypoint=COMMAND), queue)

    def started(self, which: Mapping[str, str], since: float) -> float:
        """When a container was started, by the clock that all use, from the engine's own record.

        Args:
            which: A filter that only this container passes.
            since: A moment before.

        Raises:
            Failed: The engine does not know.
        """
        filters = {"event": "start", "type": "container", **which}
        events = self.engine.events(since=int(since) - 1, until=f"{time.time():.6f}", filters=filters, decode=True)
        found = [event["timeNano"] / 1e9 for event in events]
        if len(found) != 1:
            raise Failed(f"The engine has {len(found)} records of the start of the container with {dict(which)}.")
        return float(found[0])

    def layers(self, image: str) -> dict[str, int]:
        """Compressed sizes of the layers of an image in the registry, by their digests."""
        name = Reference.parse(image)
        url = f"http://{self.registry.address}/v2/{name.repository}/manifests/{name.version}"
        answer = httpx.get(url, headers={"Accept": _MANIFEST}, trust_env=False).raise_for_status()
        return {layer["digest"]: layer["size"] for layer in answer.json()["layers"]}

    def size(self, image: str) -> int:
        """Bytes that an image takes unpacked."""
        return int(self.engine.images.get(image).attrs["Size"])

    def remove(self, images: Sequence[str]) -> None:
        """Remove images, whatever else they are called."""
        for image in images:
            try:
                self.engine.images.remove(self.engine.images.get(image).id, force=True)
            except ImageNotFound:
                continue

    def empty_cache(self, mount: str, folder: str = "") -> None:
        """Take what was left in a cache of builds out of it.

        Args:
            mount: Id of the cache.
            folder: Only this folder in it. Default: everything.
        """
        (context := self.folder / f"empty-{uuid.uuid4().hex}").mkdir()
        what = f"/cache/{folder}" if folder else "/cache/* /cache/.[!.]*"
        text = f"FROM {self.base_image}\nRUN --mount=type=cache,id={mount},target=/cache rm -rf {what}\n"
        (context / "Dockerfile").write_text(text)
        words = [*self.client.command, "--no-cache", "--iidfile", str(context / "id"), str(context)]
        done = subprocess.run(words, env=os.environ | self.client.env, capture_output=True, check=False)
        if done.returncode == 0:
            self.remove([(context / "id").read_text().strip()])

    def clean(self) -> None:
        """Remove the images that our agents have built, and what was downloaded for them."""
        self.remove(list(dict.fromkeys(reversed(self.calls.built()))))
        for folder in self._mounts:
            self.empty_cache("launch-prefect", folder)


def ended(runs: Sequence[Run]) -> None:
    """Wait for runs.

    Raises:
        Failed: Some did not complete.
    """
    for run in runs:
        run.wait(SECONDS_OF_A_RUN)
    if failed := [run for run in runs if not run.succeeded]:
        raise Failed(f"{len(failed)} of {len(runs)} did not complete; the first: {failed[0]!r} {failed[0].message}")


def secret_options() -> list[str]:
    """Options of a build that give it the CA bundle of this machine, where it has one of its own."""
    bundle = os.environ.get("SSL_CERT_FILE")
    return ["--secret", f"id={CA_SECRET},src={Path(bundle).resolve()}"] if bundle else []


@contextmanager
def running(base_image: str) -> Iterator[Bench]:
    """A system to measure; inside, the Python API means it. Nothing is left of it at the end."""
    if shutil.which("docker-registry") is None:
        raise SystemExit("There is no docker-registry; on Debian, apt-get install docker-registry.")
    client = asyncio.run(find_client())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lp-build-", dir="/tmp")))
        engine = DockerClient.from_env(timeout=600)
        stack.callback(engine.close)
        (folder / "registry").mkdir()
        registry = stack.enter_context(registries.running(folder / "registry"))
        proxy = stack.enter_context(Proxy(registry.port))
        calls = Calls(folder / "bin", client.command[0])
        env = {
            "PATH": calls.path,
            "LAUNCH_BASE_IMAGE": base_image,
            "LAUNCH_CODE_STORE": (folder / "code").as_uri(),  # of all agents, whatever their LAUNCH_HOME
        }
        # Nothing is built before its run is Pending: what is measured is what a build costs.
        plain = queue(PLAIN, concurrency=1, ahead=0)
        kept = queue(KEPT, concurrency=1, ahead=0, registry=f"{proxy.address}/bench")
        system = stack.enter_context(System([plain, kept], env=env))
        stack.enter_context(system.connected())
        os.environ["LAUNCH_CODE_STORE"] = env["LAUNCH_CODE_STORE"]
        stack.callback(os.environ.pop, "LAUNCH_CODE_STORE")
        get_settings.cache_clear()
        bench = Bench(folder, base_image, client, engine, system, registry, proxy, calls, env, stack)
        stack.callback(bench.clean)
        yield bench


def queue(name: str, *, concurrency: int, **builder: Any) -> dict[str, Any]:
    """A queue, as its file says it."""
    return {"queue_name": name, "target": "docker", "concurrency": concurrency, "builder": builder}


async def _save(name: str, value: str) -> None:
    await Secret(value=value).asave(name, overwrite=True)


def _pending(run: Run) -> float:
    """When a run became Pending."""

    async def ask() -> float:
        async with connect() as client:
            states = await client.read_flow_run_states(run.id)
        return min(state.timestamp.timestamp() for state in states if state.is_pending())

    return wait_for(ask())
