"""What all tests share: markers by folder, the components of the testbed, and a check that nothing is left.

Nothing heavy is imported before a test asks for it, so that unit tests stay quick.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from docker import DockerClient

TESTS = Path(__file__).parent
TESTBED = TESTS / "testbed"
KINDS = ("unit", "integration", "e2e")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with the folder it is in, and with `docker` where it uses an engine."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if folder in KINDS:
            item.add_marker(folder)
        if "docker_engine" in getattr(item, "fixturenames", ()):
            item.add_marker("docker")


def missing(reason: str) -> NoReturn:
    """Skip a test whose component is not here, or fail it where the components are required."""
    if os.environ.get("LAUNCH_REQUIRE_ENGINES") == "1":
        pytest.fail(f"{reason} (LAUNCH_REQUIRE_ENGINES=1)", pytrace=False)
    pytest.skip(reason)


def connect() -> DockerClient:
    """A client of the Docker engine that `DOCKER_HOST` or the usual socket leads to.

    Raises:
        docker.errors.DockerException: No engine answers.
    """
    import docker

    client = docker.from_env(timeout=60)
    try:
        client.ping()
    except BaseException:
        client.close()
        raise
    return client


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerClient]:
    """A client of a real Docker engine."""
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client = connect()
    except (DockerException, RequestException) as error:
        missing(f"No Docker engine answers; as root on Debian tests/testbed/docker-engine.sh starts one. {error}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(docker_engine: DockerClient) -> str:
    """An image with Python and pip: `LAUNCH_TEST_BASE_IMAGE`, or one made from this machine's own Python."""
    if name := os.environ.get("LAUNCH_TEST_BASE_IMAGE"):
        return name
    name = "launch-prefect-test/python:{}.{}-slim".format(*sys.version_info)
    if not docker_engine.images.list(name):
        done = subprocess.run(
            [TESTBED / "base-image.sh", name],
            env=os.environ | {"PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            missing(f"No base image could be made; name one in LAUNCH_TEST_BASE_IMAGE. {done.stderr.strip()}")
    return name


@pytest.fixture(scope="session")
def tiny_image(docker_engine: DockerClient) -> str:
    """An image with neither Python nor a shell; its program `/tiny CODE SECONDS` is described in `tiny.c`."""
    from tests.testbed import tiny_image

    try:
        return tiny_image.tiny_image(docker_engine)
    except tiny_image.NoCompilerError as error:
        missing(str(error))


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """Address of the API of a real Prefect server on a PostgreSQL of its own; no agent serves it."""
    from tests.e2e.system import System

    def command(home: Path, port: int) -> list[str]:
        return [sys.executable, str(TESTBED / "up_driver.py"), str(home), "--port", str(port)]

    with System(command=command) as system:
        yield system.api_url


@pytest.fixture
def launch_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own for everything that launch-prefect keeps on a machine.

    Its path is short: sockets, whose paths have 107 characters at most, are made below it.
    """
    from launch_prefect.settings import get_settings

    home = Path(tempfile.mkdtemp(prefix="launch-", dir="/tmp"))
    monkeypatch.setenv("LAUNCH_HOME", str(home))
    monkeypatch.delenv("LAUNCH_CODE_STORE", raising=False)
    get_settings.cache_clear()
    yield home
    get_settings.cache_clear()
    shutil.rmtree(home)


@pytest.fixture(scope="session", autouse=True)
def no_container_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever the tests do, no container of ours is there at the end that was not there before."""
    if all(item.get_closest_marker("unit") for item in request.session.items):
        yield
        return
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        client = connect()
    except (DockerException, RequestException):
        yield  # without an engine there are no containers
        return
    before = _our_containers(client)
    yield
    # The engine may still be removing the last ones.
    deadline = time.monotonic() + 10
    while (left := _our_containers(client).keys() - before.keys()) and time.monotonic() < deadline:
        time.sleep(0.2)
    names = sorted(_our_containers(client).get(key, key) for key in left)
    client.close()
    assert not names, f"The tests left containers behind: {', '.join(names)}"


def _our_containers(client: DockerClient) -> dict[str, str]:
    """Names of our containers by their ids, running or not."""
    from launch_prefect.naming import LABEL

    found = client.api.containers(all=True, filters={"label": LABEL})
    return {container["Id"]: ", ".join(container["Names"]) or container["Id"][:12] for container in found}
