"""The agent killed, the supervisor killed, the disk full: nothing is lost, or it is said."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch_prefect.errors import DiskFull, InfrastructureLost
from launch_prefect.runtime import supervise
from launch_prefect.workers.running import Exit
from launch_prefect.workers.supervision import LostOutput, SupervisedProcess
from tests.integration.supervision.watching import (
    Starter,
    everything,
    exists,
    first_line,
    linux_only,
    pids,
    python,
    text_of,
)

pytestmark = pytest.mark.integration


class TestKilled:
    AGENT = """
        import asyncio, json, sys
        from pathlib import Path
        from launch_prefect.workers.supervision import SupervisedProcess

        async def main():
            spec = json.loads(sys.argv[1])
            process = await SupervisedProcess.start(
                Path(spec["folder"]), command=spec["command"], env=spec["env"], cwd=Path(spec["cwd"])
            )
            async for chunk in process.output():
                print(json.dumps([chunk.position, chunk.data.decode()]), flush=True)

        asyncio.run(main())
    """

    def agent(self, start: Starter, *command: str) -> subprocess.Popen[str]:
        spec = {"folder": str(start.folder), "command": command, "env": start.env, "cwd": str(start.cwd)}
        source = str(Path(supervise.__file__).parents[2])
        return subprocess.Popen(
            [*python(self.AGENT), json.dumps(spec)],
            env={**os.environ, "PYTHONPATH": source},
            stdout=subprocess.PIPE,
            text=True,
        )

    @pytest.mark.parametrize("ended", [False, True], ids=["still running", "ended meanwhile"])
    async def test_agent(self, start: Starter, folder: Path, tmp_path: Path, ended: bool) -> None:
        os.mkfifo(tmp_path / "go")
        count = "i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done"
        agent = self.agent(start, "sh", "-c", f"{count}; read x <go; {count}; exit 3")
        assert agent.stdout is not None
        position, seen = "", ""
        while "50\n" not in seen:
            position, data = json.loads(await asyncio.to_thread(agent.stdout.readline))
            seen += data
        agent.kill()
        agent.wait()
        agent.stdout.close()
        if ended:
            (tmp_path / "go").write_text("\n")
            while not (folder / supervise.END).exists():
                await asyncio.sleep(0.01)
        process = await SupervisedProcess.find(folder)
        assert process is not None
        start.started.append(process)
        if not ended:
            await asyncio.to_thread((tmp_path / "go").write_text, "\n")
        rest = text_of(await everything(process, position)).decode()
        assert (seen + rest).split() == [str(n) for n in range(300)] * 2
        assert await process.wait() == Exit(3)
        await process.remove()

    async def test_stop_by_the_next_agent(self, start: Starter, folder: Path) -> None:
        agent = self.agent(start, "sh", "-c", "echo up; exec sleep 600")
        assert agent.stdout is not None
        assert "up" in await asyncio.to_thread(agent.stdout.readline)
        agent.kill()
        agent.wait()
        agent.stdout.close()
        process = await SupervisedProcess.find(folder)
        assert process is not None
        await process.stop(5)
        assert await process.wait() == Exit(143)

    async def test_agent_at_any_instant_of_a_start(self, start: Starter, tmp_path: Path) -> None:
        """Whatever instant it dies at: the command runs at most once, and exactly when `find` finds it."""
        outcomes = set()
        for attempt in range(4):
            start.folder = tmp_path / f"instant{attempt}"
            agent = self.agent(start, "sh", "-c", f"echo ran >>ran{attempt}; exit 5")
            assert agent.stdout is not None
            wanted = [supervise.LOCK, supervise.SPEC, supervise.PID, supervise.LOG][attempt]
            while not (start.folder / wanted).exists() and agent.poll() is None:
                await asyncio.sleep(0)
            agent.kill()
            agent.wait()
            agent.stdout.close()
            process = await SupervisedProcess.find(start.folder)
            outcomes.add(process is None)
            if process is None:
                assert not (tmp_path / f"ran{attempt}").exists()
                assert not start.folder.exists()
            else:
                assert await process.wait() == Exit(5)
                assert (tmp_path / f"ran{attempt}").read_text() == "ran\n"
        assert False in outcomes

    async def test_nothing_was_ever_started_there(self, folder: Path) -> None:
        assert await SupervisedProcess.find(folder) is None

    @linux_only
    async def test_supervisor(self, start: Starter, folder: Path) -> None:
        process = await start("sh", "-c", "sleep 600 & echo $!; wait")
        child = int(await first_line(process))
        supervisor, main = pids(folder)
        os.kill(supervisor, signal.SIGKILL)
        with pytest.raises(InfrastructureLost, match="The process that watched the job was killed"):
            await process.wait()
        assert not exists(main)
        assert not exists(child)
        received = b""
        with pytest.raises(InfrastructureLost):  # noqa: PT012
            async for chunk in process.output():
                received += chunk.data
        assert received == b"%d\n" % child
        found = await SupervisedProcess.find(folder)
        assert found is not None
        with pytest.raises(InfrastructureLost):
            await found.wait()

    @linux_only
    async def test_supervisor_while_no_agent_watches(self, start: Starter, folder: Path) -> None:
        process = await start("sleep", "600")
        process.detach()
        start.started.clear()
        supervisor, main = pids(folder)
        os.kill(supervisor, signal.SIGKILL)
        os.waitpid(supervisor, 0)
        while exists(main):
            await asyncio.sleep(0.01)
        found = await SupervisedProcess.find(folder)
        assert found is not None
        with pytest.raises(InfrastructureLost):
            await found.wait()

    async def test_detached_and_found_again_by_the_same_process(self, start: Starter, folder: Path) -> None:
        process = await start("sh", "-c", "echo up; exec sleep 600")
        await first_line(process)
        process.detach()
        start.started.clear()
        found = await SupervisedProcess.find(folder)
        assert found is not None
        assert found.identifier == process.identifier
        with pytest.raises(RuntimeError, match="still runs"):
            await found.remove()
        await found.stop(5)
        assert await found.wait() == Exit(143)


@linux_only
class TestFullDisk:
    @pytest.fixture
    def disk(self, tmp_path: Path) -> Iterator[Path]:
        """A file system of 1 MiB."""
        place = tmp_path / "disk"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("this user may not mount a file system")
        yield place
        subprocess.run(["umount", str(place)], check=True)

    async def test_the_job_goes_on_and_its_exit_code_is_true(self, start: Starter, disk: Path) -> None:
        start.folder = disk / "attempt"
        process = await start("sh", "-c", f"head -c 5000000 /dev/zero; cat /dev/zero >{disk}/filler 2>&-; exit 3")
        end = await process.wait()
        assert (end.code, end.out_of_memory) == (3, False)
        assert "No space left" in end.note
        kept = sum(len(chunk.data) for chunk in await everything(process))
        assert kept > 0
        assert process.lost_output == LostOutput(5_000_000 - kept, "No space left on device")
        await process.remove()

    async def test_output_is_kept_again_once_there_is_space(self, start: Starter, disk: Path) -> None:
        start.folder = disk / "attempt"
        (disk / "filler").write_bytes(b"x" * 900_000)
        os.mkfifo(start.cwd / "full")
        os.mkfifo(start.cwd / "go")
        fill = "head -c 4000000 /dev/zero; echo >full"
        process = await start("sh", "-c", f"echo first; read x <go; {fill}; read x <go; echo last")
        assert await first_line(process) == "first"
        await asyncio.to_thread((start.cwd / "go").write_text, "\n")
        await asyncio.to_thread((start.cwd / "full").read_text)
        (disk / "filler").unlink()
        await asyncio.to_thread((start.cwd / "go").write_text, "\n")
        output = text_of(await everything(process))
        assert output.startswith(b"first\n")
        assert output.endswith(b"last\n")
        assert process.lost_output is not None
        await process.remove()

    async def test_no_space_to_start(self, start: Starter, disk: Path) -> None:
        start.folder = disk / "attempt"
        with contextlib.suppress(OSError):
            (disk / "filler").write_bytes(b"x" * 2**21)
        with pytest.raises(DiskFull, match="No space is left"):
            await start("true")
        assert not start.folder.exists()
