"""Environments are detected, keyed and written as Dockerfiles without any engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.images import plan
from launch_prefect.images.detect import Environment, detect
from launch_prefect.images.sharing import Build, SharedBuilds
from launch_prefect.spec.build import BuildSpec

pytestmark = pytest.mark.unit

PROJECT = '[project]\nname = "x"\nversion = "1"\n'
WITH_SIX = PROJECT + 'dependencies = ["six"]\n'


def folder_with(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "kind", "taken"),
    [
        ({}, "none", []),
        ({"requirements.txt": "six"}, "requirements", ["requirements.txt"]),
        ({"pyproject.toml": WITH_SIX, "requirements.txt": "six"}, "pyproject", ["pyproject.toml"]),
        (
            {"uv.lock": "", "pyproject.toml": WITH_SIX, "requirements.txt": ""},
            "uv",
            ["pyproject.toml", "uv.lock"],
        ),
        ({"uv.lock": ""}, "none", []),
        ({"pyproject.toml": PROJECT}, "none", []),
        ({"pyproject.toml": "[tool.ruff]\n"}, "none", []),
        (
            {"pyproject.toml": "[tool.ruff]\n", "requirements.txt": "six"},
            "requirements",
            ["requirements.txt"],
        ),
        ({"pyproject.toml": PROJECT, "requirements.txt": "six"}, "requirements", ["requirements.txt"]),
        (
            {
                "uv.lock": "",
                "pyproject.toml": PROJECT + '[tool.uv.workspace]\nmembers = [".", "", "libs/*"]\n',
                "libs/a/pyproject.toml": PROJECT,
                "libs/notes.txt": "",
            },
            "uv",
            ["libs/a/pyproject.toml", "pyproject.toml", "uv.lock"],
        ),
    ],
)
def test_first_that_fits(tmp_path: Path, files: dict[str, str], kind: str, taken: list[str]) -> None:
    found = detect(folder_with(tmp_path, files))
    assert (found.kind, sorted(found.files)) == (kind, taken)
    assert found.reason


def test_included_requirements_count(tmp_path: Path) -> None:
    files = {
        "requirements.txt": "# comment\n-r req/base.txt\n--constraint=limits.txt\n-e git+https://x.test/y.git\nsix",
        "req/base.txt": "-rmore.txt  # and these\n-c ../limits.txt\n-r https://x.test/r.txt",
        "req/more.txt": "-r ../requirements.txt\nidna",
        "limits.txt": "idna<9",
    }
    assert set(detect(folder_with(tmp_path, files)).files) == set(files)


@pytest.mark.parametrize(
    ("files", "error", "says"),
    [
        ({"requirements.txt": "-r nowhere.txt"}, NotFound, r"line 1: there is no file nowhere\.txt"),
        ({"requirements.txt": "-r ../x.txt"}, InvalidInput, "outside"),
        ({"requirements.txt": "six\n-e ."}, InvalidInput, "line 2"),
        ({"requirements.txt": "./lib"}, InvalidInput, "local path"),
        ({"requirements.txt": ".[extra]"}, InvalidInput, "local path"),
        ({"pyproject.toml": "[project"}, InvalidInput, "not valid TOML"),
        ({"pyproject.toml": PROJECT + 'requires-python = "three"'}, InvalidInput, "requires-python"),
        ({"pyproject.toml": 'project = "x"'}, InvalidInput, r"pyproject\.toml: project .*'x'.*a table, \[project\]"),
        ({"pyproject.toml": PROJECT + "requires-python = 3.11"}, InvalidInput, r'requires-python .*3\.11.*">=3\.11"'),
        ({"pyproject.toml": PROJECT + 'dependencies = "six"'}, InvalidInput, r"project\.dependencies"),
        ({"pyproject.toml": PROJECT + "dependencies = [1]"}, InvalidInput, r"project\.dependencies"),
        ({"pyproject.toml": PROJECT + "dynamic = 1"}, InvalidInput, r"project\.dynamic"),
        ({"uv.lock": "", "pyproject.toml": "tool = 1"}, InvalidInput, r"pyproject\.toml: tool "),
        ({"uv.lock": "", "pyproject.toml": "[tool]\nuv = 1"}, InvalidInput, r"tool\.uv .*\[tool\.uv\]"),
        *(
            (
                {"uv.lock": "", "pyproject.toml": PROJECT + f"[tool.uv.workspace]\nmembers = {members}"},
                InvalidInput,
                r"tool\.uv\.workspace\.members .*libs/\*",
            )
            for members in ('["/x"]', '["../*"]', '["a/../../*"]', '"libs/*"', "[1]")
        ),
    ],
)
def test_what_cannot_be_installed_is_refused(
    tmp_path: Path, files: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        detect(folder_with(tmp_path, files))


@pytest.mark.parametrize(
    ("version_file", "requires", "python", "range_"),
    [
        (None, None, None, None),
        ("3.11.7\n", ">=3.10", "3.11.7", None),
        ("# mine\n3.13\n", None, "3.13", None),
        ("my-virtualenv", ">=3.10,<3.13", "3.10", "<3.13,>=3.10"),
        (None, "~=3.11.2", "3.11", "~=3.11.2"),
        (None, "==3.12.*", "3.12", "==3.12.*"),
        (None, "<3.13", None, "<3.13"),
        (None, ">=3", None, ">=3"),
    ],
)
def test_python_version(
    tmp_path: Path, version_file: str | None, requires: str | None, python: str | None, range_: str | None
) -> None:
    files = {"pyproject.toml": PROJECT + (f'requires-python = "{requires}"\n' if requires else "")}
    found = detect(folder_with(tmp_path, files | ({".python-version": version_file} if version_file else {})))
    assert (found.python, found.requires_python) == (python, range_)


def test_the_environment_key_follows_what_determines_it() -> None:
    environment = Environment("requirements", "requirements.txt found", {"requirements.txt": b"six"})

    def key(
        environment: Environment = environment, base: str = "b", platform: str = "linux/amd64", **build: Any
    ) -> str:
        return plan.environment_key(environment, base=base, platform=platform, build=BuildSpec(**build))

    others = [
        key(base="c"),
        key(platform="linux/arm64"),
        key(system_packages=("ffmpeg",)),
        key(system_packages=("ffmpeg", "zip")),
        key(user="root"),
        key(Environment("requirements", "", {"requirements.txt": b"idna"})),
        key(Environment("requirements", "", {"requirements.txt": b"six", "more.txt": b""})),
        key(Environment("requirements", "", environment.files, python="3.12")),
        key(Environment("requirements", "", environment.files, python="3.12", requires_python=">=3.12")),
        key(Environment("pyproject", "", environment.files)),
    ]
    assert len({key(), *others}) == 11
    assert key() == key(Environment("requirements", "worded otherwise", {"requirements.txt": b"six"}, notes=("x",)))
    assert key() == key(secrets={"TOKEN": "secret/token"})
    assert key(system_packages=("a", "b")) == key(system_packages=("b", "a", "b"))


def test_the_key_of_a_dockerfile_follows_the_code() -> None:
    def key(code: str | None = "c", dockerfile: str = "Own", context: str = ".", platform: str = "linux/amd64") -> str:
        own = Environment("dockerfile", "", {dockerfile: b"FROM x"}, dockerfile=dockerfile, context=context)
        return plan.environment_key(own, base="", platform=platform, code=code)

    assert len({key(), key("d"), key(dockerfile="Other"), key(context="a"), key(platform="linux/arm64")}) == 5
    with pytest.raises(ValueError, match="digest"):
        key(None)


def test_the_image_key_follows_what_determines_it() -> None:
    root = plan.image_key("e", "c", "r", build=BuildSpec(user="root"))
    parts = [("e", "c", "r"), ("f", "c", "r"), ("e", "d", "r"), ("e", "c", "s")]
    assert len({root, *(plan.image_key(*part) for part in parts)}) == 5
    assert root != plan.image_key("e", "c", "r")


def test_the_format_enters_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys() -> set[str]:
        own = Environment("dockerfile", "", {"Own": b""}, dockerfile="Own")
        return {
            plan.environment_key(Environment("none", "", {}), base="b", platform="p"),
            plan.environment_key(own, base="b", platform="p", code="c"),
            plan.image_key("e", "c", "r"),
        }

    before = keys()
    monkeypatch.setattr(plan, "FORMAT", plan.FORMAT + 1)
    assert not before & keys()


def test_code_alone_does_not_change_the_environment(tmp_path: Path) -> None:
    first = folder_with(tmp_path / "a", {"requirements.txt": "six", "train.py": "x"})
    second = folder_with(tmp_path / "b", {"requirements.txt": "six", "train.py": "y", "more.py": ""})
    assert detect(first) == detect(second)


def test_base_reference() -> None:
    assert plan.base_reference("python:{python}-slim", "3.11") == "python:3.11-slim"
    assert plan.base_reference("python:{python}-slim", None) == f"python:{plan.DEFAULT_PYTHON}-slim"
    assert plan.base_reference("team/base:1", "3.11") == "team/base:1"


async def test_shared_work_is_done_once_and_outlives_a_waiter() -> None:
    shared: SharedBuilds[str] = SharedBuilds()
    go, calls, lines, begun = asyncio.Event(), [], [], []

    async def work(build: Build) -> str:
        calls.append(1)
        build.begin()
        await go.wait()
        build.log("done")
        return "image"

    async def on_build() -> None:
        begun.append(1)

    waiters = [asyncio.create_task(shared.run("k", work, log=lines.append, on_build=on_build)) for _ in range(5)]
    while len(begun) < 5:
        await asyncio.sleep(0)
    waiters[0].cancel()
    await asyncio.wait({waiters[0]})
    go.set()
    assert await asyncio.gather(*waiters[1:]) == ["image"] * 4
    assert (len(calls), lines) == (1, ["done"] * 4)


async def test_shared_work_ends_with_its_last_waiter_and_errors_reach_all() -> None:
    shared: SharedBuilds[str] = SharedBuilds()
    ended = asyncio.Event()

    async def never(build: Build) -> str:
        try:
            build.begin()
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async def fails(build: Build) -> str:
        raise InvalidInput("no")

    seen = asyncio.Event()

    async def on_build() -> None:
        seen.set()

    waiter = asyncio.create_task(shared.run("k", never, log=print, on_build=on_build))
    await seen.wait()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert ended.is_set()
    results = await asyncio.gather(
        *(shared.run("k", fails, log=print, on_build=on_build) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [InvalidInput] * 3
