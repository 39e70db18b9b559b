"""Many short runs at once, against the same commands side by side without any server.

    python benchmarks/concurrent_runs.py [--target docker --base-image IMAGE] [--runs 20] [--seconds 1.5] [--times 3]

Starts a `prefect-launch up` of its own in a temporary folder, submits the runs to one queue that has a place for each,
and waits for the last to end. "Bare" is the same program started as often by `subprocess`, or by `docker run`.
Prints each measurement and the medians.

(Not named `concurrent.py`: a script's folder comes first on Python's path, and would hide the standard library's
`concurrent`.)
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

SECONDS_TO_START = 180
SECONDS_TO_END = 90
PROGRAM = [sys.executable, "-m", "launch_prefect.cli"]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=("process", "docker"), default="process")
    parser.add_argument("--base-image", default=f"python:{sys.version_info[0]}.{sys.version_info[1]}-slim")
    parser.add_argument("--runs", type=int, default=20, help="how many at once (default: 20)")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each one sleeps (default: 1.5)")
    parser.add_argument("--times", type=int, default=3, help="how often to measure (default: 3)")
    given = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="lp-", dir="/tmp"))  # short: sockets are made below it
    try:
        with running(folder, queue_file(folder, given)):
            job = ["python", "-c", f"import time; time.sleep({given.seconds})"]
            measure(job, given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def measure(command: list[str], given: argparse.Namespace, folder: Path) -> None:
    """Ours and bare in turn, so that both meet the same machine."""
    (code := folder / "code").mkdir()
    (code / "README").write_text("A job of the benchmark.\n")
    image = ours(code, command, 1)[1]  # what the runs run in is built
    beside = docker_run(image, command) if image else [sys.executable, *command[1:]]
    ours_took, bare_took = [], []
    for number in range(given.times):
        bare_took.append(bare(beside, given.runs))
        ours_took.append(ours(code, command, given.runs)[0])
        print(f"{number + 1}: ours {ours_took[-1]:.2f} s, bare {bare_took[-1]:.2f} s", flush=True)
    one, other = statistics.median(ours_took), statistics.median(bare_took)
    what = f"{given.runs} runs of {given.seconds:g} s at once, target {given.target}, {os.cpu_count()} cores"
    print(f"{what}: ours {one:.2f} s, bare {other:.2f} s, {one / other:.2f} times (medians of {given.times})")
    if image:
        subprocess.run(["docker", "image", "rm", "--force", image], stdout=subprocess.DEVNULL, check=False)


def ours(code: Path, command: list[str], count: int) -> tuple[float, str | None]:
    """Seconds from the first submission to the last end, and the image that was run, if any."""
    from launch_prefect import Job, Queue

    queue, job = Queue("bench"), Job.from_code(code, entrypoint=command, name="bench")
    began = time.monotonic()
    runs = [queue.submit(job) for _ in range(count)]
    for run in runs:
        run.wait(600)
    took = time.monotonic() - began
    if failed := [run for run in runs if not run.succeeded]:
        raise SystemExit(
            f"{len(failed)} of {count} did not complete; the first: {failed[0].state}, {failed[0].message}"
        )
    image = runs[0].facts.get("image")
    return took, None if image is None else str(image)


def bare(command: Sequence[str], count: int) -> float:
    """Seconds that the same programs take side by side."""
    began = time.monotonic()
    for process in [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(count)]:
        if process.wait(600):
            raise SystemExit(f"{command} ended with exit code {process.returncode}")
    return time.monotonic() - began


def docker_run(image: str, command: list[str]) -> list[str]:
    """The command in a container, by Docker's own client."""
    name, *arguments = command
    return ["docker", "run", "--rm", "--init", "--entrypoint", name, image, *arguments]


def queue_file(folder: Path, given: argparse.Namespace) -> Path:
    """The queue: a place for every run."""
    config = f"resource_config: {{base_image: '{given.base_image}'}}\n" if given.target == "docker" else ""
    file = folder / "bench.yaml"
    file.write_text(f"queue_name: bench\ntarget: {given.target}\nconcurrency: {given.runs}\n{config}")
    return file


@contextmanager
def running(folder: Path, queue: Path) -> Iterator[None]:
    """A `prefect-launch up`, which the Python API in this process then uses."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "LAUNCH_"))]:
        del os.environ[name]
    (folder / "home").mkdir(mode=0o700)
    os.environ |= {"LAUNCH_HOME": str(folder / "home"), "PREFECT_HOME": str(folder / "prefect")}
    if bundle := os.environ.get("SSL_CERT_FILE"):
        os.environ["LAUNCH_CA_BUNDLE"] = bundle
    log = folder / "up.log"
    with log.open("wb") as output:
        command = [*PROGRAM, "up", "--port", str(free_port()), "-f", str(queue)]
        up = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + SECONDS_TO_START
        while "Ready after" not in log.read_text():
            if up.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"`up` did not start:\n{log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        if up.poll() is None:
            os.killpg(up.pid, signal.SIGINT)
        up.wait(SECONDS_TO_END)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
