"""Virtual environments of the process target, made by the real uv."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from launch_prefect.errors import BuildFailed
from launch_prefect.images.environments import ProcessEnvironment, ensure_environment
from launch_prefect.settings import LaunchSettings


class Machine:
    """One machine's state folder, and a count of what was built on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = LaunchSettings(home=folder / "home")
        self.builds = 0
        self.lines: list[str] = []

    def code(self, name: str, files: dict[str, str]) -> Path:
        folder = self.folder / name
        folder.mkdir()
        for file, text in files.items():
            (folder / file).write_text(text)
        return folder

    async def ensure(self, code: Path) -> ProcessEnvironment:
        return await ensure_environment(
            code,
            code_digest="sha256:" + "0" * 64,
            settings=self.settings,
            log=self.lines.append,
            on_build=self._built,
        )

    async def _built(self) -> None:
        self.builds += 1

    def kept(self) -> list[str]:
        return [path.name for path in self.settings.folder("envs").iterdir() if path.is_dir()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def python(environment: ProcessEnvironment, program: str) -> str:
    done = subprocess.run(
        [environment.bin / "python", "-c", program], capture_output=True, text=True, check=True, env={}
    )
    return done.stdout.strip()


async def test_built_once_per_content_and_kept(machine: Machine) -> None:
    first = await machine.ensure(machine.code("a", {"requirements.txt": "six==1.16.0\n", "train.py": "1"}))
    assert (first.built, machine.builds) == (True, 1)
    assert python(first, "import six; print(six.__version__)") == "1.16.0"
    assert any("six" in line for line in machine.lines)
    again = await machine.ensure(machine.code("b", {"requirements.txt": "six==1.16.0\n", "train.py": "2"}))
    assert (again.built, machine.builds, again.path) == (False, 1, first.path)
    other = await machine.ensure(machine.code("c", {"requirements.txt": "six==1.17.0\n"}))
    assert other.path != first.path


async def test_many_at_once_build_once(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[tuple[str, ...]] = []
    real = asyncio.create_subprocess_exec

    async def spy(*command: str, **options: object) -> asyncio.subprocess.Process:
        commands.append(command)
        return await real(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    code = machine.code("a", {"requirements.txt": "six\n"})
    found = await asyncio.gather(*(machine.ensure(code) for _ in range(5)))
    assert len({environment.path for environment in found}) == 1
    assert [command[1] for command in commands] == ["venv", "pip"]


async def test_cancelling_one_of_two_leaves_the_build_to_the_other(machine: Machine) -> None:
    code = machine.code("a", {"requirements.txt": "six\n"})
    tasks = [asyncio.create_task(machine.ensure(code)) for _ in range(2)]
    while machine.builds < 2:
        await asyncio.sleep(0.01)
    tasks[0].cancel()
    environment = await tasks[1]
    assert python(environment, "import six; print(1)") == "1"
    assert tasks[0].cancelled()


async def test_a_cancelled_build_leaves_nothing(machine: Machine) -> None:
    task = asyncio.create_task(machine.ensure(machine.code("a", {"requirements.txt": "six\n"})))
    while not machine.builds:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert machine.kept() == []


async def test_pyproject_and_lock(machine: Machine) -> None:
    project = '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["six==1.16.0"]\n'
    first = await machine.ensure(machine.code("a", {"pyproject.toml": project}))
    assert python(first, "import six; print(six.__version__)") == "1.16.0"
    locked = machine.code("b", {"pyproject.toml": project})
    import uv

    subprocess.run([uv.find_uv_bin(), "lock", "--quiet"], cwd=locked, check=True, env=os.environ)
    second = await machine.ensure(locked)
    assert python(second, "import six; print(six.__version__)") == "1.16.0"
    assert second.path != first.path
    assert sorted(path.name for path in locked.iterdir()) == ["pyproject.toml", "uv.lock"]


async def test_no_dependencies_give_a_bare_environment_of_the_agents_python(machine: Machine) -> None:
    environment = await machine.ensure(machine.code("a", {"train.py": "1"}))
    version = python(environment, "import sys; print(*sys.version_info[:2])")
    import sys

    assert version == "{} {}".format(*sys.version_info)
    with pytest.raises(subprocess.CalledProcessError):
        python(environment, "import prefect")


async def test_unfinished_and_broken_environments_are_built_again(machine: Machine) -> None:
    code = machine.code("a", {"train.py": "1"})
    first = await machine.ensure(code)
    (first.path / ".ready").unlink()
    (first.path / "left-over").touch()
    assert (await machine.ensure(code)).built
    assert not (first.path / "left-over").exists()
    (first.path / "bin" / "python").unlink()
    (first.path / "bin" / "python").symlink_to("/nowhere/python")
    assert (await machine.ensure(code)).built


async def test_requirements_that_do_not_resolve(machine: Machine) -> None:
    code = machine.code("a", {"requirements.txt": "six==999\n"})
    with pytest.raises(BuildFailed, match="six==999") as caught:
        await machine.ensure(code)
    assert "requirements.txt" in caught.value.message
    assert caught.value.mend
    assert machine.kept() == []


async def test_a_python_that_is_not_here(machine: Machine) -> None:
    code = machine.code("a", {".python-version": "3.2\n"})
    with pytest.raises(BuildFailed, match=r"asks for Python 3\.2") as caught:
        await machine.ensure(code)
    import platform

    assert platform.python_version() in caught.value.message
    assert machine.kept() == []


async def test_uv_gets_nothing_of_the_agents_secrets(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_TOKEN", "hunter2")
    project = machine.code("a", {"requirements.txt": "six\n"})
    seen: list[dict[str, str]] = []
    real = asyncio.create_subprocess_exec

    async def spy(*command: str, **options: object) -> asyncio.subprocess.Process:
        seen.append(options["env"])  # type: ignore[arg-type]
        return await real(*command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    await machine.ensure(project)
    assert seen
    assert not any("TEAM_TOKEN" in env for env in seen)
