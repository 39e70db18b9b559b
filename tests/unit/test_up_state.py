"""What `up` records, what it may end, and which server is talked to."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from launch_prefect.errors import DiskFull, LaunchError
from launch_prefect.server import connect, postgres, prefect_server, process, state
from launch_prefect.server.ending import Ending
from launch_prefect.settings import LaunchSettings

DEAD_UP = state.ProcessRecord(name="up", pid=os.getpid(), created=12.0)
URL = "http://127.0.0.1:4200/api"


@pytest.fixture
def settings(tmp_path: Path) -> LaunchSettings:
    return LaunchSettings(home=tmp_path / "home")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(["sleep", "60"])
    yield child
    with suppress(ProcessLookupError):
        child.kill()
    child.wait()


def record(settings: LaunchSettings, up: state.ProcessRecord, *children: state.ProcessRecord) -> state.UpState:
    settings.home.mkdir(exist_ok=True)
    told = state.UpState(up=up, api_url=URL, ui_url="http://127.0.0.1:4200", children=children)
    state.write(settings, told)
    return told


def test_running_is_what_was_written(settings: LaunchSettings) -> None:
    assert state.running(settings) is None
    told = record(settings, state.ProcessRecord.of("up", os.getpid()))
    assert state.running(settings) == told
    assert state.state_file(settings).stat().st_mode & 0o777 == 0o600
    state.forget(settings)
    assert state.running(settings) is None


def test_another_process_with_the_same_id_is_not_running(settings: LaunchSettings) -> None:
    record(settings, DEAD_UP)
    assert state.running(settings) is None


@pytest.mark.parametrize("text", ["", "{", "{}", '{"up": 3}'])
def test_a_damaged_record_is_none(settings: LaunchSettings, text: str) -> None:
    settings.home.mkdir()
    state.state_file(settings).write_text(text)
    assert state.running(settings) is None
    assert state.end_leftovers(settings) == []


def test_leftovers_are_ended_and_nothing_else(
    settings: LaunchSettings, sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    other = subprocess.Popen(["sleep", "60"])
    try:
        mine = state.ProcessRecord.of("agent", sleeper.pid)
        reused = state.ProcessRecord(name="Prefect server", pid=other.pid, created=mine.created - 100)
        record(settings, DEAD_UP, reused, mine)
        assert state.end_leftovers(settings, grace=5) == ["agent"]
        assert sleeper.poll() is not None
        assert other.poll() is None
        assert not state.state_file(settings).exists()
    finally:
        other.kill()
        other.wait()


def test_a_leftover_that_does_not_listen_is_killed(settings: LaunchSettings) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        record(settings, DEAD_UP, state.ProcessRecord.of("agent", deaf.pid))
        assert state.end_leftovers(settings, grace=0.1) == ["agent"]
        assert deaf.poll() is not None


def test_nothing_of_a_living_up_is_left_over(settings: LaunchSettings, sleeper: subprocess.Popen[bytes]) -> None:
    record(settings, state.ProcessRecord.of("up", os.getpid()), state.ProcessRecord.of("agent", sleeper.pid))
    assert state.leftovers(settings) == []


def test_one_lock(settings: LaunchSettings) -> None:
    held = state.lock(settings)
    assert held is not None
    assert settings.home.stat().st_mode & 0o777 == 0o700
    code = (
        "import sys, pathlib; from launch_prefect.server import state;"
        "from launch_prefect.settings import LaunchSettings;"
        "print(state.lock(LaunchSettings(home=pathlib.Path(sys.argv[1]))))"
    )
    command = [sys.executable, "-c", code, str(settings.home)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "None\n"
    held.release()
    assert "FileLock" in subprocess.run(command, capture_output=True, text=True).stdout


def test_state_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match="LAUNCH_HOME"):
        state.lock(LaunchSettings(home=tmp_path / "file"))


def test_the_named_server_comes_before_the_running_one(
    settings: LaunchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(settings, state.ProcessRecord.of("up", os.getpid()))
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.com/api/")
    assert connect.resolve_api_url(settings) == "https://prefect.example.com/api"
    monkeypatch.setattr(connect, "configured_api_url", lambda: None)
    assert connect.resolve_api_url(settings) == URL
    state.forget(settings)
    assert connect.resolve_api_url(settings) is None


def test_operator_database() -> None:
    assert postgres.operator_url({}) is None
    assert postgres.operator_url({"PREFECT_API_DATABASE_CONNECTION_URL": "a"}) == "a"
    named = {"PREFECT_API_DATABASE_CONNECTION_URL": "a", "PREFECT_SERVER_DATABASE_CONNECTION_URL": "b"}
    assert postgres.operator_url(named) == "b"


@pytest.mark.parametrize("length", [1, 40, 80, 200])
def test_socket_path_is_never_too_long(length: int) -> None:
    place = postgres.Place(Path("/h" * length) / "postgres", Path("log"))
    assert len(os.fsencode(place.socket_folder / ".s.PGSQL.5432")) <= 103
    assert (place.socket_folder == place.folder) == (length <= 40)


def test_database_address_is_quoted() -> None:
    place = postgres.Place(Path("/a home/p%q"), Path("log"))
    assert place.url == "postgresql+asyncpg://postgres@/prefect?host=/a%20home/p%25q"


def test_server_environment() -> None:
    plan = prefect_server.ServerPlan(Path("/state"), 4300, "sqlite+aiosqlite:///x", Path("log"))
    given = {
        "PREFECT_API_URL": "https://elsewhere",
        "PREFECT_API_KEY": "secret",
        "PREFECT_PROFILE": "mine",
        "PREFECT_SERVER_LOGGING_LEVEL": "DEBUG",
        "PGPORT": "7",
        "NO_PROXY": "example.com",
        "PATH": "/bin",
    }
    env = prefect_server.environment(plan, given)
    assert env["PREFECT_API_URL"] == "http://127.0.0.1:4300/api" == env["PREFECT_UI_API_URL"]
    assert env["PREFECT_HOME"] == "/state/prefect"
    assert env["PREFECT_SERVER_LOGGING_LEVEL"] == "DEBUG"
    assert env["PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED"] == "false"
    assert env["NO_PROXY"] == "example.com,127.0.0.1,localhost"
    assert not {"PREFECT_API_KEY", "PREFECT_PROFILE", "PGPORT"} & env.keys()


async def test_only_a_later_signal_hurries() -> None:
    ending = Ending()
    ending.signalled(signal.SIGINT)
    ending.signalled(signal.SIGTERM)
    assert ending.asked.is_set()
    assert not ending.hurry.is_set()
    ending._first = time.monotonic() - 1
    ending.signalled(signal.SIGHUP)
    assert not ending.hurry.is_set()
    ending.signalled(signal.SIGINT)
    assert ending.hurry.is_set()


async def test_a_child_is_ended_with_what_it_started(tmp_path: Path) -> None:
    code = "trap '' TERM; setsid sleep 61 & echo $!; sleep 62"
    child = await process.spawn("child", ["sh", "-c", code], env=os.environ, log=tmp_path / "log", grace=0.2)
    await asyncio.wait_for(process.until(lambda: _async(bool(process.tail(child.log, count=1))), every=0.02), 5)
    started = state.ProcessRecord.of("sleep", int(process.tail(child.log, count=1)[0]))
    assert started.alive()
    assert os.getsid(child.pid) == child.pid
    await process.stop(child, asyncio.Event())
    assert child.process.returncode == -signal.SIGKILL
    assert "SIGKILL" in child.ended()
    await asyncio.wait_for(process.until(lambda: _async(not started.alive()), every=0.02), 5)


@pytest.mark.parametrize("hurried_first", [False, True])
async def test_a_child_without_a_limit_is_hurried_by_a_second_signal(tmp_path: Path, hurried_first: bool) -> None:
    code = "n=0; trap 'n=$((n+1)); [ $n = 2 ] && exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    child = await process.spawn(
        "child", ["sh", "-c", code], env=os.environ, log=tmp_path / "log",
        grace=None, hurry_signal=signal.SIGTERM, hurry_grace=5,
    )  # fmt: skip
    await asyncio.wait_for(process.until(lambda: _async(bool(process.tail(child.log, count=1))), every=0.02), 5)
    hurry = asyncio.Event()
    if hurried_first:
        hurry.set()
    stopping = asyncio.create_task(process.stop(child, hurry))
    if not hurried_first:
        await asyncio.sleep(0.4)
        assert not stopping.done()
        hurry.set()
    await asyncio.wait_for(stopping, 5)
    assert child.process.returncode == 5


async def test_a_child_that_does_not_hurry_is_killed(tmp_path: Path) -> None:
    code = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    child = await process.spawn(
        "child", ["sh", "-c", code], env=os.environ, log=tmp_path / "log",
        grace=None, hurry_signal=signal.SIGTERM, hurry_grace=0.2,
    )  # fmt: skip
    await asyncio.wait_for(process.until(lambda: _async(bool(process.tail(child.log, count=1))), every=0.02), 5)
    hurry = asyncio.Event()
    hurry.set()
    await asyncio.wait_for(process.stop(child, hurry), 5)
    assert child.process.returncode == -signal.SIGKILL


async def _async(so: bool) -> bool:
    return so


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    child = await process.spawn("child", ["no-such-program"], env=os.environ, log=tmp_path / "log")
    await child.process.wait()
    assert "no-such-program: No such file" in child.last_lines()
    assert child.log.stat().st_mode & 0o777 == 0o600


def test_log_lines_that_mean_the_disk_or_a_permission() -> None:
    assert isinstance(process.explain_log("x\nwrite: No space left on device\n", Path("/s")), DiskFull)
    denied = process.explain_log("a\nfile: Permission denied\nb", Path("/s"))
    assert denied is not None
    assert "file: Permission denied" in denied.message
    assert process.explain_log("all is well", Path("/s")) is None
