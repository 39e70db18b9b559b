"""House-keeping on a real Docker engine: images of ours go, nothing else does."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launch_prefect import naming
from launch_prefect.images.builders.docker import find_client
from launch_prefect.images.housekeeping import Usage, images, keep_house
from launch_prefect.images.housekeeping import keeper as keeper_module
from launch_prefect.images.housekeeping.choice import Candidate
from launch_prefect.images.making import LABEL_CODE, LABEL_ENVIRONMENT, LABEL_SOURCE
from launch_prefect.settings import LaunchSettings

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

MB = 1_000_000


class House:
    """Images of this test alone, among whatever else is on the engine."""

    def __init__(self, engine: DockerClient, folder: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine, self.base = engine, base
        self.client = asyncio.run(find_client())
        self.settings = LaunchSettings(home=folder)
        self.usage = Usage(self.settings)
        self.mark = uuid.uuid4().hex
        self.lines: list[str] = []
        self.ids: list[str] = []
        find = self.everything = images.find

        def found(usage: Usage) -> images.Images:
            everything = find(usage)
            mine = tuple(each for each in everything.ours if any(self.mark in name for name in each.also))
            return images.Images(mine, everything.others)

        # The images of other tests on this engine are none of this one's business.
        monkeypatch.setattr(keeper_module.images, "find", found)

    def build(self, name: str, size: int, on: str | None = None, labels: dict[str, str] | None = None) -> str:
        """An image `launch-prefect/NAME-MARK:1` with a layer of its own."""
        context = self.settings.folder("contexts", name)
        (context / "data").write_bytes(os.urandom(size))
        (context / "Dockerfile").write_text(f"FROM {on or self.base}\nCOPY data /{name}\n")
        tag = f"launch-prefect/{name}-{self.mark}:1"
        labels = {naming.LABEL: "1"} | (labels or {})
        words = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
        subprocess.run(
            [*self.client.command, "--tag", tag, *words, str(context)],
            env=os.environ | self.client.env,
            check=True,
            capture_output=True,
        )
        image = self.engine.images.get(tag)
        self.ids.append(image.id)
        return str(image.id)

    def aged(self, image: str, days: float) -> str:
        self.usage.used("image", image)
        when = time.time() - days * 86_400
        os.utime(self.usage._file("image", image), (when, when))
        return image

    def keep(self, budget: int, **options: Any) -> list[str]:
        done = keep_house(self.settings, self.usage, budget=budget, log=self.lines.append, **options)
        return [removed.name for removed in done]

    def has(self, image: str) -> bool:
        return any(each.id == image for each in self.engine.images.list(all=True))


@pytest.fixture
def house(
    docker_engine: DockerClient, tiny_image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    house = House(docker_engine, tmp_path, tiny_image, monkeypatch)
    yield house
    from docker.errors import ImageNotFound

    for image in reversed(house.ids):
        try:
            docker_engine.images.remove(image, force=True)
        except ImageNotFound:
            continue


def test_images_go_by_their_use_and_sizes_count_shared_layers_once(house: House) -> None:
    key = f"sha256:{house.mark}"
    environment = house.build("env", 3 * MB, labels={LABEL_ENVIRONMENT: key})
    on = f"launch-prefect/env-{house.mark}:1"
    old = house.build("old", MB, on, {LABEL_ENVIRONMENT: key, LABEL_CODE: f"sha256:old{house.mark}"})
    new = house.build("new", MB, on, {LABEL_ENVIRONMENT: key, LABEL_CODE: f"sha256:new{house.mark}"})
    for image, days in ((environment, 30), (old, 9), (new, 2)):
        house.aged(image, days)
    # 3 + 1 + 1 MB of our own: the base below them is not ours.
    assert house.keep(5 * MB + 100_000) == []
    assert house.keep(5 * MB - 100_000) == [old]
    assert (house.has(old), house.has(new), house.has(environment)) == (False, True, True)
    assert house.keep(1, needed=frozenset({f"sha256:new{house.mark}"})) == []
    assert house.keep(1, dry_run=True) == [new, environment]
    assert house.keep(1) == [new, environment]
    assert not house.has(environment)
    assert house.engine.images.get(house.base)
    assert any("last used 2 days ago" in line for line in house.lines)


def test_an_image_is_needed_by_its_code_and_by_the_commit_that_it_is_of(house: House) -> None:
    key = f"sha256:{house.mark}"
    environment = house.aged(house.build("env", MB, labels={LABEL_ENVIRONMENT: key}), 30)
    labels = {LABEL_ENVIRONMENT: key, LABEL_CODE: "sha256:files", LABEL_SOURCE: "sha256:commit"}
    image = house.aged(house.build("code", MB, f"launch-prefect/env-{house.mark}:1", labels), 20)
    assert house.keep(1, needed=frozenset({"sha256:commit"})) == []
    assert house.keep(1, needed=frozenset({"sha256:files"})) == []
    assert house.keep(1, needed=frozenset({"sha256:other"})) == [image, environment]


@pytest.mark.parametrize("running", [True, False])
def test_an_image_that_a_container_has_stays_with_its_environment(house: House, running: bool) -> None:
    key = f"sha256:{house.mark}"
    environment = house.aged(house.build("env", MB, labels={LABEL_ENVIRONMENT: key}), 30)
    on = f"launch-prefect/env-{house.mark}:1"
    code = house.aged(house.build("code", MB, on, {LABEL_ENVIRONMENT: key, LABEL_CODE: "sha256:c"}), 20)
    other = house.aged(house.build("other", MB), 1)
    house.engine.api.tag(code, f"launch-prefect/second-{house.mark}", "1")
    container = house.engine.containers.create(code, ["/tiny", "0", "60" if running else "0"])
    try:
        if running:
            container.start()
        assert house.keep(1) == [other]
        assert house.has(code)
        assert images.remove(code) is False  # as when the container came after the look
        assert len(house.engine.images.get(code).tags) == 2
        assert house.has(environment)
    finally:
        container.remove(force=True)
    assert house.keep(1) == [code, environment]


def test_an_image_goes_by_all_of_its_names(house: House) -> None:
    image = house.aged(house.build("one", MB), 5)
    house.engine.api.tag(image, f"127.0.0.1:5999/team/launch-env-{house.mark}", "x")
    assert house.keep(1) == [image]
    assert not house.has(image)


def test_images_of_others_and_lately_made_ones_stay(house: House) -> None:
    fresh = house.build("fresh", MB)
    assert house.keep(1) == []
    assert house.has(fresh)
    everything = house.everything(house.usage)
    assert fresh in {each.name for each in everything.ours}
    assert house.engine.images.get(house.base).id not in {each.name for each in everything.ours}


def test_an_image_that_vanishes_meanwhile_is_not_counted(house: House) -> None:
    first, second = house.aged(house.build("a", MB), 5), house.aged(house.build("b", MB), 4)
    lines = []

    def meanwhile(line: str) -> None:
        lines.append(line)
        if house.has(second):
            house.engine.images.remove(second)

    done = keep_house(house.settings, house.usage, budget=1, log=meanwhile)
    assert [removed.name for removed in done] == [first]
    assert "Removed image" in lines[0]


def test_two_agents_at_once_remove_each_image_once(house: House) -> None:
    aged = [house.aged(house.build(f"i{number}", MB // 10), number + 2) for number in range(5)]
    done: list[str] = []
    threads = [threading.Thread(target=lambda: done.extend(house.keep(1))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(aged)


def test_two_homes_may_remove_the_same_image(house: House, tmp_path: Path) -> None:
    image = house.aged(house.build("x", MB), 5)
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(images.remove(image))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert any(results)
    assert not house.has(image)


def test_sizes_agree_with_the_engines_own(house: House) -> None:
    one = house.build("one", 2 * MB)
    (candidate,) = (each for each in _found(house) if each.name == one)
    assert sum(candidate.parts.values()) == house.engine.images.get(one).attrs["Size"]


def _found(house: House) -> tuple[Candidate, ...]:
    return keeper_module.images.find(house.usage).ours
