"""A job that does what its first argument says: `python job.py CASE [ARGUMENTS]`. The standard library alone."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import launch_run

SLEEP = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]


def say(text: str, stream: object = None) -> None:
    print(text, file=stream or sys.stdout, flush=True)


def talk() -> None:
    """Both streams in turn, metrics and a file."""
    for n in range(4):
        for part in range(3):
            say(f"{n}.{part}", sys.stderr if n % 2 else sys.stdout)
        time.sleep(0.2)  # the streams are two pipes: only time orders them
    for step in range(3):
        launch_run.log({"loss": 1 / (step + 1)}, step=step)
    (launch_run.output_dir / "model.json").write_text(json.dumps({"weights": [1, 2, 3]}))
    say("the last line")


def inputs() -> None:
    say(
        json.dumps(
            {
                "words": sys.argv[2:],
                "environment": json.loads(os.environ["LAUNCH_CONFIG"]),
                "module": launch_run.config,
                "rate": os.environ.get("RATE"),
            }
        )
    )


def exit_with(code: str) -> None:
    say(f"about to end with {code}")
    sys.exit(int(code))


def signal_itself(number: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    say(f"about to end by signal {number}")
    os.kill(os.getpid(), int(number))
    time.sleep(60)


def polite() -> None:
    def end(*_: object) -> None:
        say("asked to end")
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    say("ready")
    time.sleep(600)


def stubborn() -> None:
    """Ignores SIGTERM, as do a child and one in a session of its own."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(SLEEP)
    subprocess.Popen(SLEEP, start_new_session=True)
    say("ready")
    time.sleep(600)


def leave_children() -> None:
    subprocess.Popen(SLEEP)
    subprocess.Popen(SLEEP, start_new_session=True)
    say("children are left")


def raw_bytes(length: str) -> None:
    out = sys.stdout.buffer
    out.write(b"not \xff\xfe UTF-8, caf\xc3\xa9\n")
    out.write("é".encode() + b"x" * (int(length) - 2) + b"y\n")
    out.write(b"no line feed")
    out.flush()


def environment() -> None:
    say(json.dumps(dict(os.environ)))


def secret(name: str) -> None:
    value = os.environ[name]
    say(hashlib.sha256(value.encode()).hexdigest())
    say(f"out: {value}!")
    say(f"err: {value}!", sys.stderr)
    sys.exit(1)


def count(number: str, pause: str) -> None:
    for n in range(int(number)):
        say(f"line {n}")
        time.sleep(float(pause))


def sleep(seconds: str) -> None:
    time.sleep(float(seconds))


def flood(size: str, width: str) -> None:
    """`size` bytes in lines of `width`, each beginning with its number."""
    rest = b"." * int(width)
    out = sys.stdout.buffer
    for n in range(int(size) // int(width)):
        out.write((b"%010d" % n + rest)[: int(width) - 1] + b"\n")
    out.flush()


def take_memory() -> None:
    taken = []
    while True:
        taken.append(bytearray(b"x" * (16 * 1024 * 1024)))


CASES = (
    talk, inputs, exit_with, signal_itself, polite, stubborn, leave_children, raw_bytes, environment, secret, count,
    sleep, flood, take_memory,
)  # fmt: skip

if __name__ == "__main__":
    {case.__name__: case for case in CASES}[sys.argv[1]](*([] if sys.argv[1] == "inputs" else sys.argv[2:]))
