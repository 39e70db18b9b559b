"""Real registries on loopback ports: Debian's docker-registry, open, with a password, with tokens, and as ECR.

Import the fixtures (`…_fixture`) into a `conftest.py` or a test's module; registries are there until the session ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import missing
from tests.testbed.registry_proxy import Proxy
from tests.testbed.registry_tokens import NAME, TokenServer

USER = "robot"


@dataclass
class Registry:
    """A registry that runs.

    Attributes:
        address: Where it listens: `127.0.0.1:PORT`.
        folder: Its data, configuration and log.
        user: Who may use it; empty for everyone.
        password: The user's password.
    """

    address: str
    folder: Path
    user: str = ""
    password: str = field(default="", repr=False)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def credentials(self) -> tuple[str, str, str]:
        return self.address, self.user, self.password


@contextlib.contextmanager
def running(
    folder: Path, auth: dict[str, Any] | None = None, *, user: str = "", password: str = ""
) -> Iterator[Registry]:
    """A registry, ended when left.

    Args:
        folder: Where it keeps everything.
        auth: The part `auth` of its configuration.
        user: Who may use it.
        password: The user's password.
    """
    program = shutil.which("docker-registry")
    if program is None:
        missing("There is no docker-registry; on Debian, apt-get install docker-registry.")
    address = f"127.0.0.1:{free_port()}"
    config = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": address, "secret": secrets.token_hex()},
    } | ({"auth": auth} if auth else {})
    (folder / "config.yml").write_text(json.dumps(config))
    # The OTEL_ and REGISTRY_ variables of whoever runs the tests are not for it.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "serve", folder / "config.yml"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
        )
    try:
        _wait_for(address, process, folder / "log")
        yield Registry(address, folder, user, password)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def with_password(folder: Path, user: str, password: str) -> contextlib.AbstractContextManager[Registry]:
    """A registry with one user, who says a password to it."""
    import bcrypt

    file = folder / "htpasswd"
    file.write_bytes(user.encode() + b":" + bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(5)) + b"\n")
    return running(folder, {"htpasswd": {"realm": NAME, "path": str(file)}}, user=user, password=password)


def with_tokens(
    folder: Path, tokens: TokenServer, user: str, password: str
) -> contextlib.AbstractContextManager[Registry]:
    """A registry that believes a token server."""
    auth = {"realm": tokens.realm, "service": NAME, "issuer": NAME, "rootcertbundle": str(tokens.certificate)}
    return running(folder, {"token": auth}, user=user, password=password)


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(f"http://{address}/v2/", trust_env=False)
            return
        time.sleep(0.02)
    pytest.fail(f"docker-registry does not answer:\n{log.read_text()}", pytrace=False)


@pytest.fixture(scope="session", name="open_registry")
def open_registry_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks nobody who they are."""
    with running(tmp_path_factory.mktemp("registry")) as registry:
        yield registry


@pytest.fixture(scope="session", name="basic_registry")
def basic_registry_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a user and a password."""
    with with_password(tmp_path_factory.mktemp("registry"), USER, secrets.token_urlsafe(16)) as registry:
        yield registry


@dataclass
class TokenRegistry(Registry):
    """A registry with tokens.

    Attributes:
        identity: An identity token, which stands for user and password.
        tokens: Where its tokens come from.
    """

    identity: str = field(default="", repr=False)
    tokens: TokenServer = field(default=None, repr=False)  # type: ignore[assignment]


@pytest.fixture(scope="session", name="token_registry")
def token_registry_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenRegistry]:
    """A registry whose tokens a server of ours gives; what is below `public/` may be pulled by all."""
    folder, password, identity = (
        tmp_path_factory.mktemp("registry"),
        secrets.token_urlsafe(16),
        secrets.token_urlsafe(24),
    )
    with (
        TokenServer(folder, USER, password, identity) as tokens,
        with_tokens(folder, tokens, USER, password) as registry,
    ):
        yield TokenRegistry(registry.address, folder, USER, password, identity, tokens)


@dataclass
class Ecr(Registry):
    """A registry behind an AWS.

    Attributes:
        endpoint: Where that AWS answers.
    """

    endpoint: str = ""

    @property
    def block(self) -> dict[str, Any]:
        """The fields of an AwsCredentials block that leads to it."""
        return {
            "aws_access_key_id": "AKIALAUNCHTEST",
            "aws_secret_access_key": "launch-test-secret",
            "region_name": "eu-central-1",
            "aws_client_parameters": {"endpoint_url": self.endpoint},
        }


@pytest.fixture(scope="session", name="ecr_registry")
def ecr_registry_fixture(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ecr]:
    """A registry whose password is what moto's ECR gives as its token."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ecr = Ecr("", Path(), endpoint=f"http://{host}:{port}")
    try:
        client = boto3.client(
            "ecr",
            endpoint_url=ecr.endpoint,
            region_name=ecr.block["region_name"],
            aws_access_key_id=ecr.block["aws_access_key_id"],
            aws_secret_access_key=ecr.block["aws_secret_access_key"],
        )
        data = client.get_authorization_token()["authorizationData"][0]
        user, _, password = b64decode(data["authorizationToken"]).decode().partition(":")
        with with_password(tmp_path_factory.mktemp("registry"), user, password) as registry:
            yield Ecr(registry.address, registry.folder, user, password, ecr.endpoint)
    finally:
        server.stop()


@pytest.fixture(name="proxy")
def proxy_fixture(open_registry: Registry) -> Iterator[Proxy]:
    """A way to the open registry that counts and can fail."""
    with Proxy(open_registry.port) as way:
        yield way
