"""Virtual environments of the process target, made by the real uv."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from launch_prefect.errors import BuildFailed, InvalidInput
from launch_prefect.images.environments import ProcessEnvironment, ensure_environment
from launch_prefect.settings import LaunchSettings
from launch_prefect.spec.build import BuildSpec
from tests.testbed import packages


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

    async def ensure(self, code: Path, **options: Any) -> ProcessEnvironment:
        return await ensure_environment(
            code,
            code_digest="sha256:" + "0" * 64,
            settings=self.settings,
            log=self.lines.append,
            on_build=self._built,
            **options,
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


async def test_the_log_is_told_why_and_what_is_passed_over(machine: Machine) -> None:
    files = {"requirements.txt": "six\n", "Dockerfile.launch": "FROM x"}
    code = machine.code("a", files)
    build = BuildSpec(system_packages=("ffmpeg",))
    first = await machine.ensure(code, build=build)
    again = await machine.ensure(code, build=build)
    why = "requirements.txt found (Dockerfile.launch is passed over: target process runs no images): "
    assert first.reason == f"{why}environment built."
    assert again.reason == f"{why}the environment is here already."
    assert sum(line.startswith("build.system_packages is not used") for line in machine.lines) == 2
    # what an image alone has makes no other environment
    assert (await machine.ensure(code)).path == first.path
    with pytest.raises(InvalidInput, match=r"build\.dockerfile"):
        await machine.ensure(code, build=BuildSpec(dockerfile="Dockerfile.launch"))


async def test_the_jobs_python_comes_first(machine: Machine) -> None:
    code = machine.code("a", {".python-version": "3.1\n"})
    version = "{}.{}".format(*sys.version_info)
    environment = await machine.ensure(code, build=BuildSpec(python=version))
    assert python(environment, "import sys; print('{}.{}'.format(*sys.version_info))") == version
    with pytest.raises(BuildFailed, match=r"asks for Python 3\.2"):
        await machine.ensure(code, build=BuildSpec(python="3.2"))


async def test_dependencies_that_pyproject_leaves_to_a_file(machine: Machine) -> None:
    dynamic = '[tool.setuptools.dynamic]\ndependencies = {file = ["reqs.txt"]}\n'
    project = f'[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n{dynamic}'
    environment = await machine.ensure(machine.code("a", {"pyproject.toml": project, "reqs.txt": "six\n"}))
    assert python(environment, "import six; print(six.__name__)") == "six"


async def test_built_again_beside_the_one_that_runs_are_in(machine: Machine) -> None:
    code = machine.code("a", {"requirements.txt": "six\n"})
    first = await machine.ensure(code)
    second = await machine.ensure(code, rebuild=True)
    third = await machine.ensure(code, rebuild=True)
    assert (second.built, third.built) == (True, True)
    assert len({first.path, second.path, third.path}) == 3
    assert len({first.key, second.key, third.key}) == 1
    for environment in (first, second, third):
        assert python(environment, "import six; print(six.__name__)") == "six"
    assert (await machine.ensure(code)).path == third.path
    (third.path / ".ready").unlink()
    assert (await machine.ensure(code)).path == second.path


async def test_those_that_were_built_before_go_where_nothing_runs_in_them(machine: Machine) -> None:
    code = machine.code("a", {})
    paths = [(await machine.ensure(code, rebuild=True)).path for _ in range(3)]
    for path in paths:
        os.utime(path / ".ready", (0, 0))
    (machine.settings.folder("runs", "id", "1") / "environment").write_text(str(paths[1]))
    newest = (await machine.ensure(code)).path  # found, so it may be run in at any moment
    assert newest == paths[2]
    last = (await machine.ensure(code, rebuild=True)).path
    assert sorted(machine.kept()) == sorted(path.name for path in (paths[1], newest, last))


async def test_a_rebuild_that_fails_leaves_the_one_that_is_here(machine: Machine, tmp_path: Path) -> None:
    packages.make_wheel(tmp_path / "index", "teampackage")
    code = machine.code("a", {"requirements.txt": "teampackage\n"})
    with packages.served(tmp_path / "index", "127.0.0.1") as address:
        first = await machine.ensure(code, secrets={"UV_INDEX": f"http://{address}/simple"})
    with pytest.raises(BuildFailed):
        await machine.ensure(code, rebuild=True)
    assert (await machine.ensure(code)).path == first.path
    assert machine.kept() == [first.path.name]


async def test_a_build_that_takes_too_long(machine: Machine) -> None:
    with pytest.raises(BuildFailed, match=r"not built within 0\.05 s") as caught:
        await machine.ensure(machine.code("a", {"requirements.txt": "six\n"}), timeout=0.05)
    assert "builder.timeout" in caught.value.mend
    assert machine.kept() == []


@pytest.mark.parametrize("by", ["UV_INDEX", "PIP_EXTRA_INDEX_URL", "NETRC"])
async def test_a_private_index_by_a_build_secret(machine: Machine, tmp_path: Path, by: str) -> None:
    packages.make_wheel(tmp_path / "index", "teampackage")
    code = machine.code("a", {"requirements.txt": "teampackage\n"})
    with packages.served(tmp_path / "index", "127.0.0.1", "hunter2") as address:
        with pytest.raises(BuildFailed):
            await machine.ensure(code, secrets={"UV_INDEX": f"http://{address}/simple"})
        secrets = {by: f"http://reader:hunter2@{address}/simple"}
        if by == "NETRC":
            secrets = {"UV_INDEX": f"http://{address}/simple", by: "machine 127.0.0.1 login reader password hunter2\n"}
        environment = await machine.ensure(code, secrets=secrets)
    assert python(environment, "import teampackage; print(teampackage.__version__)") == "1.0"
    assert "hunter2" not in "\n".join(machine.lines)
    found = subprocess.run(["grep", "-r", "-l", "hunter2", environment.path], capture_output=True, check=False)
    assert found.stdout == b""
    # how it was reached does not determine what it is
    assert (await machine.ensure(code)).path == environment.path


async def test_conda(machine: Machine, tmp_path: Path) -> None:
    packages.make_wheel(tmp_path / "index", "teampackage", "2.0")
    content = {"greet-1.2": {"bin/greet": b"#!/bin/sh\necho greetings\n"}, "greet-1.3": {}}
    interpreter = str(Path(sys.executable).resolve())
    packages.make_channel(tmp_path / "channel", {**content, "python-3.11": packages.python_package(interpreter)})
    with packages.served(tmp_path / "index", "127.0.0.1") as address:
        pip = f"[--extra-index-url http://{address}/simple, teampackage]"
        text = f"channels: ['file://{tmp_path}/channel']\ndependencies: [greet=1.2, python, pip: {pip}]\n"
        environment = await machine.ensure(machine.code("a", {"environment.yml": f"name: mine\n{text}"}))
    assert subprocess.check_output([environment.bin / "greet"], text=True) == "greetings\n"
    assert python(environment, "import teampackage, sys; print(teampackage.__version__, sys.prefix)") == (
        f"2.0 {environment.path}"
    )
    again = await machine.ensure(machine.code("b", {"environment.yml": f"name: other\n{text}"}))
    assert (again.built, again.path) == (False, environment.path)


async def test_conda_without_python(machine: Machine, tmp_path: Path) -> None:
    packages.make_channel(tmp_path / "channel", {"greet-1.2": {"bin/greet": b"#!/bin/sh\necho greetings\n"}})
    text = f"channels: ['file://{tmp_path}/channel']\ndependencies: [greet]\n"
    first = await machine.ensure(machine.code("a", {"environment.yml": text}))
    again = await machine.ensure(machine.code("b", {"environment.yml": text}))
    assert (again.built, again.path) == (False, first.path)


async def test_conda_that_does_not_resolve(machine: Machine, tmp_path: Path) -> None:
    packages.make_channel(tmp_path / "channel", {"greet-1.2": {}})
    text = f"channels: ['file://{tmp_path}/channel']\ndependencies: [greet=9]\n"
    with pytest.raises(BuildFailed, match=r"environment\.yml found.*\n.*greet") as caught:
        await machine.ensure(machine.code("a", {"environment.yml": text}))
    assert "Traceback" not in caught.value.message
    assert machine.kept() == []
