"""Jobs from git: what was submitted runs, whatever becomes of the repository; nobody sees credentials."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from prefect.blocks.system import Secret

from launch_prefect import Run
from tests.e2e.system import System, explained, processes_naming, said, texts, until
from tests.testbed.git_servers import GitServers, HttpsServer, Repository, SshServer

COMMAND = ("-E", "python main.py")
END_SECONDS = 60


@pytest.fixture
def repository(git_servers: GitServers) -> Repository:
    """A repository with a program that prints `first`, and a file that does not fit into one packet."""
    made = git_servers.repository(f"team/e2e-{uuid.uuid4().hex[:8]}.git")
    made.commit({"main.py": "print('first')\n", "weights.bin": os.urandom(300_000)})
    return made


def _secret(value: str) -> str:
    """A block that holds a value; the name of the block."""
    name = f"git-{uuid.uuid4().hex[:8]}"
    Secret(value=value).save(name)
    return f"secret/{name}"


@pytest.fixture
def private(git_https: HttpsServer, git_token: str, repository: Repository, connected: None) -> list[str]:
    """The words that submit the repository, to a server that wants a token."""
    return [f"{git_https.url}/{repository.path}@main", *COMMAND, "--git-credentials", _secret(git_token)]


@pytest.fixture
def token_is_nowhere(system: System, git_token: str) -> Iterator[None]:
    """At the end the token stands in no file of the system's: logs, mirrors of repositories and their settings."""
    yield
    token = git_token.encode()
    files = [path for path in system.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert any(path.name == "config" for path in files)
    assert [path for path in files if token in path.read_bytes()] == []


@pytest.mark.usefixtures("token_is_nowhere")
def test_the_commit_of_the_submission_runs(
    system: System, queue: str, private: list[str], git_token: str, repository: Repository
) -> None:
    commit = repository.git("rev-parse", "HEAD")
    with system.paused(queue):
        done = system.cli("submit", "-q", queue, *private)
        assert commit in done.out
        assert git_token not in done.out + done.err
        [run] = Run.list(queue=queue, limit=1)
        repository.commit({"main.py": "print('second')\n"})
    run.wait(END_SECONDS)
    assert run.succeeded, explained(run)
    assert texts(run) == ["first"]
    assert run.facts["version"] == f"git-{commit[:12]}"
    assert git_token not in explained(run)
    assert texts(system.submit(queue, *private).wait(END_SECONDS)) == ["second"]


def test_an_ssh_key(system: System, git_ssh: SshServer, repository: Repository) -> None:
    words = [f"{git_ssh.url}/{repository.path}", "--ref", "main", *COMMAND, "--git-credentials"]
    run = system.submit("local", *words, _secret(git_ssh.key)).wait(END_SECONDS)
    assert texts(run) == ["first"], explained(run)
    assert "PRIVATE KEY" not in explained(run)
    refused = system.cli("submit", "-q", "local", *words, _secret(git_ssh.other_key), code=2)
    assert "ssh key of the block" in refused.err
    assert "PRIVATE KEY" not in refused.err


def test_a_work_tree_with_changes(system: System, queue: str, git_https: HttpsServer, repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")
    repository.git("remote", "set-url", "origin", f"{git_https.url}/{repository.path}")
    (repository.folder / "main.py").write_text("print('changed')\n")
    (repository.folder / "notes.txt").write_text("mine\n")
    done = system.cli("submit", "-q", queue, repository.folder, "--git", *COMMAND, "--follow")
    assert re.search(r"changes +1 file", done.out)
    assert "notes.txt" in done.err  # not tracked, and therefore not taken
    [run] = Run.list(queue=queue, limit=1)
    assert texts(run) == ["changed"], explained(run)
    assert commit[:12] in run.facts["version"]
    (repository.folder / "main.py").write_text("print('changed again')\n")
    again = system.submit(queue, repository.folder, "--git", *COMMAND).wait(END_SECONDS)
    assert texts(again) == ["changed again"], explained(again)
    assert again.facts["version"] != run.facts["version"]


def test_refused_at_submission(system: System, private: list[str]) -> None:
    before = {run.id for run in Run.list(limit=200)}
    wrong = "token-of-somebody-else-91c4"
    url, *rest = private
    refused: dict[tuple[str, ...], str] = {
        tuple(private[:-2]): "No credentials were used",
        (*private[:-1], _secret(wrong)): "token of the block",
        (*private[:-1], "secret/e2e-nowhere"): "no block 'secret/e2e-nowhere'",
        (url.replace("@main", "@mian"), *rest): "'main'",
        (url.replace("https://", f"https://robot:{wrong}@"), *COMMAND): "block",
    }
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda words: system.cli("submit", "-q", "local", *words, code=2), refused))
    for (words, expected), one in zip(refused.items(), done, strict=True):
        assert one.err.startswith("Error: "), words
        assert expected in one.err, words
        assert wrong not in one.out + one.err, words
    assert {run.id for run in Run.list(limit=200)} == before


@pytest.mark.usefixtures("token_is_nowhere")
def test_a_server_that_dies_half_way(system: System, private: list[str], git_https: HttpsServer) -> None:
    with system.paused("local"):
        run, second = (system.submit("local", *private) for _ in range(2))
        git_https.faults.cut_after, git_https.faults.cuts = 50_000, 1
    for one in (run.wait(END_SECONDS), second.wait(END_SECONDS)):
        assert texts(one) == ["first"], explained(one)
    assert git_https.faults.cuts == 0
    assert "again" in said(run) + said(second)


def test_a_server_that_stays_away(system: System, private: list[str], git_https: HttpsServer) -> None:
    with system.paused("local"):
        run = system.submit("local", *private)
        git_https.faults.status = 503
    run.wait(END_SECONDS)
    assert run.state == "Crashed", explained(run)
    assert git_https.url in run.message
    assert "Check" in run.message
    git_https.reset()
    assert texts(system.submit("local", *private).wait(END_SECONDS)) == ["first"]


@pytest.mark.usefixtures("token_is_nowhere")
def test_cancelled_while_the_server_stands_still(
    system: System, private: list[str], git_https: HttpsServer, git_token: str
) -> None:
    with system.paused("local"):
        run = system.submit("local", *private)
        git_https.faults.stall = True
    path = private[0].removesuffix("@main")

    def fetching() -> list[psutil.Process]:
        return [process for process in processes_naming(str(system.home / "git")) if "git" in process.name()]

    until(lambda: fetching() and git_https.requests and "upload-pack" in git_https.requests[-1].path, f"fetch {path}")
    lines = [Path(f"/proc/{process.pid}/cmdline") for process in psutil.process_iter()]
    assert [file for file in lines if git_token in _content(file)] == []
    system.cli("run", "cancel", str(run.id))
    assert run.wait(10).state == "Cancelled", explained(run)
    until(lambda: not fetching(), "no git is left", 5)


def _content(file: Path) -> str:
    try:
        return file.read_bytes().decode(errors="replace")
    except OSError:  # it has ended
        return ""
