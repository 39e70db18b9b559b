"""`up` as a program with a fake agent: `up_driver.py HOME [--port N] [--queue NAME]... [--agent KIND]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from rich.console import Console

from launch_prefect.errors import LaunchError
from launch_prefect.server.up import up
from launch_prefect.settings import LaunchSettings
from launch_prefect.spec.queue import QueueSpec

FAKE_AGENT = """
import os, pathlib, signal, subprocess, sys, time
kind, ready = sys.argv[1], pathlib.Path(sys.argv[2])
child = None
if kind == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)", str(ready)], start_new_session=True)
if kind == "patient":  # as the agent with runs whose grace is long
    asked = []
    def stop(number, frame):
        asked.append(number)
        print("asked", len(asked), flush=True)
        if len(asked) == 2:
            sys.exit(0)
    signal.signal(signal.SIGTERM, stop)
print("agent of", os.environ["PREFECT_API_URL"], flush=True)
ready.write_text(f"{os.getpid()} {child.pid if child else 0}")
if kind == "dying":
    print("cannot go on", flush=True)
    sys.exit(7)
time.sleep(300)
"""


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("--port", type=int)
    parser.add_argument("--queue", action="append", default=[])
    parser.add_argument("--agent", default="calm")
    given = parser.parse_args()
    ready = given.home / "agent.ready"

    async def apply_queue(queue: QueueSpec) -> None:
        from prefect.settings import PREFECT_API_URL

        print("queue", queue.queue_name, "on", PREFECT_API_URL.value(), flush=True)

    def agent_command(names: list[str]) -> list[str]:
        ready.unlink(missing_ok=True)
        return [sys.executable, "-c", FAKE_AGENT, given.agent, str(ready), *names]

    async def wait_for_agent(names: list[str]) -> None:
        while not ready.exists():
            await asyncio.sleep(0.02)

    queues = [QueueSpec(queue_name=name, target="process") for name in given.queue or ["local"]]
    try:
        return await up(
            queues,
            port=given.port,
            settings=LaunchSettings(home=given.home),
            console=Console(),
            apply_queue=apply_queue,
            agent_command=agent_command,
            wait_for_agent=wait_for_agent,
        )
    except LaunchError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return error.exit_code


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "200")
    sys.exit(asyncio.run(main()))
