"""A whole running system in a folder of its own, started as a person starts it, and what a person does with it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from unittest import mock

import certifi
import psutil
import yaml

from launch_prefect import Job, Queue, Run
from launch_prefect.server import state
from launch_prefect.server.connect import using_api
from launch_prefect.settings import LaunchSettings, get_settings
from tests.conftest import connect

PROGRAM = [sys.executable, "-m", "launch_prefect.cli"]
CASES = Path(__file__).parent / "jobs" / "cases"
JOB = "e2e-cases"
SECONDS_TO_START = 150
SECONDS_TO_END = 90


def until(so: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """Wait until something is so; what it returned then."""
    deadline = time.monotonic() + timeout
    while not (found := so()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def processes_naming(text: str) -> list[psutil.Process]:
    """Processes other than this one that have a text on their command line or in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), *(f"{name}={value}" for name, value in process.environ().items())]
            ended = process.status() == psutil.STATUS_ZOMBIE
            if process.pid != os.getpid() and not ended and any(text in word for word in words):
                found.append(process)
    return found


def left_of(run: Run) -> list[psutil.Process]:
    """Processes of a run, in a container or not: each inherits the run's id. Not the supervisor, which has none."""
    return processes_naming(f"LAUNCH_RUN_ID={run.id}")


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Program:
    """A long command of ours in a process group of its own, ended as Ctrl-C in its terminal ends it."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], output: Path) -> None:
        self._output = output
        with output.open("ab") as file:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, start_new_session=True
            )

    @property
    def text(self) -> str:
        return self._output.read_text(errors="replace")

    def says(self, words: str, timeout: float) -> None:
        until(lambda: words in self.text or self.process.poll() is not None, f"{words!r} in {self.text}", timeout)
        assert words in self.text, self.text

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        return self.wait()

    def wait(self, timeout: float = SECONDS_TO_END) -> int:
        """Its exit code; it is killed where it does not end in time."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"it did not end within {timeout:g} s:\n{self.text}") from None


