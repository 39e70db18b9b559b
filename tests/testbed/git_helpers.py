"""What tests of git sources share: sources of a server, processes of git, a fetch that is given up."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.content import all_files
from launch_prefect.sources.git import GitCode, GivenUp
from launch_prefect.spec import GitSource
from tests.testbed.git_servers import HttpsServer, Repository, SshServer

NOBODY = threading.Event()
"""Nobody gives up."""


def source(server: HttpsServer | SshServer, repository: Repository, **more: str | None) -> GitSource:
    return GitSource(git=f"{server.url}/{repository.path}", **more)


def files(folder: Path) -> set[str]:
    return set(all_files(folder))


def held_by(settings: LaunchSettings) -> list[Path]:
    return [path for path in settings.folder("git").rglob("*") if path.is_file()]


def add_link(repository: Repository, path: str, commit: str) -> None:
    """Commit a submodule as git keeps it; its commit need not be here."""
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
    repository.git("commit", "--quiet", "--message", "Submodule")
    repository.git("push", "--quiet", "origin", "HEAD:refs/heads/main")


def git_processes() -> list[str]:
    """Command lines of the git that this process has started, and of its children, but for the servers'."""
    return [line for _, line in _git_processes()]


def kill_git() -> None:
    """Kill them all."""
    for process, _ in _git_processes():
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _git_processes() -> list[tuple[psutil.Process, str]]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            line = " ".join(process.cmdline())
            if "git" in process.name() and not re.search("upload-pack|pack-objects|http-backend", line):
                found.append((process, line))
    return found


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class fetching:  # noqa: N801 - reads as what it does
    """A fetch in a thread that is to be given up."""

    def __init__(self, code: GitCode, into: Path) -> None:
        self.stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._fetch = self._pool.submit(code.fetch, into, log=print, stop=self.stop)

    def __enter__(self) -> threading.Event:
        return self.stop

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with pytest.raises(GivenUp):
            self._fetch.result(5)
        self._pool.shutdown()
