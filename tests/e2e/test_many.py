"""Many runs at once, and one that says very much."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import psutil
import pytest

from launch_prefect import Queue, Run
from tests.e2e.system import CASES, System, case, explained, until

RUNS = 20
SECONDS = 1.5
AGENT_BYTES = 500 * 1024**2


def test_many_runs_at_once_all_complete(system: System, queue: str) -> None:
    job = case("sleep", SECONDS)
    Queue(queue).submit(job).wait(60)  # what it runs in is built
    began = time.monotonic()
    runs = [Queue(queue).submit(job) for _ in range(RUNS)]
    for run in runs:
        run.wait(120)
    ours = time.monotonic() - began
    assert [run.state for run in runs] == ["Completed"] * RUNS, "\n".join(explained(run) for run in runs[:3])

    began = time.monotonic()
    environment = {"PYTHONPATH": _runtime_folder()}
    command = [sys.executable, CASES / "job.py", "sleep", str(SECONDS)]
    for process in [subprocess.Popen(command, env=environment) for _ in range(RUNS)]:
        assert process.wait(120) == 0
    bare = time.monotonic() - began
    print(f"{RUNS} runs on {queue}: {ours:.1f} s; side by side without a server {bare:.1f} s; {ours / bare:.1f} times")


def _runtime_folder() -> str:
    from launch_prefect.runtime import folder

    return str(folder())


@pytest.mark.parametrize(
    ("queue", "size"), [("local", 200_000_000), pytest.param("docker", 20_000_000, marks=pytest.mark.docker)]
)
def test_a_job_that_prints_very_much(request: pytest.FixtureRequest, system: System, queue: str, size: int) -> None:
    if queue == "docker":
        request.getfixturevalue("docker_engine")
    width = 500
    agent = system.child("agent")
    began = time.monotonic()
    run = Queue(queue).submit(case("flood", size, width))
    most = 0

    def ended() -> bool:
        nonlocal most
        most = max(most, agent.memory_info().rss)
        return run.refresh().is_final

    until(ended, "the end of the run", 240)
    print(f"{size / 1e6:.0f} MB on {queue}: {time.monotonic() - began:.1f} s, agent {most / 1e6:.0f} MB at most")
    assert run.state == "Completed", explained(run)
    assert asyncio.run(_numbers(run, width)) == size // width
    assert most < AGENT_BYTES
    assert psutil.pid_exists(agent.pid)


async def _numbers(run: Run, width: int) -> int:
    """How many lines the log holds; each is whole and in its place."""
    number = 0
    async for line in run.afollow():
        if line.stream == "stdout":
            assert len(line.text) == width - 1
            assert line.text.startswith(f"{number:010d}")
            number += 1
    return number