class System:
    """A `prefect-launch up`.

    Args:
        queues: Its queues, as queue files have them.
        env: What its environment has besides this process's own, without anything of Prefect and of ours.
        certificates: CA certificates that are trusted besides this machine's, by its agent and by whoever submits.
        command: What is started in place of `prefect-launch up`; gets the state folder and the port.
    """

    def __init__(
        self,
        queues: Sequence[Mapping[str, Any]] = (),
        *,
        env: Mapping[str, str] | None = None,
        certificates: Sequence[Path] = (),
        command: Callable[[Path, int], Sequence[str]] | None = None,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))  # short: sockets are made below it
        self.home = self.folder / "home"
        self.home.mkdir(mode=0o700)
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        own = {"LAUNCH_HOME": str(self.home), "PREFECT_HOME": str(self.folder / "prefect"), "COLUMNS": "200"}
        if bundle := self._ca_bundle(certificates):
            own["LAUNCH_CA_BUNDLE"] = str(bundle)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "LAUNCH_"))}
        self.environment = inherited | own
        self._up_environment = self.environment | (env or {})
        self.queue_files = [self._queue_file(queue) for queue in queues]
        files = [word for file in self.queue_files for word in ("-f", str(file))]
        default = [*PROGRAM, "up", "--port", str(self.port), *files]
        self._command = list(command(self.home, self.port)) if command else default
        self._networks = _our_networks()
        self.up: Program | None = None

    def _ca_bundle(self, certificates: Sequence[Path]) -> Path | None:
        """This machine's CA certificates with further ones; None where nothing is to be said of them."""
        own = os.environ.get("SSL_CERT_FILE")
        if not certificates:
            return Path(own) if own else None
        machine = own or ssl.get_default_verify_paths().cafile or certifi.where()
        bundle = self.folder / "certificates.pem"
        bundle.write_text("\n".join(file.read_text() for file in (Path(machine), *certificates)))
        return bundle

    def _queue_file(self, queue: Mapping[str, Any]) -> Path:
        file = self.folder / f"{queue['queue_name']}.yaml"
        file.write_text(yaml.safe_dump(dict(queue)))
        return file

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._kill()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.stop()
        finally:
            self._kill()

    def start(self) -> None:
        """Start it; returns when it is ready."""
        self.up = Program(self._command, self._up_environment, self.folder / f"up-{time.monotonic_ns()}.log")
        self.up.says("Ready after", SECONDS_TO_START)

    def stop(self) -> None:
        """Ctrl-C, and nothing may be left but files."""
        if self.up is None:
            return
        code = self.up.interrupt()
        assert code == 0, self.up.text
        self.up = None
        assert [process.cmdline() for process in processes_naming(str(self.folder))] == []
        assert _containers_of(self.folder) == []
        assert _our_networks() <= self._networks

    def _kill(self) -> None:
        """Whatever has gone wrong, nothing is left."""
        for process in processes_naming(str(self.folder)):
            with suppress(psutil.Error):
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def child(self, name: str) -> psutil.Process:
        """One of its processes, by the name `up` gives it."""
        found = state.read(LaunchSettings(home=self.home))
        assert found is not None
        return psutil.Process(next(child.pid for child in found.children if child.name == name))

    def log(self, name: str) -> str:
        """What one of its processes has written."""
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")

    def cli(
        self, *words: str | Path, code: int | None = 0, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> Done:
        """Run a command as a user of this machine; whatever it does, it prints no traceback."""
        ended = subprocess.run(
            [*PROGRAM, *map(str, words)],
            env=self.environment | (env or {}),
            cwd="/",
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            check=False,
        )
        done = Done(ended.returncode, ended.stdout, ended.stderr)
        assert "Traceback" not in done.out + done.err, done
        assert code is None or done.code == code, done
        return done

    def submit(self, queue: str, *words: str | Path, env: Mapping[str, str] | None = None) -> Run:
        """Submit something from the command line."""
        return Run.get(self.cli("submit", "-q", queue, "--json", *words, env=env).json["id"])

    @contextmanager
    def paused(self, queue: str) -> Iterator[None]:
        """No run of a queue starts inside."""
        Queue(queue).pause()
        try:
            yield
        finally:
            Queue(queue).resume()

    @contextmanager
    def background(self, *words: str | Path, env: Mapping[str, str] | None = None) -> Iterator[Program]:
        """A command that goes on beside the test, until its end or the test's."""
        log = self.folder / f"{words[0]}-{time.monotonic_ns()}.log"
        program = Program([*PROGRAM, *map(str, words)], self.environment | (env or {}), log)
        try:
            yield program
        finally:
            if program.process.poll() is None:
                program.interrupt()

    @contextmanager
    def agent(
        self,
        *queues: str,
        name: str | None = None,
        max_jobs: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Iterator[Program]:
        """A further agent, of these queues."""
        words = [word for queue in queues for word in ("-q", queue)]
        words += ["--max-jobs", str(max_jobs)] if max_jobs else []
        with self.background("agent", *words, "--name", name or f"agent of {queues[0]}", env=env) as program:
            program.says("Serving", 60)
            yield program
            assert program.interrupt() == 0, program.text

    @contextmanager
    def connected(self) -> Iterator[None]:
        """The Python API means this system inside."""
        foreign = [name for name in os.environ if name.startswith(("PREFECT_", "LAUNCH_"))]
        with mock.patch.dict(os.environ), using_api(self.api_url):
            for name in foreign:
                del os.environ[name]
            os.environ["LAUNCH_HOME"] = str(self.home)
            get_settings.cache_clear()
            try:
                yield
            finally:
                get_settings.cache_clear()


def case(*words: str | float, **about: Any) -> Job:
    """The job of `jobs/cases` with these arguments."""
    about = {"name": JOB} | about
    return Job.from_code(CASES, entrypoint=["python", "job.py", *map(str, words)], **about)


def submit(queue: str, *words: str | float, **about: Any) -> Run:
    """Submit a case; see `case`."""
    return Queue(queue).submit(case(*words, **about))


def texts(run: Run, stream: str = "stdout") -> list[str]:
    """The lines of one stream of a run's log."""
    return [line.text for line in run.logs() if line.stream == stream]


def said(run: Run) -> str:
    """What the agent has put into a run's log."""
    return "\n".join(texts(run, "launch"))


def explained(run: Run) -> str:
    """A run with its log, for a failed assertion."""
    return "\n".join([f"{run!r} {run.message}", *(f"{line.stream}: {line.text[:300]}" for line in run.logs())])


def _containers_of(folder: Path) -> list[str]:
    """Containers that have something of a folder mounted, as each that an agent starts has."""
    if (client := _engine()) is None:
        return []
    with client:
        found = client.api.containers(all=True)
    mounts = {c["Id"]: [m.get("Source", "") for m in c["Mounts"]] for c in found}
    return [name for name, sources in mounts.items() if any(s.startswith(str(folder)) for s in sources)]


def _our_networks() -> set[str]:
    from launch_prefect.naming import LABEL

    if (client := _engine()) is None:
        return set()
    with client:
        return {network["Id"] for network in client.api.networks(filters={"label": LABEL})}


def _engine() -> Any:
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        return _Closing(connect())
    except (DockerException, RequestException):
        return None


class _Closing:
    """An engine's client that a `with` closes."""

    def __init__(self, client: Any) -> None:
        self.api = client.api

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.api.close()
