"""Images in registries: private ones, pinned ones, and those that agents build once and share."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker.errors import ImageNotFound

from launch_prefect import Job, Queue, Run
from launch_prefect.images import registry
from tests.e2e.building import Door, code
from tests.e2e.system import System, explained, processes_naming, said, texts, until
from tests.testbed.registry import Registry
from tests.testbed.registry_proxy import Proxy

if TYPE_CHECKING:
    from docker import DockerClient

END_SECONDS = 90
RUNS = 20
"""At once, of which either agent takes half."""
MAIN = ("-E", "python main.py")


@pytest.fixture(scope="module")
def way(open_registry: Registry) -> Iterator[Proxy]:
    """The way that the agents take to the open registry."""
    with Proxy(open_registry.port) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def no_fault_is_left(way: Proxy) -> Iterator[None]:
    yield
    way.heal()


@pytest.fixture(scope="module")
def registry_queues(
    system: System, docker_engine: DockerClient, base_image: str, basic_registry: Registry, way: Proxy
) -> Iterator[dict[str, str]]:
    """Queues and the agents `a` and `b`, on machines of their own as far as their state goes.

    `of-a` and `of-b` are each one agent's, `of-both` both agents'; `private` and `wrong` know a password.
    """
    from prefect_docker.credentials import DockerRegistryCredentials

    made = {kind: f"{kind}-{uuid.uuid4().hex[:6]}" for kind in ("of-a", "of-b", "of-both", "private", "wrong")}
    resources = system.folder / "registry-resources.yaml"
    resources.write_text(f"base_image: {base_image}\nstop_grace: 1\n")
    with system.connected():
        for kind, password in (("private", basic_registry.password), ("wrong", "not-the-password-77c1")):
            DockerRegistryCredentials(
                username=basic_registry.user, password=password, registry_url=basic_registry.address, reauth=False
            ).save(made[kind])
    for kind, name in made.items():
        with_registry = ("--registry", f"{way.address}/team", "-R", resources)
        with_password = ("--registry-credentials", f"docker-registry-credentials/{name}")
        words = with_registry if kind.startswith("of-") else with_password
        system.cli("queue", "create", name, "--target", "docker", *words)
    other_home = {"LAUNCH_HOME": str(system.folder / "home-b"), "PREFECT_API_URL": system.api_url}
    with (
        system.agent(made["of-a"], made["of-both"], made["private"], made["wrong"], name="agent a", max_jobs=RUNS // 2),
        system.agent(made["of-b"], made["of-both"], name="agent b", max_jobs=RUNS // 2, env=other_home),
    ):
        yield made
    _remove(docker_engine, f"{way.address}/team/launch-env")  # nobody finds these again: the port is another next time


@pytest.fixture
def images_go(docker_engine: DockerClient) -> Iterator[list[str]]:
    """Names of images that are removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        _remove(docker_engine, name)


def _remove(engine: DockerClient, *names: str) -> None:
    """Have the engine forget what it knows by these names; an image goes when it has no other."""
    for name in names:
        for image in engine.images.list(name):
            for known in [*image.attrs["RepoTags"], *image.attrs["RepoDigests"]]:
                if known.startswith(name):
                    with suppress(ImageNotFound):  # the last tag takes the digests of its name with it
                        engine.images.remove(known, force=True)


def _push(engine: DockerClient, image: str, to: Registry, name: str) -> str:
    """Push an image under another name, which the engine then forgets; the name."""
    reference = f"{to.address}/e2e/{name}"
    engine.api.tag(image, reference, force=True)
    auth = {"username": to.user, "password": to.password} if to.user else {}
    for line in engine.api.push(reference, stream=True, decode=True, auth_config=auth):
        assert "error" not in line, line
    engine.images.remove(reference)
    return reference


def _other(engine: DockerClient, tiny_image: str) -> str:
    """An image that ends with another code than the tiny one; its id."""
    container = engine.containers.create(tiny_image)
    try:
        return str(container.commit(changes='CMD ["/tiny", "3"]').id)
    finally:
        container.remove()


def test_a_private_registry(
    system: System,
    registry_queues: dict[str, str],
    docker_engine: DockerClient,
    tiny_image: str,
    basic_registry: Registry,
    images_go: list[str],
) -> None:
    image = _push(docker_engine, tiny_image, basic_registry, f"tiny-{uuid.uuid4().hex[:6]}:1")
    images_go.append(image.partition(":1")[0])
    began = time.monotonic()
    refused = system.submit(registry_queues["wrong"], "--image", image, "--job-name", "e2e-tiny").wait(END_SECONDS)
    assert time.monotonic() - began < 20
    assert refused.state == "Failed", explained(refused)
    assert basic_registry.address in refused.message
    assert f"the credentials of {basic_registry.user}" in refused.message
    assert "registry_credentials" in refused.message
    assert "not-the-password" not in explained(refused)
    run = system.submit(registry_queues["private"], "--image", image, "--job-name", "e2e-tiny").wait(END_SECONDS)
    assert (run.state, run.exit_code) == ("Completed", 0), explained(run)
    assert "@sha256:" in run.facts["image"]
    assert basic_registry.password not in explained(run)


