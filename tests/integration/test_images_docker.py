"""Images built by a real Docker engine: once per content, in two layers, and what stops a build is told."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from launch_prefect import naming
from launch_prefect.errors import BuildFailed, ImageMissing, LaunchError, NotFound, Unreachable
from launch_prefect.images.builders.docker import DockerBuilder, find_client
from launch_prefect.images.making import LABEL_ENVIRONMENT
from launch_prefect.images.recipe import Recipe
from launch_prefect.images.service import Image, ImageService
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.code import code_of
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec.source import CodeSource

if TYPE_CHECKING:
    from docker import DockerClient

pytestmark = pytest.mark.docker

MISSING = "launch-prefect-no-such-image:1"


class Machine:
    """An image service with state of its own, and a count of what it built."""

    def __init__(self, folder: Path, engine: DockerClient, base_image: str) -> None:
        bundle = os.environ.get("SSL_CERT_FILE")
        self.folder, self.engine, self.base_image = folder, engine, base_image
        self.settings = LaunchSettings(home=folder / "home", ca_bundle=Path(bundle) if bundle else None)
        self.service = ImageService(self.settings)
        # Content of its own, so that nothing of an earlier run of these tests is found.
        self.mark = uuid.uuid4().hex
        self.job = f"image-tests-{self.mark}"
        self.builds = 0
        self.lines: list[str] = []

    @property
    def store(self) -> CodeStore:
        return CodeStore(self.settings.code_store_url)

    def source(self, requirements: str | None = "six", **files: str) -> CodeSource:
        code = self.folder / uuid.uuid4().hex
        code.mkdir()
        if requirements is not None:
            (code / "requirements.txt").write_text(f"# {self.mark}\n{requirements}\n")
        for name, text in ({"train": "print('hello')"} | files).items():
            (code / f"{name}.py").write_text(text)
        return CodeSource(code="train", digest=take(code, self.store).digest)

    async def ensure(self, source: CodeSource, service: ImageService | None = None, **options: Any) -> Image:
        recipe = Recipe(job=self.job, code=code_of(source, self.settings), base_image=self.base_image, **options)
        return await (service or self.service).ensure(recipe, log=self.lines.append, on_build=self._built)

    async def _built(self) -> None:
        self.builds += 1

    def installed(self) -> int:
        """How often dependencies were installed."""
        return sum(bool(re.search(r"#\d+ \[.*\] RUN .*pip install", line)) for line in self.lines)

    def run(self, image: Image, *command: str, **options: object) -> str:
        output = self.engine.containers.run(image.id, list(command), remove=True, **options)
        return bytes(output).decode().strip()

    def images(self) -> list[str]:
        found = self.engine.images.list(filters={"label": f"{naming.LABEL_JOB}={self.job}"})
        return [tag for image in found for tag in image.tags]

    def remove_images(self) -> None:
        environments = set()
        for tag in self.images():
            environments.add(self.engine.images.get(tag).labels[LABEL_ENVIRONMENT])
            self.engine.images.remove(tag, force=True)
        for key in environments:
            self.engine.images.remove(naming.environment_image(key), force=True)


@pytest.fixture
def machine(tmp_path: Path, docker_engine: DockerClient, base_image: str) -> Iterator[Machine]:
    machine = Machine(tmp_path, docker_engine, base_image)
    yield machine
    machine.remove_images()


async def test_built_once_and_found_without_the_code(machine: Machine) -> None:
    source = machine.source()
    image = await machine.ensure(source)
    assert (image.built, machine.builds, machine.installed()) == (True, 1, 1)
    assert machine.run(image, "python", "train.py") == "hello"
    assert machine.run(image, "python", "-c", "import six, launch_run; print('both')") == "both"

    shutil.rmtree(machine.settings.folder("code"))  # a hit must not need it
    machine.lines.clear()
    for service in (machine.service, ImageService(machine.settings)):
        again = await machine.ensure(source, service)
        assert (again.id, again.built) == (image.id, False)
    assert (machine.builds, machine.lines) == (1, [])


async def test_found_without_an_index(machine: Machine) -> None:
    source = machine.source(None)
    image = await machine.ensure(source)
    shutil.rmtree(machine.settings.folder("images"))
    again = await machine.ensure(source, ImageService(machine.settings))
    assert (again.id, again.built, machine.builds) == (image.id, False, 1)


async def test_changed_code_reinstalls_nothing(machine: Machine) -> None:
    first = await machine.ensure(machine.source())
    second = await machine.ensure(machine.source(train="print('changed')", more=""))
    assert second.id != first.id
    assert (machine.builds, machine.installed()) == (2, 1)
    assert "environment kept" in second.reason
    assert machine.run(second, "python", "train.py") == "changed"
    layers = [machine.engine.images.get(image.id).attrs["RootFS"]["Layers"] for image in (first, second)]
    assert layers[0][:-2] == layers[1][:-2]  # all but the code and its working folder


async def test_many_at_once_are_one_build(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    tags: list[str] = []
    real = DockerBuilder.build

    async def spy(self: DockerBuilder, context: Path, dockerfile: str, tag: str, **options: object) -> str:
        tags.append(tag)
        return await real(self, context, dockerfile, tag, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(DockerBuilder, "build", spy)
    source = machine.source(None)
    other_process = ImageService(machine.settings)
    services = [machine.service] * 3 + [other_process] * 2
    images = await asyncio.gather(*(machine.ensure(source, service) for service in services))
    assert len({image.id for image in images}) == 1
    assert [tag.partition(":")[0] for tag in tags] == ["launch-prefect/env", images[0].name.partition(":")[0]]
    assert machine.engine.images.get(images[0].id).tags == [images[0].name]


async def test_a_cancelled_waiter_leaves_the_build_to_the_others(machine: Machine) -> None:
    source = machine.source()
    tasks = [asyncio.create_task(machine.ensure(source)) for _ in range(2)]
    while machine.builds < 2:
        await asyncio.sleep(0.01)
    tasks[0].cancel()
    image = await tasks[1]
    assert image.built
    assert tasks[0].cancelled()


async def test_a_cancelled_build_stops(machine: Machine) -> None:
    source = machine.source()
    task = asyncio.create_task(machine.ensure(source))
    while not any("pip install" in line for line in machine.lines):
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.images() == []
    assert (await machine.ensure(source)).built


async def test_a_job_need_not_run_as_root(machine: Machine) -> None:
    image = await machine.ensure(machine.source(None))
    program = "import launch_run; open('made', 'w').write('x'); exec(open('train.py').read())"
    assert machine.run(image, "python", "-c", program, user="1234:1234") == "hello"


async def test_projects_and_locks(machine: Machine) -> None:
    project = f'[project]\nname = "x"\nversion = "1"\ndescription = "{machine.mark}"\n'
    project += 'requires-python = ">=3.9"\ndependencies = ["six"]\n'
    code = machine.folder / "project"
    code.mkdir()
    (code / "pyproject.toml").write_text(project)
    plain = CodeSource(code="x", digest=take(code, machine.store).digest)
    import uv

    process = await asyncio.create_subprocess_exec(uv.find_uv_bin(), "lock", "--quiet", cwd=code)
    assert await process.wait() == 0
    locked = CodeSource(code="x", digest=take(code, machine.store).digest)
    for source in (plain, locked):
        image = await machine.ensure(source)
        assert machine.run(image, "python", "-c", "import six; print(six.__name__)") == "six"
        assert machine.run(image, "ls", "/tmp") == ""


async def test_no_secret_is_in_the_image(machine: Machine) -> None:
    image = await machine.ensure(machine.source())
    history = str(machine.engine.images.get(image.id).history())
    assert "BEGIN CERTIFICATE" not in history
    secrets = machine.run(image, "sh", "-c", "cat /run/secrets/ca_bundle 2>/dev/null | wc -c")
    assert secrets == "0"
    environment = machine.run(image, "env")
    assert "CERT" not in environment


async def test_requirements_that_do_not_resolve(machine: Machine) -> None:
    with pytest.raises(BuildFailed, match=r"six==999") as caught:
        await machine.ensure(machine.source("six==999"))
    assert "RUN python -m pip install" in caught.value.message
    assert caught.value.mend
    assert machine.images() == []
    assert machine.builds == 1


async def test_missing_images(machine: Machine) -> None:
    with pytest.raises(ImageMissing, match=MISSING) as caught:
        await machine.service.puller.resolve(MISSING, log=machine.lines.append)
    assert "credentials" in caught.value.mend
    machine.base_image = MISSING
    with pytest.raises(ImageMissing, match=MISSING):
        await machine.ensure(machine.source())
    with pytest.raises(ImageMissing):
        await machine.service.puller.resolve("sha256:" + "0" * 64, log=machine.lines.append)


async def test_an_image_that_is_here_is_not_pulled(machine: Machine) -> None:
    expected = machine.engine.images.get(machine.base_image).id
    assert await machine.service.puller.resolve(machine.base_image, log=machine.lines.append) == expected
    assert await machine.service.puller.resolve(expected, log=machine.lines.append) == expected
    assert machine.lines == []


async def test_a_missing_snapshot(machine: Machine) -> None:
    with pytest.raises(NotFound, match="does not hold"):
        await machine.ensure(CodeSource(code="x", digest="sha256:" + "0" * 64))


async def test_an_engine_that_does_not_answer(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(Unreachable, match=r"unix:///nowhere/docker\.sock does not answer"):
        await machine.ensure(machine.source())
    with pytest.raises(Unreachable):
        await machine.service.puller.resolve("x", log=machine.lines.append)
    with pytest.raises(Unreachable):
        await DockerBuilder().build(
            machine.folder, "FROM scratch\n", "x", secrets={}, labels={}, log=machine.lines.append
        )


def fake_client(folder: Path, *, version: int, buildx: bool) -> str:
    folder.mkdir()
    program = folder / "docker"
    plugin = "exit 0" if buildx else "exit 1"
    program.write_text(f'#!/bin/sh\n[ "$1" = buildx ] && {plugin}\necho "Docker version {version}.0.1, build 0"\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.parametrize(
    ("clients", "chosen"),
    [
        ([(28, False), (20, False)], 1),
        ([(20, False), (28, True)], 1),
        ([(28, True), (27, True)], 0),
    ],
)
async def test_the_client_that_can_build_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clients: list[tuple[int, bool]], chosen: int
) -> None:
    programs = [
        fake_client(tmp_path / str(number), version=version, buildx=buildx)
        for number, (version, buildx) in enumerate(clients)
    ]
    monkeypatch.setenv("PATH", ":".join(str(Path(program).parent) for program in programs))
    assert (await find_client()).command[0] == programs[chosen]


async def test_no_client_that_can_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_client(tmp_path / "a", version=28, buildx=False)
    for path in (tmp_path / "a", tmp_path):
        monkeypatch.setenv("PATH", str(path))
        with pytest.raises(LaunchError, match="BuildKit") as caught:
            await find_client()
        assert "buildx" in caught.value.mend


async def test_the_build_process_gets_nothing_of_the_agents_secrets(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "hunter2")
    seen: list[tuple[str, ...]] = []
    real = asyncio.create_subprocess_exec

    async def spy(*command: str, **options: object) -> asyncio.subprocess.Process:
        assert "TEAM_TOKEN" not in options["env"]  # type: ignore[operator]
        seen.append(command)
        return await real(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    await machine.ensure(machine.source())
    assert sum("build" in command for command in seen) == 2
