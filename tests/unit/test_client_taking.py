"""A large folder is asked about, its progress is shown on a terminal alone, and what was taken is told."""

import io
import threading

import pytest
from rich.console import Console

from launch_prefect import Job
from launch_prefect.cli import session, taking
from launch_prefect.errors import InvalidInput
from launch_prefect.settings import get_settings
from launch_prefect.sources.git import WorkTree


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setenv("LAUNCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAUNCH_CODE_LIMIT", "1000")
    get_settings.cache_clear()
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / "data.bin").write_bytes(bytes(2000))
    yield Job.from_code(folder, entrypoint=["a"])
    get_settings.cache_clear()


def answering(monkeypatch, answer):
    asked = []
    monkeypatch.setattr(session.sys.stdin, "isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr(session.err, "input", lambda question: asked.append(question) or answer)
    return asked


async def test_who_says_yes_has_it_taken(job, monkeypatch):
    asked = answering(monkeypatch, "y")
    spec = await taking.with_code(job, job.apin, message="Submitting", yes=False)
    assert spec.source.digest
    assert len(asked) == 1
    assert "data.bin" in asked[0]


@pytest.mark.parametrize(("answer", "says"), [("", "Nothing has been submitted"), (None, "--yes")])
async def test_without_a_yes_nothing_is_taken(job, monkeypatch, answer, says):
    answering(monkeypatch, answer)
    with pytest.raises(InvalidInput) as error:
        await taking.with_code(job, job.apin, message="Submitting", yes=False)
    assert says in str(error.value)
    assert "data.bin" in str(error.value)
    assert job.snapshot is None


async def test_yes_given_before_asks_nothing(job, monkeypatch):
    asked = answering(monkeypatch, "n")
    await taking.with_code(job, job.apin, message="Submitting", yes=True)
    assert not asked


async def test_in_python_the_limit_is_the_job_s_own(job):
    with pytest.raises(InvalidInput, match=r"data\.bin"):
        await job.apin()
    job.code_limit = 5000
    assert (await job.apin()).source.digest


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_alone(monkeypatch, terminal):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=100)
    monkeypatch.setattr(taking, "err", console)
    monkeypatch.setattr(taking, "working", lambda message: console.status(message))
    with taking._shown("Submitting") as progress:
        thread = threading.Thread(target=lambda: [progress(done, 10**9) for done in (10**8, 5 * 10**8, 10**9)])
        thread.start()
        thread.join()
    assert ("Taking the code" in written.getvalue()) == terminal
    assert ("GB" in written.getvalue()) == terminal


def test_small_code_shows_no_bar(monkeypatch):
    written = io.StringIO()
    monkeypatch.setattr(taking, "err", Console(file=written, force_terminal=True, width=100))
    monkeypatch.setattr(taking, "working", lambda message: taking.err.status(message))
    with taking._shown("Submitting") as progress:
        progress(1, 1000)
    assert "Taking the code" not in written.getvalue()


def test_changes_are_counted_by_file():
    patch = b"diff --git a/a b/a\n+diff --git of a text\n-x\ndiff --git a/b b/b\n"
    tree = WorkTree("https://h/a", "0" * 40, "main", None, patch, (), 2)
    assert taking.changes_text(tree).startswith("2 files since that commit, with 2 commits not pushed, ")
    assert taking.changes_text(WorkTree("https://h/a", "0" * 40, "main", None, b"", (), 0)) == "none since that commit"
