from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest

from launch_prefect.cli import app, checks, doctor, files, output, queue, what
from launch_prefect.cli.following import LinePrinter, metrics_text
from launch_prefect.cli.options import NO_GIT, BuildOptions, GitOptions
from launch_prefect.cli.session import assignments
from launch_prefect.cli.submit import one_way
from launch_prefect.client import LogLine
from launch_prefect.errors import InvalidInput, LaunchError, NotFound, RunFailed, Unreachable
from launch_prefect.spec import BuildSpec
from launch_prefect.spec.queue import Target


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train.py").touch()
    return tmp_path


def write(folder: Path, text: str, name: str = "job.yaml") -> Path:
    file = folder / name
    file.write_text(text)
    return file


# What is to run


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("train", "folder"),
        ("other", "job"),
        ("train.py", "job"),
        ("./other", "folder"),
        ("a/b", "folder"),
        (".", "folder"),
    ],
)
def test_a_word_is_a_folder_that_exists_or_a_path_or_else_a_job(folder: Path, word: str, kind: str) -> None:
    assert what.kind_of(word) == kind


@pytest.mark.parametrize(
    ("word", "url", "ref"),
    [
        ("https://github.com/a/b", "https://github.com/a/b", None),
        ("https://github.com/a/b.git@v1.2", "https://github.com/a/b.git", "v1.2"),
        ("https://github.com/a/b@v1", "https://github.com/a/b", "v1"),
        ("https://github.com/a/b@pkg@1.0", "https://github.com/a/b", "pkg@1.0"),
        ("https://github.com/a/b.git@feature/x", "https://github.com/a/b.git", "feature/x"),
        ("https://example.com:8443/a/b@0a1b2c3", "https://example.com:8443/a/b", "0a1b2c3"),
        ("https://example.com/@team/b", "https://example.com/@team/b", None),
        ("https://example.com/@team", "https://example.com/@team", None),
        ("https://example.com/team@x/b", "https://example.com/team@x/b", None),
        ("git+https://host/a@v1", "https://host/a", "v1"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git", None),
        ("git@github.com:a/b.git@main", "git@github.com:a/b.git", "main"),
        ("git@host:b@main", "git@host:b", "main"),
        ("ssh://git@host/a.git", "ssh://git@host/a.git", None),
        ("ssh://git@host:2222/a/b@v1", "ssh://git@host:2222/a/b", "v1"),
        ("git+ssh://git@host/a/b@v1", "ssh://git@host/a/b", "v1"),
        ("https://me:secret@host/a/b@v1", "https://me:secret@host/a/b", "v1"),
        ("host.xz/a.git@v1", "host.xz/a.git", "v1"),
    ],
)
def test_an_address_of_git_and_the_ref_behind_it(folder: Path, word: str, url: str, ref: str | None) -> None:
    assert what.kind_of(word) == "git"
    assert what.split_address(word) == (url, ref)


def test_a_folder_whose_name_looks_like_an_address_is_a_folder(folder: Path) -> None:
    (folder / "a.git").mkdir()
    assert what.kind_of("a.git") == "folder"
    assert what.kind_of("b.git") == "git"


COMMAND = ("python", "t.py")


def from_git(word: str, git: GitOptions = NO_GIT, **about: Any) -> Any:
    return what.job_from_git(word, what.Definition(**{"command": COMMAND, **about}), git).spec


def test_a_job_from_git() -> None:
    spec = from_git("https://host/a/train.git@v1", GitOptions(subdir="x", git_credentials="secret/token"))
    assert (spec.name, spec.command) == ("train", COMMAND)
    assert (spec.source.git, spec.source.ref, spec.source.subdir) == ("https://host/a/train.git", "v1", "x")
    assert spec.source.credentials == "secret/token"
    assert from_git("git@host:train", GitOptions(ref="feature/x")).source.ref == "feature/x"
    assert from_git("https://host/a", build=BuildOptions(dockerfile="D"), command=None).command is None


@pytest.mark.parametrize(
    ("word", "git", "says"),
    [
        ("https://host/a@v1", GitOptions(ref="v2"), "given twice: @v1 and --ref v2"),
        ("https://host/a@", NO_GIT, "Nothing stands behind the @"),
        ("http://host/a", NO_GIT, "'http' is not accepted"),
        ("file:///etc", NO_GIT, "'file' is not accepted"),
        ("git+file:///etc", NO_GIT, "'file' is not accepted"),
        ("https://me:hunter2@host/a", NO_GIT, "credentials do not belong into an address"),
        ("host.xz/a.git", NO_GIT, "https://HOST/PATH"),
        ("https://host/a", GitOptions(git_credentials="hunter2"), "name a Prefect block as TYPE/NAME"),
        ("https://host/a", GitOptions(subdir="../x"), "below the code's folder"),
        ("https://host/a", GitOptions(ref="--upload-pack=x"), "a branch, a tag or a commit"),
        ("https://host/a@main~1", NO_GIT, "no expression"),
    ],
)
def test_addresses_and_options_of_git_that_are_refused(word: str, git: GitOptions, says: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(says)):
        from_git(word, git)


def test_a_job_from_git_needs_a_command() -> None:
    with pytest.raises(InvalidInput, match="A job from git needs a command"):
        from_git("https://host/a", command=None)


def test_how_an_image_is_made_from_options(folder: Path) -> None:
    build = BuildOptions(
        base_image="cuda:{python}", python="3.12", system_package=["ffmpeg"], build_secret=["UV_INDEX=secret/index"]
    )
    spec = what.job_from_folder("train", what.Definition(command=COMMAND, build=build)).spec
    assert spec.build == BuildSpec(
        base_image="cuda:{python}", python="3.12", system_packages=("ffmpeg",), secrets={"UV_INDEX": "secret/index"}
    )
    for wrong, says in (
        (BuildOptions(dockerfile="D", python="3.12"), "python: the job's own dockerfile says this"),
        (BuildOptions(dockerfile="../D"), "below the code's folder"),
        (BuildOptions(python="2.7"), "A Python version|a Python version"),
        (BuildOptions(build_secret=["UV_INDEX"]), "--build-secret UV_INDEX: write KEY=VALUE"),
        (BuildOptions(build_secret=["A-B=secret/x"]), "'A-B'"),
        (BuildOptions(build_secret=["UV_INDEX=hunter2"]), "name a Prefect block as TYPE/NAME"),
    ):
        with pytest.raises(InvalidInput, match=says):
            what.job_from_folder("train", what.Definition(command=COMMAND, build=wrong))
    with pytest.raises(InvalidInput, match="--python and --system-package: only for jobs from code or git"):
        what.job_from_image("a/b:1", what.Definition(build=BuildOptions(python="3.12", system_package=["a"])))


def test_a_job_file_from_git_and_options_over_it(folder: Path) -> None:
    file = write(
        folder,
        "name: a\nsource: {git: https://host/a, ref: main, subdir: x}\ncommand: [python, t.py]\n"
        "build: {python: '3.11', secrets: {UV_INDEX: {block: secret/a}, NETRC: {block: secret/b}}}\n",
    )
    build = BuildOptions(python="3.12", build_secret=["UV_INDEX=secret/c"])
    spec = what.job_from_file(file, what.Definition(build=build), GitOptions(ref="v1")).spec
    assert (spec.source.ref, spec.source.subdir) == ("v1", "x")
    assert (spec.build.python, spec.build.secrets) == ("3.12", {"UV_INDEX": "secret/c", "NETRC": "secret/b"})
    code = write(folder, "name: a\nsource: {code: train}\ncommand: [a]\n", "code.yaml")
    with pytest.raises(InvalidInput, match=r"--ref: only for a git repository, and the job file .*code\.yaml"):
        what.job_from_file(code, what.Definition(), GitOptions(ref="v1"))
    for text, says in (
        ("name: a\nsource: {git: https://host/a, reff: v1}\ncommand: [a]\n", "did you mean 'ref'"),
        ("name: a\nsource: {git: https://host/a}\nbuild: {pyhton: '3'}\ncommand: [a]\n", "did you mean 'python'"),
        ("name: a\nsource: {image: a/b}\nbuild: {python: '3.12'}\n", "an image is built already"),
        (f"name: a\nsource: {{git: https://host/a, patch: 'sha256:{'a' * 64}'}}\ncommand: [a]\n", "not a patch"),
    ):
        with pytest.raises(InvalidInput, match=says):
            what.job_from_file(write(folder, text), what.Definition())


def test_exactly_one_way_to_say_what_is_to_run() -> None:
    assert one_way(what=None, image="a", config=None, job=None) == "image"
    with pytest.raises(InvalidInput, match="Nothing"):
        one_way(what=None, image=None)
    with pytest.raises(InvalidInput, match="WHAT and --image"):
        one_way(what="a", image="b")


def test_the_command_is_split_as_a_shell_would_and_given_once() -> None:
    assert what.command_of("python 'a b.py' --x", ()) == ("python", "a b.py", "--x")
    assert what.command_of(None, ("python", "-c", "1")) == ("python", "-c", "1")
    assert what.command_of(None, ()) is None
    with pytest.raises(InvalidInput, match="twice"):
        what.command_of("a", ("b",))
    with pytest.raises(InvalidInput, match="quotation"):
        what.command_of("python 'a", ())
    with pytest.raises(InvalidInput, match="empty"):
        what.command_of("  ", ())


def test_a_folder_needs_a_command(folder: Path) -> None:
    with pytest.raises(InvalidInput, match="needs a command") as error:
        what.job_from_folder("train", what.Definition())
    assert "no job 'train'" in error.value.message
    job = what.job_from_folder("train", what.Definition(command=("python", "train.py"), env={"A": "1"}, timeout=3))
    assert (job.name, job.spec.command, job.spec.env, job.spec.timeout) == (
        "train",
        ("python", "train.py"),
        {"A": "1"},
        3,
    )


def test_a_job_file_names_a_folder_beside_itself_and_options_win(folder: Path) -> None:
    file = write(
        folder / "train",
        "name: a\nsource: {code: .}\ncommand: [python, t.py, 3]\nenv: {A: x, B: y}\n"
        "config: {lr: 1e-3, day: 2024-01-02}\n",
    )
    job = what.job_from_file(file, what.Definition(command=("true",), env={"A": "z"}, name="b"))
    assert job.spec.config == {"lr": 0.001, "day": "2024-01-02"}
    assert (job.name, job.spec.command, job.spec.env) == ("b", ("true",), {"A": "z", "B": "y"})
    assert what.job_from_file(file, what.Definition()).spec.command == ("python", "t.py", "3")


def test_a_job_file_that_names_no_folder(folder: Path) -> None:
    file = write(folder, "name: a\nsource: {code: nowhere}\ncommand: [a]\n")
    with pytest.raises(InvalidInput, match=r"source\.code.*nowhere does not exist"):
        what.job_from_file(file, what.Definition())


def test_assignments() -> None:
    assert assignments(["A=1", "B=x=y", "C="], "--env") == {"A": "1", "B": "x=y", "C": ""}
    for wrong in (["A"], ["=1"], ["A=1", "A=2"]):
        with pytest.raises(InvalidInput, match="--env"):
            assignments(wrong, "--env")


# Files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1,\n", r"job\.yaml is not valid YAML: line 3, column 1"),
        ("a: 1\nb: 2\na: 3\n", r"line 3, column 1: the key 'a' is here a second time \(first on line 1\)"),
        ("a:\n  b: 1\n  b: 2\n", r"line 3, column 3: the key 'b'"),
        ("a: !!python/object:os.system x\n", "line 1"),
        ("a: \x01\n", "line 1: the character"),
        ("- a\n", "holds a list"),
        ("text\n", "holds only 'text'"),
    ],
)
def test_wrong_yaml_is_refused_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        files.read_yaml(write(tmp_path, text), what="job file")


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    file = write(tmp_path, "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert files.read_yaml(file, what="file") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert files.read_yaml(write(tmp_path, ""), what="file") == {}
    with pytest.raises(NotFound, match=r"job file .*none\.yaml does not exist"):
        files.read_yaml(tmp_path / "none.yaml", what="job file")
    with pytest.raises(InvalidInput, match="cannot be read"):
        files.read_yaml(tmp_path, what="job file")
    (tmp_path / "latin").write_bytes(b"a: \xff")
    with pytest.raises(InvalidInput, match="UTF-8"):
        files.read_yaml(tmp_path / "latin", what="job file")


def test_a_queue_file(tmp_path: Path) -> None:
    spec = queue.queue_from_file(write(tmp_path, "queue_name: q\ntarget: docker\nconcurrency: 2\n"))
    assert (spec.queue_name, spec.target, spec.concurrency) == ("q", "docker", 2)
    with pytest.raises(InvalidInput, match="did you mean 'concurrency'"):
        queue.queue_from_file(write(tmp_path, "queue_name: q\ntarget: docker\nconcurency: 2\n"))
    with pytest.raises(InvalidInput, match="queue_name, not name"):
        queue.queue_from_file(write(tmp_path, "name: q\ntarget: docker\n"))


# Errors and exit codes


@pytest.mark.parametrize(
    ("raised", "code", "shown"),
    [
        (InvalidInput("No.", mend="Do."), 2, "Error: No.\nDo.\n"),
        (NotFound("No."), 2, "Error: No.\n"),
        (Unreachable("No."), 3, "Error: No.\n"),
        (RunFailed("No."), 1, "Error: No.\n"),
        (LaunchError("No [bold]markup[/bold]."), 2, "Error: No [bold]markup[/bold].\n"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "/x"), 1, "Error: Permission denied: /x.\n"),
        (ValueError("odd"), 1, "Error: ValueError: odd.\nRun it again with LAUNCH_DEBUG=1 for a traceback.\n"),
    ],
)
def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, shown: str
) -> None:
    def fail(arguments: object) -> int:
        raise raised

    monkeypatch.setattr(app, "_dispatch", fail)
    monkeypatch.delenv("LAUNCH_DEBUG", raising=False)
    assert app.run([]) == code
    assert capsys.readouterr().err == shown


