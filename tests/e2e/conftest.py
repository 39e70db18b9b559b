"""The system that the end-to-end tests share: one `prefect-launch up` with a queue for each target."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launch_prefect.naming import LABEL_JOB
from tests.e2e.building import Door, PackageIndex, address_for_builds
from tests.e2e.system import System
from tests.testbed.git_fixtures import git_https, git_https_server, git_servers, git_ssh, git_token  # noqa: F401
from tests.testbed.registry import basic_registry_fixture, open_registry_fixture  # noqa: F401

if TYPE_CHECKING:
    from docker import DockerClient

    from tests.testbed.git_servers import HttpsServer

MARKER = "of-the-agent-alone-5c2e"
"""Value of a variable of the agent's environment that no job may see."""


@pytest.fixture(scope="session")
def engine_or_none(request: pytest.FixtureRequest) -> DockerClient | None:
    """A Docker engine, where there is one or where one is required."""
    try:
        engine: DockerClient = request.getfixturevalue("docker_engine")
    except pytest.skip.Exception:
        return None
    return engine


@pytest.fixture(scope="session")
def queues(request: pytest.FixtureRequest, engine_or_none: DockerClient | None) -> list[dict[str, Any]]:
    """The queues `local` and, where there is an engine, `docker` and `one`, which runs and builds one thing at a time.

    A run that is stopped gets a second of grace.
    """
    made: list[dict[str, Any]] = [
        {"queue_name": "local", "target": "process", "concurrency": 20, "resource_config": {"stop_grace": 1}}
    ]
    if engine_or_none is not None:
        base = request.getfixturevalue("base_image")
        config = {"base_image": base, "stop_grace": 1}
        made.append({"queue_name": "docker", "target": "docker", "concurrency": 20, "resource_config": config})
        made.append({"queue_name": "one", "target": "docker", "concurrency": 1, "resource_config": config})
        made[-1]["builder"] = {"max_builds": 1}
    return made


@pytest.fixture(scope="session", autouse=True)
def no_image_is_left(engine_or_none: DockerClient | None) -> Iterator[None]:
    """The images of these tests' jobs are removed; those of environments are a cache that later tests may use."""
    if engine_or_none is None:
        yield
        return
    before = _images_of_jobs(engine_or_none)
    yield
    for image in _images_of_jobs(engine_or_none) - before:
        engine_or_none.images.remove(image, force=True)


def _images_of_jobs(engine: DockerClient) -> set[str]:
    return {
        str(image.id)
        for image in engine.images.list(filters={"label": LABEL_JOB})
        if image.labels[LABEL_JOB].startswith("e2e-")
    }


@pytest.fixture(scope="session")
def certificates(request: pytest.FixtureRequest) -> list[Path]:
    """The certificate of the git server, where there is one or where one is required."""
    try:
        server: HttpsServer = request.getfixturevalue("git_https_server")
    except pytest.skip.Exception:
        return []
    return [server.certificate]


@pytest.fixture(scope="session")
def system(queues: list[dict[str, Any]], certificates: list[Path], no_image_is_left: None) -> Iterator[System]:
    """A running system; what it starts is gone when it has ended."""
    with System(queues, env={"E2E_MARKER": MARKER}, certificates=certificates) as running:
        yield running


@pytest.fixture
def door(docker_engine: DockerClient) -> Iterator[Door]:
    """Where steps of builds stop until the test lets them go on."""
    with Door(address_for_builds(docker_engine)) as opened:
        yield opened


@pytest.fixture
def package_index(engine_or_none: DockerClient | None) -> Iterator[PackageIndex]:
    """An index of Python packages of its own, which wants a password."""
    with PackageIndex(address_for_builds(engine_or_none) if engine_or_none else "127.0.0.1") as index:
        yield index


@pytest.fixture(autouse=True)
def connected(system: System) -> Iterator[None]:
    """The Python API of a test means the system that the test uses."""
    with system.connected():
        yield


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def target(request: pytest.FixtureRequest) -> str:
    """Each target in turn."""
    if request.param == "docker":
        request.getfixturevalue("docker_engine")
    return str(request.param)


@pytest.fixture
def queue(target: str) -> str:
    """The queue of the target."""
    return {"process": "local", "docker": "docker"}[target]
