"""One command under its supervisor: its end, its output, what it leaves behind, stopping it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from launch_prefect.errors import StartFailed
from launch_prefect.runtime import supervise
from launch_prefect.workers.running import Exit
from launch_prefect.workers.supervision import SupervisedProcess
from tests.integration.supervision.watching import (
    Starter,
    everything,
    exists,
    first_line,
    linux_only,
    pids,
    processes_with,
    python,
    text_of,
)

pytestmark = pytest.mark.integration


class TestEnds:
    @pytest.mark.parametrize("code", [0, 1, 3, 137, 139])
    async def test_exit_code(self, start: Starter, code: int) -> None:
        process = await start("sh", "-c", f"exit {code}")
        assert await process.wait() == Exit(code)
        assert await process.wait() == Exit(code)

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
    async def test_signal(self, start: Starter, number: signal.Signals) -> None:
        process = await start("sh", "-c", f"kill -{number.value} $$")
        end = await process.wait()
        assert end.signal == number
        assert json.loads((start.folder / supervise.END).read_text())["signal"] == number

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            (
                ["no-such-program-here"],
                "No such program: 'no-such-program-here'. Check the command; .* PATH=",
            ),
            (["./not-there.sh"], "No such program: './not-there.sh'"),
            (["./plain.txt"], "Permission denied: './plain.txt'. Make it executable"),
            (["./no-line.sh"], "exec format error.*#! line"),
            (["./lost-interpreter.sh"], "is there, but what runs it is not"),
            (["nul\0byte"], "embedded null byte"),
        ],
    )
    async def test_cannot_start(
        self, start: Starter, folder: Path, tmp_path: Path, command: list[str], message: str
    ) -> None:
        (tmp_path / "plain.txt").write_text("nothing")
        for name, content in {"no-line.sh": "echo hi\n", "lost-interpreter.sh": "#!/not/there\n"}.items():
            (tmp_path / name).write_text(content)
            (tmp_path / name).chmod(0o755)
        with pytest.raises(StartFailed, match=message):
            await start(*command)
        assert not folder.exists()

    async def test_folder_to_run_in_is_missing(self, folder: Path, env: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises(StartFailed, match=r"The folder to run in can't be entered: .*gone"):
            await SupervisedProcess.start(folder, command=["true"], env=env, cwd=tmp_path / "gone")

    async def test_a_folder_is_for_one_start_only(self, start: Starter, folder: Path) -> None:
        await (await start("true")).wait()
        with pytest.raises(FileExistsError):
            await SupervisedProcess.start(folder, command=["true"], env={}, cwd=folder)
        assert await (await SupervisedProcess.find(folder) or pytest.fail("lost")).wait() == Exit(0)

    async def test_many_at_once_without_a_thread_each(self, start: Starter) -> None:
        started = [await start("sh", "-c", f"echo {n}; read x; exit {n}") for n in range(25)]
        ends = asyncio.gather(*(process.wait() for process in started))
        outputs = await asyncio.gather(*(everything(process) for process in started))
        assert [end.code for end in await ends] == list(range(25))
        assert [text_of(output) for output in outputs] == [f"{n}\n".encode() for n in range(25)]
        workers = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
        assert len(workers) < 10

    @linux_only
    async def test_no_zombie_stays_and_remove_leaves_nothing(self, start: Starter, folder: Path) -> None:
        process = await start("true")
        supervisor, _ = pids(folder)
        await process.wait()
        assert supervise.read_stat(supervisor) is None
        await process.remove()
        assert not folder.exists()
        assert await process.wait() == Exit(0)


class TestOutput:
    async def test_streams_and_order(self, start: Starter) -> None:
        process = await start(
            *python("""
                import os
                for n in range(500):
                    os.write(1, b"out %d\\n" % n)
                    os.write(2, b"err %d\\n" % n)
            """)
        )
        chunks = await everything(process)
        assert text_of(chunks, "stdout") == b"".join(b"out %d\n" % n for n in range(500))
        assert text_of(chunks, "stderr") == b"".join(b"err %d\n" % n for n in range(500))
        times = [chunk.at for chunk in chunks]
        assert times == sorted(times)
        assert times[0].tzinfo is not None

    async def test_what_comes_one_after_the_other_stays_so(self, start: Starter, tmp_path: Path) -> None:
        for name in ("go1", "go2"):
            os.mkfifo(tmp_path / name)
        process = await start("sh", "-c", "echo one; read x <go1; echo two >&2; read x <go2; echo three")
        seen = []
        async for chunk in process.output():
            seen.append((chunk.stream, chunk.data))
            if len(seen) < 3:
                await asyncio.to_thread((tmp_path / f"go{len(seen)}").write_text, "\n")
        assert seen == [("stdout", b"one\n"), ("stderr", b"two\n"), ("stdout", b"three\n")]

    async def test_any_bytes_and_a_line_of_a_million(self, start: Starter) -> None:
        process = await start(
            *python("""
                import sys
                sys.stdout.buffer.write(bytes(range(256)) + b"\\xff\\xfe" + b"x" * 1_000_000 + b"\\xc3")
            """)
        )
        expected = bytes(range(256)) + b"\xff\xfe" + b"x" * 1_000_000 + b"\xc3"
        assert text_of(await everything(process)) == expected

    async def test_every_position_goes_on_exactly_there(self, start: Starter) -> None:
        process = await start("sh", "-c", "for n in 1 2 3 4 5; do echo $n; echo $n >&2; done")
        chunks = await everything(process)
        whole = [(chunk.stream, chunk.data) for chunk in chunks]
        for index, chunk in enumerate(chunks):
            rest = await everything(process, chunk.position)
            assert [(c.stream, c.data) for c in rest] == whole[index + 1 :]

    @linux_only
    async def test_200_megabytes_in_bounded_memory(self, start: Starter, folder: Path, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "go")
        process = await start(
            *python("""
                import os
                block = bytes(range(256)) * 4096
                for _ in range(200):
                    left = memoryview(block)
                    while left:
                        left = left[os.write(1, left):]
                open("go").read()
            """)
        )
        size, digest, begin = 0, hashlib.sha256(), time.monotonic()
        async for chunk in process.output():
            digest.update(chunk.data)
            size += len(chunk.data)
            if size == 200 * 2**20:
                assert time.monotonic() - begin < 10
                status = Path(f"/proc/{pids(folder)[0]}/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0])
                assert peak < 60 * 1024
                (tmp_path / "go").write_text("go")
        assert size == 200 * 2**20
        assert digest.digest() == hashlib.sha256(bytes(range(256)) * 4096 * 200).digest()
        assert await process.wait() == Exit(0)

    async def test_a_job_never_waits_for_a_reader(self, start: Starter) -> None:
        process = await start("head", "-c", "50000000", "/dev/zero")
        assert await process.wait() == Exit(0)
        assert sum(len(chunk.data) for chunk in await everything(process)) == 50_000_000


@linux_only
class TestLeftBehind:
    async def test_a_daemon_of_its_own_session_is_ended(self, start: Starter, tmp_path: Path) -> None:
        process = await start(
            *python("""
                import os, time
                read, write = os.pipe()
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.write(write, b"%d" % os.getpid())
                        time.sleep(600)
                    os._exit(0)
                print(os.read(read, 20).decode(), flush=True)
                os._exit(3)
            """)
        )
        daemon = int(await first_line(process))
        assert await process.wait() == Exit(3)
        assert not exists(daemon)
        assert process.left_behind == 1

    async def test_one_that_holds_the_output_open_and_ignores_sigterm(self, start: Starter) -> None:
        process = await start("sh", "-c", "trap '' TERM; sleep 600 & exit 4", grace=0.2)
        assert await process.wait() == Exit(4)
        assert await everything(process) == []

    async def test_one_that_still_has_a_line_to_write_may_write_it(self, start: Starter) -> None:
        process = await start("sh", "-c", "(sleep 0.05; echo last) & exit 0")
        assert text_of(await everything(process)) == b"last\n"
        assert process.left_behind == 0


class TestStop:
    async def test_a_job_gets_to_clean_up(self, start: Starter) -> None:
        process = await start(
            *python("""
                import os, signal, sys
                def clean(number, frame):
                    os.write(1, b"cleaned up\\n")
                    sys.exit(7)
                signal.signal(signal.SIGTERM, clean)
                os.write(1, b"ready\\n")
                while True:
                    signal.pause()
            """)
        )
        assert await first_line(process) == "ready"
        await process.stop(30)
        assert await process.wait() == Exit(7)
        assert text_of(await everything(process)) == b"ready\ncleaned up\n"
        await process.stop(30)

    async def test_a_job_gets_sigterm_once_also_when_its_children_end(self, start: Starter) -> None:
        process = await start(
            *python("""
                import os, signal, subprocess, sys
                told = []
                signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
                children = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
                orphan = "sleep 600 & echo"
                subprocess.run(["sh", "-c", orphan], stdout=subprocess.DEVNULL)
                os.write(1, b"ready\\n")
                for child in children:
                    child.wait()
                signal.sigtimedwait([signal.SIGUSR1], 0.3)
                sys.exit(len(told))
            """)
        )
        assert await first_line(process) == "ready"
        await process.stop(30)
        assert await process.wait() == Exit(1)

    async def test_a_job_that_ignores_sigterm_is_killed_with_its_children(self, start: Starter) -> None:
        process = await start("sh", "-c", "trap '' TERM; sleep 600 & echo $!; wait; wait")
        child = int(await first_line(process))
        begin = time.monotonic()
        await asyncio.gather(process.stop(0.3), process.stop(0.3))
        assert time.monotonic() - begin < 5
        assert await process.wait() == Exit(137)
        assert not exists(child)

    async def test_a_second_stop_may_shorten_the_grace(self, start: Starter) -> None:
        process = await start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done")
        await first_line(process)
        patient = asyncio.create_task(process.stop(600))
        await asyncio.sleep(0)
        await process.stop(0)
        await patient
        assert await process.wait() == Exit(137)

    @linux_only
    async def test_cancelling_a_start_leaves_nothing(self, start: Starter, folder: Path) -> None:
        starting = asyncio.create_task(start("sleep", "600"))
        while not (folder / supervise.SPEC).exists():
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        # The lock is released when the supervisor is gone, and not before.
        found = await SupervisedProcess.find(folder)
        if found is not None:
            await found.stop(0)
        assert not processes_with("no such mark", str(folder))


class TestEnvironment:
    @linux_only
    async def test_exactly_what_was_given(self, start: Starter, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AGENT_SECRET", "hidden")
        start.env["GIVEN"] = "line\nbreak ü \udcff"
        command = "import os, sys; sys.stdout.buffer.write(open('/proc/self/environ', 'rb').read())"
        process = await start(sys.executable, "-c", command)
        given = {os.fsencode(f"{name}={value}") for name, value in start.env.items()}
        assert set(text_of(await everything(process)).strip(b"\0").split(b"\0")) == given
        assert not (folder / supervise.SPEC).exists()

    @linux_only
    async def test_the_supervisor_has_nothing_of_the_agents(
        self, start: Starter, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AGENT_SECRET", "hidden")
        process = await start("sh", "-c", "echo up; ls -l /proc/self/fd; exec sleep 600")
        await first_line(process)
        supervisor, main = pids(folder)
        assert b"AGENT_SECRET" not in Path(f"/proc/{supervisor}/environ").read_bytes()
        assert b"sleep" not in Path(f"/proc/{supervisor}/cmdline").read_bytes()
        assert folder.stat().st_mode & 0o077 == 0
        assert {int(fd.name) for fd in Path(f"/proc/{main}/fd").iterdir()} == {0, 1, 2}
