"""The git servers as fixtures, for tests to import."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.conftest import missing
from tests.testbed.git_servers import HTTP_BACKEND, SSHD, GitServers, HttpsServer, SshServer

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
