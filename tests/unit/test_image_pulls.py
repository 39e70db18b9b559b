"""When an image is pulled, what happens if that fails, and who sees the registry's credentials; no engine is needed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from launch_prefect import dockerpy
from launch_prefect.errors import DiskFull, ImageMissing, InvalidInput, LaunchError, RegistryRefused, Unreachable
from launch_prefect.images import engine, transfer
from launch_prefect.images.pulling import Puller

pytestmark = pytest.mark.unit

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
FIXED, MOVING = "registry.test:5000/team/train:1.4", "registry.test:5000/team/train"


class Machine:
    """A machine whose engine has one image or none, and whose registry answers or refuses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.puller = Puller()
        self.here: str | None = OLD
        self.refusal: LaunchError | None = None
        self.pulls: list[Any] = []
        self.lines: list[str] = []
        monkeypatch.setattr(engine, "find", lambda reference: self.here)
        monkeypatch.setattr(engine, "pull", self._pull)

    def _pull(self, reference: str, stop: threading.Event, credentials: engine.Credentials | None) -> str:
        self.pulls.append(credentials)
        if self.refusal:
            raise self.refusal
        return NEW

    async def resolve(self, reference: str, **options: Any) -> str:
        return await self.puller.resolve(reference, log=self.lines.append, **options)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.mark.parametrize(
    ("policy", "reference", "pulled"),
    [
        ("Always", FIXED, True),
        ("IfPossible", FIXED, True),
        ("IfNotPresent", FIXED, False),
        ("IfNotPresent", MOVING, False),
        ("Never", MOVING, False),
        (None, FIXED, False),
        (None, MOVING, True),
        (None, f"{MOVING}:latest", True),
        (None, f"{MOVING}@{OLD}", False),
        (None, "train", True),
        (None, OLD, False),
        ("Always", OLD, False),
        (None, "a" * 12, False),
    ],
)
async def test_an_image_that_is_here(machine: Machine, policy: str | None, reference: str, pulled: bool) -> None:
    assert await machine.resolve(reference, policy=policy) == (NEW if pulled else OLD)
    assert len(machine.pulls) == pulled


@pytest.mark.parametrize("policy", ["Always", "IfPossible", "IfNotPresent", None])
async def test_an_image_that_is_not_here(machine: Machine, policy: str | None) -> None:
    machine.here = None
    assert await machine.resolve(FIXED, policy=policy) == NEW
    machine.refusal = engine.missing(FIXED, "unauthorized")
    with pytest.raises(ImageMissing, match="unauthorized"):
        await machine.resolve(FIXED, policy=policy)


async def test_never_pulls_nothing_and_says_what_to_do(machine: Machine) -> None:
    machine.here = None
    with pytest.raises(ImageMissing, match="image_pull_policy is Never") as caught:
        await machine.resolve(FIXED, policy="Never")
    assert f"docker pull {FIXED}" in caught.value.mend
    assert machine.pulls == []


@pytest.mark.parametrize(
    "refusal",
    [
        engine.missing(MOVING, "no such host"),
        DiskFull("No space is left."),
        RegistryRefused("The registry refuses."),
        Unreachable("The registry does not answer."),
    ],
)
async def test_a_pull_that_fails(machine: Machine, refusal: LaunchError) -> None:
    machine.refusal = refusal
    for reference, policy in ((MOVING, None), (FIXED, "IfPossible")):
        machine.lines.clear()
        assert await machine.resolve(reference, policy=policy) == OLD
        assert machine.lines[-1] == f"{refusal.message} The one that is on this machine is taken: {OLD}"
    with pytest.raises(type(refusal)):
        await machine.resolve(FIXED, policy="Always")


async def test_an_unknown_policy_is_refused(machine: Machine) -> None:
    with pytest.raises(InvalidInput, match=r"image_pull_policy.*'Sometimes'.*IfNotPresent, Always"):
        await machine.resolve(FIXED, policy="Sometimes")


async def test_a_pull_is_shared_by_those_of_the_same_credentials(machine: Machine) -> None:
    machine.here = None
    mine, yours = ("registry.test:5000", "me", "hunter2"), ("registry.test:5000", "you", "hunter3")
    await asyncio.gather(*(machine.resolve(FIXED, credentials=each) for each in (mine, mine, yours, None)))
    assert sorted(machine.pulls, key=str) == sorted([mine, yours, None], key=str)


async def test_credentials_of_another_registry_are_not_used_and_that_is_said(machine: Machine) -> None:
    machine.here = None
    await machine.resolve(FIXED, credentials=("other.test", "me", "hunter2"))
    assert machine.pulls == [None]
    assert "other.test" in machine.lines[0]
    assert "hunter2" not in str(machine.lines)


@pytest.mark.parametrize(
    ("reference", "registry", "sent"),
    [
        (FIXED, "https://registry.test:5000/v2/", True),
        (FIXED, "registry.test:5000", True),
        (FIXED, "registry.test", False),
        (FIXED, "index.docker.io", False),
        ("python:3.12", "https://index.docker.io/v1/", True),
        ("team/train", "docker.io", True),
        ("python:3.12", "registry.test", False),
    ],
)
def test_only_the_registry_itself_gets_the_credentials(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, reference: str, registry: str, sent: bool
) -> None:
    seen: list[Any] = []
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))

    class Client:
        api = property(lambda self: self)
        api_version = "1.41"

        def __init__(self, version: str | None = None) -> None:
            pass

        def inspect_image(self, reference: str) -> dict[str, str]:
            return {"Id": NEW}

        def close(self) -> None:
            pass

    def lines(client: Client, path: str, query: dict[str, str], login: Any, stop: threading.Event) -> list[Any]:
        seen.append(login)
        return []

    monkeypatch.setattr(dockerpy.docker, "from_env", Client)
    monkeypatch.setattr(transfer, "lines", lines)
    assert engine.pull(reference, threading.Event(), (registry, "me", "hunter2")) == NEW
    assert seen == [(registry, "me", "hunter2") if sent else None]