@pytest.mark.parametrize("kind", ["open", "private"])
def test_a_tag_that_moves_after_the_submission(
    system: System,
    registry_queues: dict[str, str],
    docker_engine: DockerClient,
    tiny_image: str,
    request: pytest.FixtureRequest,
    images_go: list[str],
    kind: str,
) -> None:
    server: Registry = request.getfixturevalue({"open": "open_registry", "private": "basic_registry"}[kind])
    queue = {"open": "docker", "private": registry_queues["private"]}[kind]
    name = f"moving-{uuid.uuid4().hex[:6]}:stable"
    image = _push(docker_engine, tiny_image, server, name)
    images_go.append(image.rpartition(":")[0])
    first = registry.find_digest(image, server.credentials)
    with system.paused(queue):
        run = system.submit(queue, "--image", image, "--job-name", "e2e-tiny")
        other = _other(docker_engine, tiny_image)
        _push(docker_engine, other, server, name)
        assert registry.find_digest(image, server.credentials) != first
    run.wait(END_SECONDS)
    assert (run.state, run.exit_code) == ("Completed", 0), explained(run)
    assert run.facts["image"].endswith(f"@{first}")
    later = system.submit(queue, "--image", image, "--job-name", "e2e-tiny").wait(END_SECONDS)
    assert later.exit_code == 3, explained(later)


def _builds(run: Run) -> list[str]:
    return [line for line in texts(run, "launch") if line.startswith(("Building ", "Pushing "))]


def test_built_by_one_agent_and_pulled_by_another(
    system: System, registry_queues: dict[str, str], docker_engine: DockerClient, way: Proxy, tmp_path: Path
) -> None:
    folder = code(tmp_path / "e2e-shared", {"main.py": "import six; print(six.__version__)", "requirements.txt": "six"})
    first = system.submit(registry_queues["of-a"], folder, *MAIN).wait(END_SECONDS)
    assert first.succeeded, explained(first)
    assert [line.split()[:2] for line in _builds(first)].count(["Building", "image"]) == 1
    repository, digest = first.facts["image"].split("@")
    assert repository == f"{way.address}/team/e2e-shared"
    assert registry.find_digest(first.facts["image"]) == digest
    _remove(docker_engine, f"{way.address}/team/e2e-shared", f"{way.address}/team/launch-env")
    sent = way.sent
    second = system.submit(registry_queues["of-b"], folder, *MAIN).wait(END_SECONDS)
    assert second.succeeded, explained(second)
    assert second.facts["agent"].startswith("agent b")
    assert second.facts["image"] == first.facts["image"]
    assert f"Pulling {first.facts['image']}" in said(second)
    assert _builds(second) == []
    assert way.sent - sent < 20_000  # questions, and nothing pushed
    received = way.received
    third = system.submit(registry_queues["of-b"], folder, *MAIN).wait(END_SECONDS)
    assert third.succeeded, explained(third)
    assert "Pulling" not in said(third)
    assert way.received - received < 1000


def _gated(folder: Path, base_image: str, door: Door, name: str) -> Path:
    """Code whose build stops at a door."""
    dockerfile = f"FROM {base_image}\nWORKDIR /app\n{door.step(name)}COPY main.py .\n"
    return code(folder, {"main.py": "print('ran')", "Dockerfile.launch": dockerfile})


def test_many_runs_on_two_agents_build_once(
    system: System, registry_queues: dict[str, str], way: Proxy, door: Door, base_image: str, tmp_path: Path
) -> None:
    name = uuid.uuid4().hex
    folder = _gated(tmp_path / "e2e-many", base_image, door, name)
    queue, words = registry_queues["of-both"], ("--job-name", "e2e-many", *MAIN)
    with system.paused(queue):
        first = system.submit(queue, folder, *words)
        job = Job.get(first.job, queue=queue)
        runs = [first, *(Queue(queue).submit(job) for _ in range(RUNS - 1))]
    until(lambda: {run.refresh().state for run in runs} == {"Building"}, "all of them wait for the build", 60)
    until(lambda: door.waiting(name), "the build's step", 30)
    assert len([process for process in processes_naming(f"{way.address}/team/") if process.name() == "docker"]) == 1
    door.open(name)
    for run in runs:
        assert run.wait(END_SECONDS).succeeded, explained(run)
    assert {run.facts["agent"].partition(" (")[0] for run in runs} == {"agent a", "agent b"}
    assert len({run.facts["image"] for run in runs}) == 1
    assert door.arrived.count(name) == 1
    builders = {run.facts["agent"] for run in runs if "built as it says" in said(run)}
    assert len(builders) == 1


def test_a_registry_that_goes_away(
    system: System, registry_queues: dict[str, str], way: Proxy, door: Door, base_image: str, tmp_path: Path
) -> None:
    name = uuid.uuid4().hex
    folder = _gated(tmp_path / "e2e-away", base_image, door, name)
    run = system.submit(registry_queues["of-a"], folder, *MAIN)
    until(lambda: door.waiting(name), "the build's step", 60)
    way.refuse(1_000_000)
    door.open(name)
    run.wait(END_SECONDS)
    assert run.state in ("Crashed", "Failed"), explained(run)
    assert way.address in run.message
    assert "try again" in run.message
    way.heal()
    again = system.submit(registry_queues["of-a"], folder, *MAIN).wait(END_SECONDS)
    assert texts(again) == ["ran"], explained(again)
    assert door.arrived.count(name) == 1  # what had been built was only pushed


def test_a_push_that_is_cut_half_way(
    system: System, registry_queues: dict[str, str], way: Proxy, docker_engine: DockerClient, tmp_path: Path
) -> None:
    folder = code(tmp_path / "e2e-cut", {"main.py": "print('ran')"})
    (folder / "weights.bin").write_bytes(os.urandom(2_000_000))
    way.cut(sent=1_000_000)
    run = system.submit(registry_queues["of-a"], folder, *MAIN).wait(END_SECONDS)
    assert texts(run) == ["ran"], explained(run)
    assert "broke off" in said(run)
    _remove(docker_engine, f"{way.address}/team/e2e-cut")
    whole = system.submit(registry_queues["of-b"], folder, *MAIN).wait(END_SECONDS)
    assert texts(whole) == ["ran"], explained(whole)
    assert _builds(whole) == []
