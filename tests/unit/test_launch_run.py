"""The module that jobs import: alone, inside a run and outside one."""

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src/launch_prefect/runtime/launch_run.py"


@pytest.fixture
def launch_run(monkeypatch, tmp_path):
    """The module as a job sees it: fresh, outside any run, in a folder of its own."""
    for name in list(os.environ):
        if name.startswith("LAUNCH_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("launch_run", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logged(capsys):
    """The documents of the lines of metrics that were printed."""
    lines = capsys.readouterr().out.splitlines()
    prefix = "::launch-metrics:: "
    assert all(line.startswith(prefix) for line in lines)
    return [json.loads(line.removeprefix(prefix)) for line in lines]


class Scalar:
    """What NumPy's scalars and PyTorch's tensors have in common."""

    def __init__(self, value):
        self.value = value

    def item(self):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_outside_a_run_everything_has_a_value(launch_run, tmp_path):
    assert launch_run.config == {}
    assert launch_run.run_id is launch_run.run_name is launch_run.job is launch_run.queue is None
    assert launch_run.attempt == 1
    assert not (tmp_path / "outputs").exists(), "an import alone makes no folder"
    assert launch_run.output_dir == tmp_path / "outputs"
    assert launch_run.output_dir.is_dir()


def test_inside_a_run_values_come_from_the_environment(launch_run, monkeypatch, tmp_path):
    monkeypatch.setenv("LAUNCH_CONFIG", '{"learning_rate": 0.5, "layers": [1, 2], "name": "ü"}')
    monkeypatch.setenv("LAUNCH_OUTPUT_DIR", str(tmp_path / "a/b"))
    for name in ("RUN_ID", "RUN_NAME", "JOB", "QUEUE"):
        monkeypatch.setenv(f"LAUNCH_{name}", name.lower())
    monkeypatch.setenv("LAUNCH_ATTEMPT", "3")
    assert launch_run.config == {"learning_rate": 0.5, "layers": [1, 2], "name": "ü"}
    assert launch_run.output_dir == tmp_path / "a/b"
    assert launch_run.output_dir.is_dir()
    assert (launch_run.run_id, launch_run.run_name) == ("run_id", "run_name")
    assert (launch_run.job, launch_run.queue, launch_run.attempt) == ("job", "queue", 3)


def test_values_are_read_once(launch_run, monkeypatch, tmp_path):
    launch_run.config["seen"] = True
    folder = launch_run.output_dir
    monkeypatch.setenv("LAUNCH_CONFIG", '{"other": 1}')
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert launch_run.config == {"seen": True}
    assert launch_run.output_dir == folder


@pytest.mark.parametrize(("text", "says"), [("{bad", "no JSON"), ("[1]", "JSON object"), ("3", "JSON object")])
def test_a_config_that_is_no_object_is_explained(launch_run, monkeypatch, text, says):
    monkeypatch.setenv("LAUNCH_CONFIG", text)
    with pytest.raises(ValueError, match=f"LAUNCH_CONFIG.*{says}"):
        _ = launch_run.config


def test_an_unknown_name_is_refused_with_what_there_is(launch_run):
    with pytest.raises(AttributeError, match=r"'outputdir'.*output_dir"):
        _ = launch_run.outputdir
    assert {"config", "log", "output_dir", "run_id"} <= set(dir(launch_run))


def test_log_writes_one_line(launch_run, capsys):
    launch_run.log({"loss": 0.25, "epoch": 2}, step=3)
    [document] = logged(capsys)
    assert document.pop("time") > 1_600_000_000
    assert document == {"step": 3, "metrics": {"loss": 0.25, "epoch": 2}}


def test_log_keeps_line_ends_in_names_out_of_the_line(launch_run, capsys):
    launch_run.log({"a\nb\u2028ü": 1})
    [document] = logged(capsys)
    assert document["metrics"] == {"a\nb\u2028ü": 1}
    assert document["step"] is None


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (True, 1),
        (Scalar(0.5), 0.5),
        (Scalar(7), 7),
        (Scalar(float("nan")), "NaN"),
        (Scalar(True), 1),
        (2**62, 2**62),
        (2**70, float(2**70)),
    ],
)
def test_log_writes_numbers_of_all_kinds_as_plain_json(launch_run, capsys, value, written):
    launch_run.log({"x": value})
    assert [line["metrics"] for line in logged(capsys)] == [{"x": written}]


def test_log_takes_decimals_and_fractions(launch_run, capsys):
    from decimal import Decimal
    from fractions import Fraction

    launch_run.log({"decimal": Decimal("0.5"), "fraction": Fraction(1, 4)})
    assert [line["metrics"] for line in logged(capsys)] == [{"decimal": 0.5, "fraction": 0.25}]


@pytest.mark.parametrize(
    ("metrics", "step", "error", "says"),
    [
        ({"loss": "0.1"}, None, TypeError, "'loss' is no number but str"),
        ({"loss": None}, None, TypeError, "'loss' is no number but NoneType"),
        ({"loss": [1.0]}, None, TypeError, "'loss' is no number but list"),
        ({"loss": 1j}, None, TypeError, "'loss' is no number but complex"),
        ({"loss": Scalar("text")}, None, TypeError, "'loss' is no number but Scalar"),
        ({"loss": Scalar(ValueError("many"))}, None, TypeError, "'loss' is no single number"),
        ({"loss": 10**400}, None, ValueError, "too large"),
        ({1: 1.0}, None, TypeError, "name of a metric"),
        ({"": 1.0}, None, ValueError, "empty"),
        ({"loss": 1.0}, 1.5, TypeError, "step is a whole number"),
        ({"loss": 1.0}, -1, ValueError, "counted from 0"),
    ],
)
def test_what_is_no_number_is_refused_and_nothing_is_written(launch_run, capsys, metrics, step, error, says):
    with pytest.raises(error, match=says):
        launch_run.log({"good": 1.0, **metrics}, step=step)
    assert capsys.readouterr().out == ""


def test_log_of_nothing_writes_nothing(launch_run, capsys):
    launch_run.log({})
    assert capsys.readouterr().out == ""


def test_each_line_leaves_in_one_write(launch_run, monkeypatch):
    """Another process on the same pipe cannot cut a line, and a line is not held back."""
    calls = []

    class Stream:
        def write(self, text):
            calls.append(text)

        def flush(self):
            calls.append("flush")

    monkeypatch.setattr(sys, "stdout", Stream())
    launch_run.log({"loss": 1}, step=1)
    assert len(calls) == 3
    assert (calls[0], calls[2]) == ("flush", "flush")
    assert re.fullmatch(r"::launch-metrics:: \{.*\}\n", calls[1])


def test_lines_of_many_threads_stay_whole(launch_run, capsys):
    def work(number):
        for step in range(50):
            launch_run.log({f"thread{number}": step}, step=step)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logged(capsys)) == 400


def test_it_is_one_file_on_the_standard_library_of_python_3_8():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module.partition(".")[0])
    assert imported <= sys.stdlib_module_names


def test_a_job_imports_it_by_its_short_name(tmp_path):
    code = "import launch_run; print('before', end='\\n'); launch_run.log({'a': launch_run.config['a']}, step=0)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); {code}"],
        env={"LAUNCH_CONFIG": '{"a": 4}'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == "before"
    assert '"metrics":{"a":4}' in second
    assert list(tmp_path.iterdir()) == []
