"""The training example: it learns, keeps its model, takes its config, and says so when it cannot learn."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from launch_prefect.spec.job import JobSpec
from launch_prefect.tracking.metrics import parse_metrics

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/train"


@pytest.fixture
def train(tmp_path):
    """Run the example as a job runs it, given the config of the run and options."""

    def run(*options, config=None):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LAUNCH_")}
        environment |= {
            "PYTHONPATH": str(ROOT / "src/launch_prefect/runtime"),
            "LAUNCH_CONFIG": json.dumps(config or {}),
            "LAUNCH_OUTPUT_DIR": str(tmp_path / "outputs"),
        }
        return subprocess.run(
            [sys.executable, FOLDER / "train.py", *options],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def metrics_of(done):
    return [read for line in done.stdout.splitlines() if (read := parse_metrics(line))]


def test_it_learns_and_keeps_its_model(train, tmp_path):
    done = train(config={"learning_rate": 0.2, "epochs": 4, "seed": 1})
    assert done.returncode == 0, done.stderr
    logged = metrics_of(done)
    assert [line.step for line in logged] == [1, 2, 3, 4]
    assert logged[-1].metrics["loss"] < logged[0].metrics["loss"] < 0.69, "better than guessing, and improving"
    assert logged[-1].metrics["accuracy"] > 0.8
    assert re.search(r"^Trained: accuracy 8\d\.\d%|^Trained: accuracy 9\d\.\d%", done.stdout, re.MULTILINE)
    assert set(json.loads((tmp_path / "outputs/model.json").read_text())) == {"hidden", "output", "bias"}


def test_the_same_seed_gives_the_same_model(train, tmp_path):
    models = []
    for seed in (3, 3, 4):
        assert train("--epochs", "1", "--seed", str(seed)).returncode == 0
        models.append((tmp_path / "outputs/model.json").read_text())
    assert models[0] == models[1] != models[2]


def test_options_come_before_the_config(train):
    done = train("--epochs", "2", "--learning_rate", "0.1", config={"epochs": 1, "learning_rate": 1e9})
    assert done.returncode == 0, done.stderr
    assert len(metrics_of(done)) == 2


def test_a_learning_rate_that_is_too_large_fails_with_the_reason(train, tmp_path):
    done = train(config={"learning_rate": 1000.0, "epochs": 3})
    assert done.returncode == 1
    assert re.search(r"diverged in epoch \d.*learning rate 1000 is too large", done.stderr)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs/model.json").exists()


@pytest.mark.parametrize("option", ["--epochs=0", "--learning-rate=-1", "--epochs=many"])
def test_options_that_mean_nothing_are_refused(train, option):
    done = train(option)
    assert done.returncode == 2
    assert option.partition("=")[0] in done.stderr


def test_its_job_file_is_valid_and_has_the_defaults_of_the_script(train):
    job = JobSpec.parse(yaml.safe_load((FOLDER / "job.yaml").read_text()), what="job.yaml")
    assert job.command == ("python", "train.py")
    shown = train("--help")
    assert shown.returncode == 0
    source = (FOLDER / "train.py").read_text()
    for name, value in job.config.items():
        assert f'config.get("{name}", {value})' in source
