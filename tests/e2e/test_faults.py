"""What breaks around a run: the server, the disk, the system itself. Its own system, because parts of it are killed."""

from __future__ import annotations

import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from launch_prefect import Job, Queue, Run
from launch_prefect.errors import Unreachable
from launch_prefect.server import prefect_server
from tests.e2e.system import CASES, JOB, System, case, explained, left_of, submit, texts, until


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """In place of the one that all other tests share."""
    local = {"queue_name": "local", "target": "process", "concurrency": 20, "resource_config": {"stop_grace": 1}}
    with System([local]) as running:
        yield running


def ended(run: Run, timeout: float) -> Run:
    """Wait for the end of a run while its server comes and goes."""

    def look() -> bool:
        try:
            return run.refresh().is_final
        except Unreachable:
            return False

    until(look, f"the end of {run!r}", timeout)
    return run


def test_the_server_is_killed_during_a_run(system: System) -> None:
    lines = [f"line {n}" for n in range(60)]
    command = f"python job.py count {len(lines)} 0.2"
    words = ("submit", "-q", "local", CASES, "--job-name", JOB, "-E", command, "--name", "survivor", "--follow")
    with system.background(*words) as follower:
        follower.says("line 10", 90)
        [run] = [run for run in Run.list(queue="local") if run.name == "survivor"]
        server = system.child(prefect_server.NAME)
        for process in (server, *server.children(recursive=True)):
            process.kill()
        ended(run, 120)
        assert run.state == "Completed", explained(run)
        assert texts(run) == lines
        assert follower.wait() == 0, follower.text
        assert re.findall(r"^line \d+$", follower.text, re.MULTILINE) == lines
    assert system.child(prefect_server.NAME).pid != server.pid


def test_started_twice(system: System) -> None:
    before = system.child(prefect_server.NAME)
    done = system.cli("up", "--port", str(system.port), "-f", system.queue_files[0])
    assert "runs already" in done.out
    assert system.api_url in done.out
    assert system.child(prefect_server.NAME) == before
    assert submit("local", "exit_with", 0).wait(60).succeeded


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """A job's folder that does not fit on the small disk, whose content does not compress."""
    folder = tmp_path / "e2e-large"
    shutil.copytree(CASES, folder)
    for n in range(3):
        (folder / f"data-{n}").write_bytes(bytes(2 << 20) if n else uuid.uuid4().bytes * (2 << 16))
    return folder


@pytest.fixture
def own_queue() -> str:
    """A queue that no agent serves yet."""
    return Queue.create(f"local-{uuid.uuid4().hex[:8]}", target="process").name


def test_the_disk_of_the_agents_state_is_full(
    system: System, own_queue: str, small_disk: Path, large_folder: Path
) -> None:
    def submitted(folder: Path, *words: str) -> Run:
        job = Job.from_code(folder, entrypoint=["python", "job.py", *words], name=JOB)
        return Queue(own_queue).submit(job)

    with system.agent(own_queue, env={"LAUNCH_HOME": str(small_disk), "PREFECT_API_URL": system.api_url}):
        too_large = submitted(large_folder, "talk").wait(60)
        assert too_large.state == "Crashed", explained(too_large)
        assert "No space is left" in too_large.message
        assert str(small_disk) in too_large.message
        assert "LAUNCH_HOME" in too_large.message

        fits = submitted(CASES, "talk").wait(60)  # nothing of the other has stayed
        assert fits.state == "Completed", explained(fits)

        # Its output does not fit, which is no reason to end it.
        chatty = submitted(CASES, "flood", "20000000", "100").wait(60)
        assert chatty.exit_code == 0, explained(chatty)
        assert "bytes of its output were lost: No space left on device" in " ".join(texts(chatty, "launch"))

        _fill(small_disk / "filler")
        full = submitted(CASES, "talk").wait(60)
        assert full.state == "Crashed", explained(full)
        assert "No space is left" in full.message
        assert "ree " in full.message  # Free some space …
    Queue(own_queue).delete()


def test_the_code_store_is_full(system: System, small_disk: Path, large_folder: Path) -> None:
    before = len(Run.list(limit=200))
    elsewhere = {"LAUNCH_HOME": str(small_disk), "PREFECT_API_URL": system.api_url}
    _fill(small_disk / "filler")
    done = system.cli("submit", "-q", "local", large_folder, "-E", "python job.py talk", env=elsewhere, code=None)
    assert done.code != 0
    assert "No space is left" in done.err
    assert "LAUNCH_HOME" in done.err
    assert len(Run.list(limit=200)) == before


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as output, suppress(OSError):
        while True:
            output.write(bytes(4096))


def test_ctrl_c_ends_the_run_and_everything_else(system: System) -> None:
    run = submit("local", "stubborn")
    waiting = Queue("local").submit(case("talk"))
    until(lambda: "ready" in texts(run), "a line of the run", 60)
    waiting.wait(60)
    assert left_of(run)
    system.stop()
    assert left_of(run) == []
    system.start()
    run.refresh()
    assert run.state == "Cancelled", explained(run)
    assert "agent was stopped" in run.message
    assert waiting.refresh().succeeded
