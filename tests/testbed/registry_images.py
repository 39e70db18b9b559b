"""Images to push to registries, and a machine that is logged in to none of them: fixtures to import."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from launch_prefect.images import ecr, engine, registry
from launch_prefect.images.registry import find_digest

if TYPE_CHECKING:
    from docker import DockerClient

MIB = 1 << 20


class Images:
    """Images of random bytes, which no registry has seen and nothing compresses."""

    def __init__(self, docker: DockerClient) -> None:
        self._docker = docker
        self._base = os.urandom(4 * MIB)
        self.names: set[str] = set()
        self.ids: set[str] = set()

    def make(self, address: str, top: int = 64 << 10, *, name: str = "", tag: str = "1") -> str:
        """An image of two layers: one that all images of this object share, and one of `top` bytes of its own."""
        reference = f"{address}/{name or 'team/' + uuid.uuid4().hex[:12]}:{tag}"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            dockerfile = b'FROM scratch\nCOPY base /\nCOPY top /\nCMD ["/none"]\n'
            for path, content in (("Dockerfile", dockerfile), ("base", self._base), ("top", os.urandom(top))):
                member = tarfile.TarInfo(path)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        context.seek(0)
        image, _ = self._docker.images.build(fileobj=context, custom_context=True, tag=reference, rm=True)
        self.names.add(reference)
        self.ids.add(image.id)
        return reference

    def forget(self, reference: str) -> None:
        """Remove an image from the engine under all its names."""
        self._docker.api.remove_image(engine.find(reference), force=True)


@pytest.fixture(name="images")
def images_fixture(docker_engine: DockerClient) -> Iterator[Images]:
    made = Images(docker_engine)
    yield made
    from docker.errors import APIError

    for image in made.ids:
        with suppress(APIError):
            docker_engine.api.remove_image(image, force=True)


@pytest.fixture(autouse=True, name="own_docker_configuration")
def own_docker_configuration_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody is logged in anywhere, whoever runs the tests."""
    folder = tmp_path / "docker"
    folder.mkdir()
    monkeypatch.setenv("DOCKER_CONFIG", str(folder))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    ecr._kept.clear()
    return folder


def ways(
    reference: str, log: Callable[[str], None] = print
) -> tuple[Callable[[registry.Credentials | None], object], ...]:
    """All that a registry can be asked about an image, with credentials or None."""
    return (
        lambda given: find_digest(reference, given),
        lambda given: engine.pull(reference, threading.Event(), given),
        lambda given: engine.push(reference, threading.Event(), given, log),
    )