def test_a_traceback_is_there_for_who_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(arguments: object) -> int:
        raise ValueError("odd")

    monkeypatch.setattr(app, "_dispatch", fail)
    monkeypatch.setenv("LAUNCH_DEBUG", "1")
    assert app.run([]) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nope"], 'Unknown command "nope"'),
        (["submit", "--folow"], "--follow"),
        (["queue", "create"], "requires an argument"),
        (["queue", "create", "a", "--target", "moon"], 'Choose from: "process", "docker"'),
        (["run", "list", "--limit", "many"], "many"),
        (["run", "list", "--limit", "0"], "--limit 0"),
        (["run", "list", "--state", "complete"], "did you mean 'completed'"),
        (["run", "list", "--", "a"], "nothing after '--'"),
        (["submit", "a", "--"], "Nothing follows '--'"),
        (["submit"], "Nothing to run is named"),
        (["submit", "a", "-E", "a", "--", "b"], "twice"),
        (["submit", "--image", "Not/An:Image:x"], "image"),
        (["submit", "--image", "a/b", "--ref", "v1"], "--ref: only for a git repository, and --image names an image"),
        (["submit", "--image", "a/b", "--git"], "--git takes the commit of a folder, and --image names an image"),
        (["submit", "--image", "a/b", "--python", "3.12"], "--python: only for jobs from code or git"),
        (["submit", "https://host/a", "--git", "-E", "a"], "WHAT is the address of a repository already"),
        (["submit", "https://host/a"], "A job from git needs a command"),
        (["submit", ".", "--ref", "v1", "-E", "a"], "--ref: only for a git repository, and WHAT is a folder"),
        (["submit", ".", "--git", "--ref", "v1", "-E", "a"], "--git takes the commit that is checked out"),
        (["submit", "no-such-job", "--subdir", "a"], "--subdir: only for a git repository, and WHAT names a job"),
        (["submit", "no-such-job", "--git"], "WHAT names a job"),
        (["job", "create", "code", "https://host/a", "-E", "a"], "`job create git`"),
        (["job", "create", "code", ".", "--git-credentials", "secret/a", "-E", "a"], "belongs to --git"),
        (["job", "create", "git", ".", "-E", "a"], "`job create code`"),
        (["job", "show", "a", "--dockerfile", "--json"], "Leave one of"),
        (["queue", "create", "a", "-t", "docker", "--builder", "moon"], 'Choose from: "docker", "process", "none"'),
        (["up", "--port", "0"], "--port 0"),
        (["agent"], "requires an argument"),
        (["prune", "--budget", "lots"], "--budget lots: write an amount"),
        (["agent", "-q", "a", "--max-jobs", "0"], "--max-jobs 0"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    assert app.run(arguments) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.err.startswith("Error: ")
    assert not shown.out


def test_the_words_after_the_dashes_are_the_command() -> None:
    assert app._split(["submit", "a", "-q", "b", "--", "x", "--", "-q"]) == (
        ["submit", "a", "-q", "b"],
        True,
        ("x", "--", "-q"),
    )
    assert app._split(["run", "list"]) == (["run", "list"], False, ())


def test_doctor_exit_codes() -> None:
    def code(*levels: checks.Level) -> int:
        return doctor.exit_code([checks.Check("a", level, "b") for level in levels])

    assert [code("ok", "warning"), code("ok", "problem"), code("problem", "unreachable")] == [0, 1, 3]


def test_clocks_that_differ_are_noticed() -> None:
    date = "Wed, 01 Jan 2025 00:00:00 GMT"
    there = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    assert checks._clock(date, there + 0.2, there + 0.4).level == "ok"
    assert "30 s behind" in checks._clock(date, there - 30.2, there - 30).message
    assert "ahead of" in checks._clock(date, there + 60, there + 60.1).message
    assert checks._clock(None, there, there).level == "ok"


def test_credentials_of_registries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert checks._credentials().level == "ok"
    write(tmp_path, '{"auths": {"r.example.com": {}}}', "config.json")
    assert "r.example.com" in checks._credentials().message
    write(tmp_path, '{"credsStore": "no-such-helper"}', "config.json")
    assert "docker-credential-no-such-helper" in checks._credentials().message
    write(tmp_path, "{", "config.json")
    assert checks._credentials().level == "warning"


def test_the_targets_offered_are_those_of_queues() -> None:
    assert get_args(queue.Target) == get_args(Target)


# Output


def test_json_is_json_whatever_it_holds(capsys: pytest.CaptureFixture[str]) -> None:
    value = {
        "id": UUID(int=1),
        "at": datetime(2025, 1, 2, tzinfo=UTC),
        "loss": math.nan,
        "inf": -math.inf,
        "names": ("ä", None),
        1: True,
    }
    output.print_json(value)
    assert json.loads(capsys.readouterr().out) == {
        "id": "00000000-0000-0000-0000-000000000001",
        "at": "2025-01-02T00:00:00+00:00",
        "loss": "NaN",
        "inf": "-Infinity",
        "names": ["ä", None],
        "1": True,
    }


def test_a_table_is_whole_where_no_terminal_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300 + "[red]"
    output.table(("A", "B"), [(long, "b"), ("c", "d")])
    heading, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["A", "B"]
    assert first.split() == [long, "b"]
    assert second.split() == ["c", "d"]
    output.table(("A",), [], empty="Nothing.")
    assert capsys.readouterr() == ("", "Nothing.\n")


def test_facts_keep_lines_and_leave_out_what_has_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    output.facts([("a", "1\n2"), ("long", "[x]"), ("none", None), ("empty", "")], title="T")
    assert capsys.readouterr().out == "T\n  a     1\n        2\n  long  [x]\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"), (9.9, "9.9 s"), (59, "59 s"), (59.7, "1 min"), (65, "1 min 5 s"), (3600, "1 h"),
        (7800, "2 h 10 min"), (3605, "1 h"), (273600, "3 d 4 h"), (-3, "0.0 s"),
    ],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (15_000, "15 kB"), (5e12, "5.0 TB")]
)
def test_sizes(count: float, text: str) -> None:
    assert output.size(count) == text


