"""The git servers as fixtures, for tests to import."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.content import all_files, describe, digest_of
from launch_prefect.sources.git import GitCode, GitCredentials, resolve
from launch_prefect.spec import GitSource
from tests.conftest import missing
from tests.testbed.git_helpers import NOBODY
from tests.testbed.git_servers import HTTP_BACKEND, SSHD, GitServers, HttpsServer, Repository, SshServer

TOKEN = "token-7f3a-of-the-tests"


@pytest.fixture(scope="session")
def git_servers() -> Iterator[GitServers]:
    """A folder of repositories for the servers."""
    if shutil.which("git") is None:
        missing("git is not installed")
    with GitServers() as servers:
        yield servers


@pytest.fixture(scope="session")
def git_https_server(git_servers: GitServers) -> Iterator[HttpsServer]:
    """A git server behind TLS."""
    if not HTTP_BACKEND.exists() or shutil.which("openssl") is None:
        missing("git-http-backend or openssl is not installed")
    with HttpsServer(git_servers.root, git_servers.part("https")) as server:
        yield server


@pytest.fixture
def git_https(git_https_server: HttpsServer) -> Iterator[HttpsServer]:
    """The git server behind TLS, which lets everybody in and has no faults yet."""
    git_https_server.reset()
    git_https_server.token = None
    yield git_https_server
    git_https_server.reset()
    git_https_server.token = None


@pytest.fixture
def git_token(git_https: HttpsServer) -> str:
    """The token without which the https server lets nobody in."""
    git_https.token = TOKEN
    return TOKEN


@pytest.fixture(scope="session")
def git_ssh(git_servers: GitServers) -> Iterator[SshServer]:
    """A git server behind sshd."""
    if not SSHD.exists():
        missing("sshd is not installed; on Debian: apt-get install openssh-server")
    with SshServer(git_servers.root, git_servers.part("ssh")) as server:
        yield server


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def git_settings(launch_home: Path, git_https: HttpsServer) -> LaunchSettings:
    return LaunchSettings(home=launch_home, ca_bundle=git_https.certificate)


@pytest.fixture
def repository(git_servers: GitServers) -> Repository:
    repository = git_servers.repository()
    repository.commit({"train.py": "print(1)\n", "lib/data.txt": "one\n", "lib/inner/more.txt": "more\n"})
    return repository


@pytest.fixture
def fetch(git_settings: LaunchSettings, tmp_path: Path, lines: list[str]) -> Callable[..., Path]:
    """Resolve and fetch a source into a new folder."""

    def fetch(source: GitSource, credentials: GitCredentials | None = None) -> Path:
        into = tmp_path / f"into-{len(list(tmp_path.iterdir()))}"
        pinned = resolve(source, git_settings, credentials, log=lines.append)
        digest = GitCode(pinned, git_settings, credentials).fetch(into, log=lines.append, stop=NOBODY)
        assert digest == digest_of(describe(into, path) for path in all_files(into))
        return into

    return fetch
