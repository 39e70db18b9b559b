"""The program against a real Prefect server: what it makes, shows and refuses. No agent runs anything here."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from launch_prefect.client import Run
from launch_prefect.errors import NotFound
from launch_prefect.runtime import launch_run
from launch_prefect.settings import get_settings

if TYPE_CHECKING:
    from tests.integration.launching import Launch

pytest_plugins = ["tests.integration.launching"]

PYTHON = ("--", "python", "train.py")


@pytest.fixture(scope="module")
def queue(launch: Launch, tag: str) -> Iterator[str]:
    """A process queue that no agent serves."""
    name = f"cli-{tag}"
    launch("queue", "create", name, "--target", "process", "--concurrency", "2")
    yield name
    launch("queue", "delete", name, "--yes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tag: str) -> Path:
    """A folder of code."""
    folder = tmp_path_factory.mktemp("code") / f"train-{tag}"
    folder.mkdir()
    (folder / "train.py").write_text("print('trained')\n")
    return folder


def test_a_queue_from_creation_to_deletion(launch: Launch, tag: str, tmp_path: Path) -> None:
    name = f"life-{tag}"
    made = launch("queue", "create", name, "--target", "process", "--concurrency", "3", "--json").json
    assert made == {
        "name": name, "target": "process", "concurrency": 3, "paused": False, "in_progress": 0, "waiting": 0,
        "builder": {}, "description": "",
    }  # fmt: skip
    assert "exists already" in launch("queue", "create", name, "--target", "process", code=2).err
    assert made in launch("queue", "list", "--json").json
    assert name in launch("queue", "list").out
    shown = launch("queue", "show", name)
    assert "3 runs at once" in shown.out
    assert f"prefect-launch agent -q {name}" in shown.err
    assert launch("queue", "show", name, "--json").json == {**made, "agents": [], "waiting_runs": []}

    assert launch("queue", "pause", name, "--json").json["paused"] is True
    assert launch("queue", "show", name, "--json").json["concurrency"] == 3  # pausing changes nothing else
    assert "paused" in launch("doctor", "-q", name, code=1).out
    assert launch("queue", "resume", name, "--json").json["paused"] is False

    file = tmp_path / "queue.yaml"
    file.write_text(f"queue_name: {name}\ntarget: process\nconcurrency: 5\n")
    assert launch("queue", "apply", file, "--json").json["concurrency"] == 5

    assert launch("queue", "delete", name, "--json").json == {"deleted": name}
    assert name not in [queue["name"] for queue in launch("queue", "list", "--json").json]


def test_a_job_from_creation_to_deletion(launch: Launch, queue: str, folder: Path, tag: str) -> None:
    made = launch(
        "job", "create", "code", folder, "-q", queue, "--config-default", "lr=0.1", "--config-default", "epochs=3",
        "--env", "MODE=full", "--timeout", "60", "--json", *PYTHON,
    ).json  # fmt: skip
    name = folder.name
    assert made["name"] == name
    assert made["queues"] == [queue]
    assert made["command"] == ["python", "train.py"]
    assert made["config"] == {"lr": 0.1, "epochs": 3}
    assert made["version"].startswith("code-")
    assert made in launch("job", "list", "-q", queue, "--json").json
    shown = launch("job", "show", name).out
    assert "python train.py" in shown
    assert "0.1" in shown
    assert launch("job", "show", name, "--json").json == made

    run = launch("submit", "-q", queue, name, "--set", "epochs=7", "--json").json
    assert launch("run", "show", run["id"], "--json").json["config"] == {"lr": 0.1, "epochs": 7}
    launch("run", "cancel", run["id"])

    assert "epochs" in launch("submit", "-q", queue, name, "--set", "epoch=7", code=2).err
    assert "integer" in launch("submit", "-q", queue, name, "--set", "epochs=many", code=2).err
    assert "--env" in launch("submit", "-q", queue, name, "--env", "A=b", code=2).err

    refused = launch("job", "delete", name, code=2)
    assert "--yes" in refused.err
    assert launch("job", "delete", name, "--yes", "--json").json == {"deleted": name, "queues": [queue]}
    assert "no job" in launch("job", "show", name, code=2).err


def test_a_waiting_run_is_shown_and_cancelled(launch: Launch, queue: str, folder: Path, tag: str) -> None:
    submitted = launch("submit", "-q", queue, folder, "--name", f"first-{tag}", *PYTHON)
    assert "No agent serves" in submitted.err
    second = launch("submit", "-q", queue, folder, "--json", *PYTHON).json
    assert second["id"] in second["url"]
    assert (second["queue"], second["state"], second["exit_code"]) == (queue, "Scheduled", None)

    waiting = launch("queue", "show", queue, "--json").json
    assert waiting["waiting"] == 2
    assert [run["name"] for run in waiting["waiting_runs"]] == [f"first-{tag}", second["name"]]
    assert "still has runs: 2 waiting" in launch("queue", "delete", queue, code=2).err
    listed = launch("run", "list", "-q", queue, "--state", "waiting", "--json").json
    assert [run["id"] for run in listed] == [second["id"], waiting["waiting_runs"][0]["id"]]
    assert second["id"][:8] in launch("run", "list", "-q", queue).out

    assert "has not ended within 0.1 s" in launch("run", "wait", second["id"], "--timeout", "0.1", code=1).err
    assert launch("run", "logs", second["id"], "--json").json == []
    for run in waiting["waiting_runs"]:
        assert launch("run", "cancel", run["id"], "--wait", "--json").json["state"] == "Cancelled"
    assert launch("run", "wait", second["id"], "--json", code=1).json["state_type"] == "CANCELLED"
    assert launch("run", "logs", second["id"], "--follow", code=1)
    assert "already ended" in launch("run", "cancel", second["id"], code=2).err


def test_a_job_with_runs_is_not_deleted_unseen(launch: Launch, queue: str, folder: Path, tag: str) -> None:
    job = f"busy-{tag}"
    run = launch("submit", "-q", queue, folder, "--job-name", job, "--json", *PYTHON).json
    refused = launch("job", "delete", job, code=2)
    assert f"The job {job!r} still has runs: 1 waiting, 0 in progress." in refused.err
    assert f"prefect-launch job delete {job} --yes" in refused.err
    assert launch("run", "show", run["id"], "--json").json["state"] == "Scheduled"
    launch("job", "delete", job, "--yes")
    assert launch("run", "show", run["id"], "--json").json["state"] == "Cancelled"
    assert "no job" in launch("job", "show", job, code=2).err


def test_a_run_deleted_on_the_server_is_said_in_words(
    launch: Launch, queue: str, folder: Path, api: str, environment: dict[str, str], tag: str
) -> None:
    job = f"gone-{tag}"
    submitted = launch("submit", "-q", queue, folder, "--job-name", job, "--json", *PYTHON).json
    with mock.patch.dict(os.environ, environment, clear=True):
        get_settings.cache_clear()

        async def look() -> None:
            run = await Run.aget(submitted["id"])
            assert httpx.delete(f"{api}/flow_runs/{run.id}").status_code == 204
            for work in (run.arefresh(), run.await_end(20), run.acancel(), anext(aiter(run.afollow()))):
                with pytest.raises(NotFound, match=r"deleted"):
                    await work

        asyncio.run(look())
    get_settings.cache_clear()
    launch("job", "delete", job, "--yes")


def test_a_long_log_is_read_page_by_page(
    launch: Launch, queue: str, folder: Path, api: str, environment: dict[str, str], tag: str
) -> None:
    job = f"long-{tag}"
    submitted = launch("submit", "-q", queue, folder, "--job-name", job, "--json", *PYTHON).json
    began = datetime.now(UTC)
    for first in range(0, 450, 150):
        entries = [
            {
                "name": "stdout", "level": 20, "flow_run_id": submitted["id"],
                "timestamp": (began + timedelta(milliseconds=n)).isoformat(),
                "message": metrics_line(n) if n % 2 else f"line {n}",
            }
            for n in range(first, first + 150)
        ]  # fmt: skip
        assert httpx.post(f"{api}/logs/", json=entries).status_code == 201

    def stored() -> list[Any]:
        listed: list[Any] = launch("run", "logs", submitted["id"], "--json").json
        return listed

    deadline = time.monotonic() + 20
    while len(stored()) < 450 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [line["text"] for line in stored()[::2]] == [f"line {n}" for n in range(0, 450, 2)]
    assert launch("run", "logs", submitted["id"]).out.count("\n") == 450
    assert launch("run", "show", submitted["id"], "--json").json["metrics"] == {
        "loss": {"value": 449.0, "step": 449, "count": 225}
    }
    with mock.patch.dict(os.environ, environment, clear=True):
        get_settings.cache_clear()

        async def first_of(lines: Callable[[Run], AsyncGenerator[Any]]) -> int:
            with mock.patch.object(
                PrefectClient, "read_logs", autospec=True, side_effect=PrefectClient.read_logs
            ) as read:
                async with aclosing(lines(await Run.aget(submitted["id"]))) as given:
                    await anext(given)
                return read.call_count

        assert asyncio.run(first_of(Run.aiter_logs)) == 1
        assert asyncio.run(first_of(Run.aiter_metrics)) == 1
    get_settings.cache_clear()
    launch("job", "delete", job, "--yes")


def metrics_line(step: int) -> str:
    """As `launch_run.log` writes it."""
    written = io.StringIO()
    with contextlib.redirect_stdout(written):
        launch_run.log({"loss": float(step)}, step=step)
    return written.getvalue().rstrip("\n")


def test_a_job_that_cannot_be_read_hides_no_other(launch: Launch, queue: str, folder: Path, api: str, tag: str) -> None:
    good, bad = f"good-{tag}", f"bad-{tag}"
    for name in (good, bad):
        launch("job", "create", "code", folder, "-q", queue, "--name", name, *PYTHON)
    at = httpx.get(f"{api}/deployments/name/{bad}/{queue}").json()
    for damage in ({"source": {"nonsense": 1}}, {"source": at["job_variables"]["source"], "command": 'a "b'}):
        changed = httpx.patch(f"{api}/deployments/{at['id']}", json={"job_variables": damage})
        assert changed.status_code == 204, changed.text
        listed = launch("job", "list", "-q", queue, "--json")
        assert good in [job["name"] for job in listed.json]
        assert bad not in [job["name"] for job in listed.json]
        assert f"Note: The job {bad}/{queue} cannot be read" in listed.err
    assert httpx.delete(f"{api}/deployments/{at['id']}").status_code == 204
    launch("job", "delete", good, "--yes")


def test_what_is_left_out_of_the_code_is_said(launch: Launch, queue: str, tmp_path: Path, tag: str) -> None:
    folder = tmp_path / f"secretive-{tag}"
    folder.mkdir()
    (folder / "train.py").write_text("")
    (folder / ".env").write_text("KEY=secret\n")
    for words in (("job", "create", "code"), ("submit",)):
        for json_too in ((), ("--json",)):
            done = launch(*words, folder, "-q", queue, *json_too, *PYTHON)
            assert "Left out of the code" in done.err
            assert ".env" in done.err
    launch("job", "delete", folder.name, "--yes")


def test_the_words_decide_what_is_submitted(launch: Launch, queue: str, folder: Path) -> None:
    job = folder.name
    launch("job", "create", "code", folder, "-q", queue, *PYTHON)
    run = launch("submit", "-q", queue, job, "--json", cwd=folder).json  # no folder of that name here
    assert run["job"] == job
    without_command = launch("submit", "-q", queue, job, "--json", cwd=folder.parent).json
    assert without_command["job"] == job
    by_option = launch("submit", "-q", queue, "--job", job, "--json", cwd=folder.parent).json
    assert by_option["job"] == job
    other = launch("submit", "-q", queue, job, "--job-name", f"{job}-b", "--json", *PYTHON, cwd=folder.parent)
    assert other.json["job"] == f"{job}-b"
    assert f"There is also a job {job!r}" in other.err
    assert "is a file" in launch("submit", "-q", queue, "train.py", cwd=folder, code=2).err
    for made in (job, f"{job}-b"):
        launch("job", "delete", made, "--yes")
    for waiting in launch("run", "list", "-q", queue, "--state", "scheduled", "--json").json:
        launch("run", "cancel", waiting["id"])


def test_refusals_at_submission(launch: Launch, queue: str, folder: Path, tmp_path: Path) -> None:
    def refused(*words: str | Path) -> str:
        done = launch("submit", *words, code=2)
        assert done.err.startswith("Error: ")
        assert not done.out
        return done.err

    empty = tmp_path / "empty"
    empty.mkdir()
    bad = tmp_path / "job.yaml"
    bad.write_text(f"name: a\nsource: {{code: {folder}}}\ncommand: [a]\nresorces: {{gpu: 1}}\n")
    needs = tmp_path / "needs.yaml"
    needs.write_text("gpus: 1\n")

    assert "does not exist" in refused("-q", queue, tmp_path / "nowhere", *PYTHON)
    assert "empty" in refused("-q", queue, empty, *PYTHON)
    assert "resources" in refused("-q", queue, "-c", bad)
    assert "'gpu'" in refused("-q", queue, folder, "-R", needs, *PYTHON)
    assert "target docker" in refused("-q", queue, "--image", "example.com/a/b:1")
    assert "runs processes" in refused("-q", queue, folder, "--dockerfile", "Dockerfile", *PYTHON)
    assert "WHAT and --image" in refused("-q", queue, folder, "--image", "a/b")
    assert "in no git work tree" in refused("-q", queue, folder, "--git", *PYTHON)
    secret = refused("-q", queue, "https://example.com/a/b", "--git-credentials", "hunter2", *PYTHON)
    assert "name a Prefect block as TYPE/NAME" in secret
    unknown = refused("-q", f"{queue}x", folder, *PYTHON)
    assert f"Did you mean {queue!r}" in unknown
    assert launch("run", "list", "-q", queue, "--state", "scheduled", "--json").json == []
    assert folder.name not in [job["name"] for job in launch("job", "list", "--json").json]  # nothing half-made


def test_what_does_not_exist(launch: Launch) -> None:
    for words in (
        ("run", "show", str(uuid.uuid4())),
        ("run", "logs", "123"),
        ("queue", "show", "no-such-queue-at-all"),
        ("queue", "pause", "no-such-queue-at-all"),
        ("queue", "delete", "no-such-queue-at-all", "--yes"),
        ("run", "list", "-q", "no-such-queue-at-all"),
        ("job", "delete", "no-such-job-at-all", "--yes"),
    ):
        assert launch(*words, code=2).err.startswith("Error: ")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/api", ""])
def test_a_server_that_is_not_there_is_named_within_seconds(program: Launch, folder: Path, url: str) -> None:
    began = time.monotonic()
    done = program("submit", "-q", "a", folder, *PYTHON, env={"PREFECT_API_URL": url}, code=3)
    assert time.monotonic() - began < 10
    assert "prefect-launch up" in done.err
    assert url in done.err


def test_doctor_without_a_server(program: Launch) -> None:
    assert program("doctor", "--json", env={"PREFECT_API_URL": "http://127.0.0.1:9/api"}, code=3).json["ok"] is False


def test_doctor_says_what_would_stop_a_run(launch: Launch, queue: str, tmp_path: Path) -> None:
    found = {check["name"]: check for check in launch("doctor", "-q", queue, "--json", code=1).json["checks"]}
    assert found["server"]["level"] == "ok"
    assert found["clock"]["level"] == "ok"
    assert found[f"queue {queue}"]["level"] == "problem"
    assert f"agent -q {queue}" in found[f"queue {queue}"]["mend"]
    assert found["uv"]["level"] == found["code store"]["level"] == "ok"
    assert "docker engine" not in found  # runs of this queue do not need it

    (tmp_path / "file").touch()
    done = launch("doctor", "-q", queue, "--json", env={"LAUNCH_HOME": str(tmp_path / "file")}, code=1)
    assert {check["name"]: check for check in done.json["checks"]}["disk"]["level"] == "problem"

    no_engine = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
    found = {check["name"]: check for check in launch("doctor", "--json", env=no_engine, code=None).json["checks"]}
    assert found["docker engine"]["level"] in ("warning", "unreachable")


def test_a_reader_that_goes_away_is_no_error(environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m launch_prefect.cli queue list --json | true"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