def test_log_lines_are_shown_as_they_are_and_metrics_readably(capsys: pytest.CaptureFixture[str]) -> None:
    from launch_prefect.runtime.launch_run import PREFIX

    at = datetime(2025, 1, 2, tzinfo=UTC)
    metrics = PREFIX + json.dumps({"step": 3, "metrics": {"loss": 0.1234567, "n": 4}})
    printer = LinePrinter(sys.stdout)
    for text, stream in (
        ("a [b]", "stdout"),
        ("oh", "stderr"),
        ("Started.", "launch"),
        (metrics, "stdout"),
        (metrics, "stderr"),
    ):
        printer.show(LogLine(text, at, stream, 20))
    assert capsys.readouterr().out == f"a [b]\noh\nlaunch: Started.\nstep 3  loss=0.123457  n=4\n{metrics}\n"
    assert metrics_text("text") is None


# The program


def test_help_and_version_need_neither_prefect_nor_pydantic() -> None:
    program = (
        "import sys, launch_prefect.cli.app as program; program.app.help_print(); "
        "sys.exit('prefect' in sys.modules or 'pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "submit" in done.stdout


def test_the_program_runs_as_a_module() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "launch_prefect.cli", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_can_complete(shell: str) -> None:
    script = app.app.generate_completion(shell=shell)  # type: ignore[arg-type]
    assert "--resource-config" in script
    assert "process" in script
