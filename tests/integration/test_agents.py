"""Agents against a real Prefect server: each run once, and a stop that leaves nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from launch_prefect import Job, Queue

Start = Callable[[], subprocess.Popen[bytes]]


@pytest.fixture
def queue(prefect_server: str, launch_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Queue]:
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: prefect_server}):
        queue = Queue.create(f"agents-{uuid.uuid4().hex[:8]}", target="process", resource_config={"stop_grace": 30})
        yield queue
        queue.delete(cancel_runs=True)


@pytest.fixture
def agent(queue: Queue) -> Iterator[Start]:
    """Starts agents of the queue, all of one name."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "launch_prefect.cli", "agent", "-q", queue.name, "--name", "same"]
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def job(folder: Path, code: str) -> Job:
    (folder / "job").mkdir()
    (folder / "job" / "run.py").write_text(code)
    return Job.from_code(folder / "job", entrypoint=["python", "run.py"], name=f"job-{uuid.uuid4().hex[:8]}")


async def test_two_agents_of_one_name_start_each_run_once(queue: Queue, agent: Start, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = f"import os\nopen({str(starts)!r}, 'a').write(os.environ['LAUNCH_RUN_ID'] + '\\n')"
    work = job(tmp_path, code)
    runs = [await queue.asubmit(work) for _ in range(12)]
    for process in [agent(), agent()]:
        assert process.poll() is None
    await asyncio.gather(*(run.await_end(60) for run in runs))
    assert {run.state for run in runs} == {"Completed"}
    assert Counter(starts.read_text().split()) == {str(run.id): 1 for run in runs}


async def test_a_stopped_agent_ends_its_runs_and_gives_back_the_rest(
    queue: Queue, agent: Start, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(pids)!r}, 'a').write(f'{{os.getpid()}}\\n')\ntime.sleep(300)"
    )
    work = job(tmp_path, code)
    runs = [await queue.asubmit(work) for _ in range(8)]
    process = agent()
    async with asyncio.timeout(30):
        while not pids.exists():
            await asyncio.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):  # it says that it stops the job, which does not mind
        while not [line for run in runs for line in await run.alogs() if "Stopping" in line.text]:
            await asyncio.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # again: without the 30 s of grace
    await asyncio.to_thread(process.wait, 20)
    states = {(await run.arefresh()).state for run in runs}
    assert "Cancelled" in states
    assert states <= {"Cancelled", "Scheduled"}, "ended, or back in the queue; nothing in between"
    assert not [pid for pid in pids.read_text().split() if psutil.pid_exists(int(pid))]
