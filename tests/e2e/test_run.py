"""The life of a run on both targets: submitted, carried out, ended in its true state with everything it said."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.system import Secret

from launch_prefect import Queue, Run
from tests.e2e.conftest import MARKER
from tests.e2e.system import CASES, JOB, System, case, explained, left_of, submit, texts, until

END_SECONDS = 60


def test_a_job_from_a_folder_completes(system: System, queue: str, tmp_path: Path) -> None:
    words = ("submit", "-q", queue, CASES, "--job-name", JOB, "-E", "python job.py talk", "--name", "first")
    shown = system.cli(*words, "--follow")
    assert "the last line" in shown.out
    assert "Completed" in shown.out.splitlines()[-1]
    [run] = [run for run in Run.list(queue=queue) if run.name == "first" and str(run.id) in shown.out]
    assert (run.state, run.exit_code) == ("Completed", 0), explained(run)

    lines = run.logs()
    said = [(line.stream, line.text) for line in lines if line.text[1:2] == "."]
    streams = ("stdout", "stderr", "stdout", "stderr")
    assert said == [(streams[n], f"{n}.{part}") for n in range(4) for part in range(3)]
    assert {line.level for line in lines if line.stream == "stderr"} == {30}
    assert [line.at for line in lines] == sorted(line.at for line in lines)
    assert [(metrics.step, metrics.metrics["loss"]) for metrics in run.metrics()] == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    model = run.outputs(tmp_path / "outputs") / "model.json"
    assert json.loads(model.read_text()) == {"weights": [1, 2, 3]}

    about = system.cli("run", "show", run.id, "--json").json
    assert (about["state"], about["exit_code"], about["queue"], about["job"]) == ("Completed", 0, queue, JOB)
    assert about["metrics"]["loss"] == {"value": 1 / 3, "step": 2, "count": 3}
    assert about["facts"]["attempt"] == 1
    assert about["facts"]["version"].startswith("code-")


def test_the_log_is_whole_when_the_state_is_final(queue: str) -> None:
    run = submit(queue, "count", 3000, 0)
    until(lambda: run.refresh().is_final, "the end of the run", END_SECONDS)
    lines = texts(run)
    assert lines == [f"line {n}" for n in range(3000)], explained(run)


def test_config_reaches_the_job(queue: str) -> None:
    defaults = {"learning_rate": 0.1, "epochs": 3, "amp": False, "sizes": [1, 2], "model": {"depth": 4}}
    job = case(
        "inputs", "${args}", "${config.learning_rate}", "${config.model.depth} deep", "$HOME", "$${x}",
        name="e2e-inputs", config=defaults, env={"RATE": "${config.learning_rate} of ${job_name}"},
    )  # fmt: skip
    run = Queue(queue).submit(job, config={"learning_rate": 0.5, "amp": True}).wait(END_SECONDS)
    assert run.succeeded, explained(run)
    config = defaults | {"learning_rate": 0.5, "amp": True}
    said = json.loads(texts(run)[0])
    assert run.config == said["environment"] == said["module"] == config
    *options, one, two, three, four = said["words"]
    assert sorted(" ".join([*options, ""]).split("--")[1:]) == [
        "amp ", "epochs 3 ", "learning_rate 0.5 ", 'model {"depth":4} ', "sizes 1 2 ",
    ]  # fmt: skip
    assert [one, two, three, four] == ["0.5", "4 deep", "$HOME", "${x}"]
    assert said["rate"] == "0.5 of e2e-inputs"


def test_exit_codes_and_signals(queue: str) -> None:
    codes = {code: submit(queue, "exit_with", code) for code in (1, 3)}
    signals = {128 + number: submit(queue, "signal_itself", number) for number in (9, 11)}
    for code, run in codes.items():
        run.wait(END_SECONDS)
        assert (run.state, run.exit_code) == ("Failed", code), explained(run)
        assert f"Exit code {code}." in run.message
        assert f"about to end with {code}" in run.message
    for (code, run), name in zip(signals.items(), ("SIGKILL", "SIGSEGV"), strict=True):
        run.wait(END_SECONDS)
        assert (run.state, run.exit_code) == ("Crashed", code), explained(run)
        assert f"Killed by {name} (exit code {code})" in run.message


def test_following_a_run_that_fails_ends_with_1(system: System, queue: str) -> None:
    words = ("submit", "-q", queue, CASES, "--job-name", JOB, "-E", "python job.py exit_with 3", "--follow")
    done = system.cli(*words, "--json", code=1)
    assert (done.json["state"], done.json["exit_code"]) == ("Failed", 3)
    assert "about to end with 3" in done.err


def test_command_not_found(system: System, queue: str) -> None:
    words = ("submit", "-q", queue, CASES, "--job-name", JOB, "--follow", "--json", "--", "no-such-program", "--flag")
    run = Run.get(system.cli(*words, code=1).json["id"])
    assert run.state == "Failed", explained(run)
    assert "no-such-program" in run.message


def test_cancelled_within_seconds_with_all_its_children(system: System, queue: str) -> None:
    polite, stubborn = submit(queue, "polite"), submit(queue, "stubborn")
    for run in (polite, stubborn):
        until(lambda run=run: "ready" in texts(run), "a line of the run", END_SECONDS)
    assert left_of(stubborn)
    began = time.monotonic()
    polite.cancel()
    assert system.cli("run", "cancel", stubborn.id, "--wait", "--json").json["state"] == "Cancelled"
    polite.wait(END_SECONDS)
    assert time.monotonic() - began < 20  # of which a second is the grace, and most is loading the command line
    assert polite.state == "Cancelled"
    assert "asked to end" in texts(polite)
    assert left_of(polite) == left_of(stubborn) == []


def test_time_out(queue: str) -> None:
    run = submit(queue, "sleep", 600, timeout=1.5).wait(END_SECONDS)
    assert run.state == "TimedOut", explained(run)
    assert run.state_type == "FAILED"
    assert "time-out of 1.5 s" in run.message
    assert left_of(run) == []


def test_children_that_are_left_do_not_stay(queue: str) -> None:
    run = submit(queue, "leave_children").wait(END_SECONDS)
    assert run.succeeded, explained(run)
    assert "children are left" in texts(run)
    assert left_of(run) == []


def test_bytes_and_a_line_of_a_million_characters_arrive_whole(queue: str) -> None:
    run = submit(queue, "raw_bytes", 1_000_000).wait(END_SECONDS)
    first, *long, last = texts(run)
    assert first == "not \ufffd\ufffd UTF-8, café"
    assert "".join(long) == "é" + "x" * 999_998 + "y"
    assert last == "no line feed"


def test_nothing_of_the_agents_environment_reaches_the_job(queue: str) -> None:
    run = submit(queue, "environment", env={"OWN": "of the job"}).wait(END_SECONDS)
    seen = json.loads(texts(run)[0])
    assert seen["OWN"] == "of the job"
    assert seen["LAUNCH_RUN_ID"] == str(run.id)
    assert MARKER not in json.dumps(seen)
    assert [name for name in seen if name.startswith("PREFECT_")] == []
    assert {name for name in seen if name.startswith("LAUNCH_")} == {
        "LAUNCH_RUN_ID", "LAUNCH_RUN_NAME", "LAUNCH_JOB", "LAUNCH_QUEUE", "LAUNCH_ATTEMPT", "LAUNCH_CONFIG",
        "LAUNCH_OUTPUT_DIR",
    }  # fmt: skip


@pytest.fixture
def secret() -> Iterator[tuple[str, str]]:
    """Name and value of a secret that the server keeps."""
    name, value = f"e2e-{uuid.uuid4().hex[:8]}", f"s3cret-{uuid.uuid4().hex}"
    Secret(value=value).save(name)
    yield name, value
    Secret.delete(name)


def test_a_secret_reaches_the_job_and_nothing_else(system: System, queue: str, secret: tuple[str, str]) -> None:
    name, value = secret
    run = submit(queue, "secret", "TOKEN", env={"TOKEN": f"{{{{ prefect.blocks.secret.{name} }}}}"}).wait(END_SECONDS)
    assert run.exit_code == 1, explained(run)
    assert texts(run) == [hashlib.sha256(value.encode()).hexdigest(), "out: ********!"]
    assert texts(run, "stderr") == ["err: ********!"]
    assert "err: ********!" in run.message
    assert value not in json.dumps(run.flow_run.model_dump(mode="json"))
    assert value not in system.log("agent")
