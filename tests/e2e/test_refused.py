"""Bad input is refused where it enters, and nothing half-made stays; what only a build can find out fails the run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from launch_prefect import Job, Queue, Run
from tests.e2e.system import CASES, System, case, explained

PYTHON = ("-E", "python job.py talk", "--job-name", "e2e-refused")


def _made(system: System) -> dict[str, Any]:
    """Everything that a submission makes."""
    return {
        "runs": {run.id for run in Run.list(limit=200)},
        "jobs": {job.name for job in Job.list()},
        "queues": {queue.name for queue in Queue.list()},
        "code": {path for path in (system.home / "code").rglob("*") if path.is_file()},
    }


def test_refused_at_submission(system: System, tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    (unknown_key := tmp_path / "job.yaml").write_text(
        f"name: e2e-refused\nsource: {{code: {CASES}}}\ncommand: [python, job.py]\nresorces: {{gpu: 1}}\n"
    )
    (wrong_type := tmp_path / "needs.yaml").write_text("gpu: many\n")
    case("talk", name="e2e-inputs-typed", config={"epochs": 3}).create("local")
    local = ("submit", "-q", "local")
    typed = (*local, "--job", "e2e-inputs-typed", "--set")
    refused: dict[tuple[str | Path, ...], tuple[str, ...]] = {
        (*local, tmp_path / "nowhere", *PYTHON): ("nowhere", "does not exist"),
        (*local, empty, *PYTHON): ("empty",),
        (*local, CASES, "-R", wrong_type, *PYTHON): ("gpu", "integer", "many"),
        (*local, "-c", unknown_key): ("resorces", "did you mean 'resources'"),
        (*typed, "epochs=many"): ("epochs", "integer", "many"),
        (*typed, "epoch=4"): ("epoch", "did you mean 'epochs'"),
        (*local, CASES, "-E", "python ${run_uid}"): ("${run_uid}", "did you mean ${run_id}"),
        ("submit", "-q", "locale", CASES, *PYTHON): ("'locale'", "Did you mean 'local'"),
        (*local, "--image", "example.com/team/train:1.4"): ("runs processes", "target docker"),
        (*local, "--image", "example.com/Team/train:1.4"): ("lower case",),
        ("queue", "create", "e2e-new", "--target", "dokcer"): ("docker",),
    }
    before = _made(system)
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda words: system.cli(*words, code=2), refused))
    for (words, expected), one in zip(refused.items(), done, strict=True):
        assert one.out == "", words
        assert one.err.startswith("Error: "), words
        for part in expected:
            assert part in one.err, words
    assert _made(system) == before
    Job.get("e2e-inputs-typed").delete()


def test_a_server_that_is_not_there(system: System) -> None:
    began = time.monotonic()
    nowhere = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = system.cli("submit", "-q", "local", CASES, *PYTHON, env=nowhere, code=3)
    assert time.monotonic() - began < 15
    assert "http://127.0.0.1:9/api" in done.err
    assert "prefect-launch up" in done.err


@pytest.mark.parametrize("way", ["conflict", "syntax"])
def test_requirements_that_do_not_resolve(system: System, queue: str, tmp_path: Path, way: str) -> None:
    (folder := tmp_path / "e2e-unresolved").mkdir()
    (folder / "main.py").write_text("print('never')\n")
    lines = {"conflict": "packaging==23.0\npackaging==24.0\n", "syntax": "packaging=>24\n"}
    (folder / "requirements.txt").write_text(lines[way])
    done = system.cli("submit", "-q", queue, folder, "-E", "python main.py", "--follow", "--json", code=1)
    run = Run.get(done.json["id"])
    assert run.state == "Failed", explained(run)
    assert "packaging" in run.message
    assert "never" not in done.err
    if queue == "local":
        assert {"conflict": "unsatisfiable", "syntax": "requirements.txt"}[way] in run.message
