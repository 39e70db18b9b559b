"""Dependency files: passwords in them are refused, and what environment.yml says is read as conda reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.images import conda
from launch_prefect.images.detect import Environment, detect
from launch_prefect.images.plan import environment_key
from launch_prefect.spec.build import BuildSpec

pytestmark = pytest.mark.unit

SECRET = "hunter2"
LEAKS = [
    f"https://me:{SECRET}@host.test/simple",
    f"https://{SECRET}@host.test/simple",
    f"git+https://{SECRET}@host.test/repo.git",
    f"git+ssh://me:{SECRET}@host.test/repo.git",
    f"https://me:{SECRET}%40@host.test/simple",
    f"https://me:${{TOKEN}}{SECRET}@host.test/",
]
HARMLESS = [
    "https://host.test/simple",
    "https://me:${TOKEN}@host.test/simple",
    "https://${TOKEN}@host.test/simple",
    "git+ssh://git@host.test/repo.git",
    "https://host.test/path@v1",
]
PROJECT = '[project]\nname = "x"\nversion = "1"\ndependencies = ["six"]\n'


def places(address: str) -> list[dict[str, str]]:
    """Every place where an address can be."""
    index = f'[[tool.uv.index]]\nname = "team"\nurl = "{address}"\n'
    return [
        {"requirements.txt": f"six\n--extra-index-url {address}\n"},
        {"requirements.txt": f"six\n-i {address}\n"},
        {"requirements.txt": f"six @ {address}\n"},
        {"requirements.txt": f"six  # {address}\n"},
        {"requirements.txt": "-r more.txt", "more.txt": f"--index-url={address}"},
        {"requirements.txt": "-c more.txt", "more.txt": f"six @ {address}"},
        {"pyproject.toml": PROJECT + index},
        {"pyproject.toml": PROJECT + f'[tool.uv]\nextra-index-url = ["{address}"]\n'},
        {"pyproject.toml": PROJECT.replace("six", f"six @ {address}")},
        {"pyproject.toml": PROJECT + f'[project.optional-dependencies]\na = ["six @ {address}"]\n'},
        {"pyproject.toml": PROJECT + f'[dependency-groups]\na = ["six @ {address}"]\n'},
        {"pyproject.toml": PROJECT, "uv.lock": f'source = {{ registry = "{address}" }}'},
        {
            "pyproject.toml": PROJECT + '[tool.uv.workspace]\nmembers = ["lib"]\n',
            "lib/pyproject.toml": PROJECT + index,
            "uv.lock": "",
        },
        {"environment.yml": f'channels: ["{address}"]'},
        {"environment.yml": f'dependencies: [python, pip: ["--extra-index-url {address}"]]'},
        {"environment.yml": "dependencies: [python, pip: [-r more.txt]]", "more.txt": f"six @ {address}"},
    ]


def folder_with(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("files", places(LEAKS[0]))
def test_a_password_is_refused_wherever_it_is_and_not_shown(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match=r"the address on host\.test has credentials") as caught:
        detect(folder_with(tmp_path, files))
    assert SECRET not in str(caught.value)
    assert "build.secrets" in caught.value.mend


@pytest.mark.parametrize("files", places(HARMLESS[0]))
def test_an_address_alone_is_not(tmp_path: Path, files: dict[str, str]) -> None:
    assert detect(folder_with(tmp_path, files)).kind != "none"


@pytest.mark.parametrize("address", [*LEAKS, f"https://host.test/t/{SECRET}/channel"])
def test_what_is_a_password(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidInput, match="credentials"):
        detect(folder_with(tmp_path, {"requirements.txt": address}))


@pytest.mark.parametrize("address", [*HARMLESS, "https://host.test/t/${TOKEN}/channel"])
def test_what_is_none(tmp_path: Path, address: str) -> None:
    assert detect(folder_with(tmp_path, {"requirements.txt": address})).kind == "requirements"


def test_requirements_with_a_path_lead_to_the_mend(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        detect(folder_with(tmp_path, places(LEAKS[0])[0]))
    assert "PIP_EXTRA_INDEX_URL" in caught.value.mend


def read(folder: Path, text: str, build: BuildSpec | None = None, **files: str) -> Environment:
    return detect(folder_with(folder, {"environment.yml": text} | files), build=build or BuildSpec())


def spec(environment: Environment) -> dict[str, list[str]]:
    return dict(json.loads(environment.files[conda.SPEC]))


@pytest.mark.parametrize(
    ("text", "channels", "packages"),
    [
        ("dependencies: [numpy]", ["conda-forge"], ["numpy"]),
        ("channels: [nvidia, conda-forge, nvidia, nodefaults]", ["nvidia", "conda-forge"], []),
        (
            "channels: [defaults]\ndependencies: [a::b=1.*, 'c >=2,<3']",
            ["https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r"],
            ["a::b=1.*", "c >=2,<3"],
        ),
    ],
)
def test_channels_and_packages(tmp_path: Path, text: str, channels: list[str], packages: list[str]) -> None:
    found = read(tmp_path, text)
    assert (found.kind, found.python) == ("conda", None)
    assert spec(found) == {"channels": channels, "packages": packages}
    assert conda.PIP not in found.files


@pytest.mark.parametrize(
    ("dependency", "build", "file", "python"),
    [
        ("python=3.11", None, None, "python=3.11"),
        ("python=3.11", None, "3.12", "python=3.11"),
        ("python=3.11", "3.13", "3.12", "python=3.13"),
        ("conda-forge::python >=3.10,<3.13", "3.13", None, "python=3.13"),
        ("python", None, "3.12", "python=3.12"),
        ("python", None, None, "python"),
        ("python-dateutil", "3.13", None, "python=3.13"),
    ],
)
def test_the_python_of_conda(tmp_path: Path, dependency: str, build: str | None, file: str | None, python: str) -> None:
    more = {".python-version": file} if file else {}
    found = read(tmp_path, f"dependencies: ['{dependency}', numpy]", BuildSpec(python=build), **more)
    others = ["numpy"] if dependency.partition("=")[0].strip(" >").endswith("python") else [dependency, "numpy"]
    assert sorted(spec(found)["packages"]) == sorted([python, *others])


def test_name_and_prefix_do_not_count(tmp_path: Path) -> None:
    text = "channels: [a]\ndependencies: [python=3.11, pip, pip: [six==1.17.0, -r req/more.txt]]\n"
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "req").mkdir(parents=True)
    (tmp_path / "a" / "req").mkdir(parents=True)
    for folder in ("a", "b"):
        (tmp_path / folder / "req" / "more.txt").write_text("idna\n")
    first = read(tmp_path / "a", f"# mine\nname: x\n{text}prefix: /home/me/x\n")
    second = read(tmp_path / "b", text)
    assert first == second
    assert first.files[conda.PIP] == b"six==1.17.0\n-r req/more.txt\n"
    assert first.files["req/more.txt"] == b"idna\n"


def test_notes(tmp_path: Path) -> None:
    found = read(tmp_path, "variables: {A: b}\ndependencies: [numpy]\n")
    assert found.notes == (
        "environment.yml names no channels: conda-forge is taken.",
        "environment.yml: variables is not used; set variables in the job's env.",
    )


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("[", InvalidInput, "not valid YAML"),
        ("just text", InvalidInput, "no list of dependencies"),
        ("dependencies: numpy", InvalidInput, "dependencies cannot be 'numpy'"),
        ("dependencies: [1]", InvalidInput, "dependencies cannot be 1"),
        ("dependencies: ['']", InvalidInput, "dependencies cannot be ''"),
        ('dependencies: ["a\\nb"]', InvalidInput, "dependencies cannot be"),
        ("dependencies: [npm: [x]]", InvalidInput, "dependencies cannot be {'npm'"),
        ("dependencies: [python, pip: six]", InvalidInput, r"dependencies\.pip cannot be 'six'"),
        ("dependencies: [pip: [six]]", InvalidInput, "no python to install them into"),
        ("dependencies: [python, pip: [-e .]]", InvalidInput, "environment.yml, line 1.*local path"),
        ("dependencies: [python, pip: [-r nowhere.txt]]", NotFound, r"no file nowhere\.txt"),
        ("dependencies: [python, pip: [-r ../x.txt]]", InvalidInput, "outside"),
        ("channels: {a: b}", InvalidInput, "channels cannot be"),
    ],
)
def test_what_conda_files_cannot_say(tmp_path: Path, text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        read(tmp_path, text)


DYNAMIC = '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'
SETUPTOOLS = DYNAMIC + "[tool.setuptools.dynamic]\ndependencies = {file = %s}\n"


@pytest.mark.parametrize("named", ['["deps/reqs.txt"]', '"./deps/reqs.txt"'])
def test_a_project_that_leaves_its_dependencies_to_requirements_files(tmp_path: Path, named: str) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "pyproject.toml").write_text(SETUPTOOLS % named)
    (tmp_path / "deps" / "reqs.txt").write_text("six\n-c pins.txt\n")
    (tmp_path / "deps" / "pins.txt").write_text("six==1.16.0\n")

    def key() -> str:
        return environment_key(detect(tmp_path), base="python 3.12", platform="linux")

    environment, first = detect(tmp_path), key()
    assert environment.kind == "requirements"
    written = named.strip("[]").strip('"')
    assert environment.reason == "pyproject.toml leaves its dependencies to " + written
    assert environment.files == {
        "deps/pins.txt": b"six==1.16.0\n",
        "deps/reqs.txt": b"six\n-c pins.txt\n",
        "requirements.txt": b"-r deps/reqs.txt\n",
    }
    (tmp_path / "train.py").write_text("print()")
    assert key() == first
    (tmp_path / "deps" / "pins.txt").write_text("six==1.17.0\n")
    assert key() != first


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (DYNAMIC, InvalidInput, r"its build backend .* under \[project\] dependencies, or add a requirements\.txt"),
        (DYNAMIC + "[tool.poetry.dependencies]\nsix = '*'\n", InvalidInput, "its build backend"),
        (DYNAMIC + "[tool.setuptools]\ndynamic = 1\n", InvalidInput, "its build backend"),
        (DYNAMIC + "[tool.setuptools.dynamic]\ndependencies = {attr = 'x.y'}\n", InvalidInput, "its build backend"),
        (SETUPTOOLS % "[]", InvalidInput, "its build backend"),
        (SETUPTOOLS % "[1]", InvalidInput, "its build backend"),
        (SETUPTOOLS % '["none.txt"]', NotFound, r"\[tool\.setuptools\.dynamic\]: there is no file none\.txt"),
        (SETUPTOOLS % '["../reqs.txt"]', InvalidInput, "outside the job's folder"),
        (SETUPTOOLS % '["/etc/passwd"]', InvalidInput, "outside the job's folder"),
        (SETUPTOOLS % '["a b.txt"]', InvalidInput, "'a b.txt' cannot be used"),
        (SETUPTOOLS % '["https://host.test/reqs.txt"]', InvalidInput, "cannot be used"),
        (SETUPTOOLS % '["-e."]', InvalidInput, "cannot be used"),
        (SETUPTOOLS % '["leaks.txt"]', InvalidInput, r"leaks\.txt, line 1"),
    ],
)
def test_dependencies_that_cannot_be_read_are_no_environment_without_any(
    tmp_path: Path, text: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "pyproject.toml").write_text(text)
    (tmp_path / "leaks.txt").write_text(f"--extra-index-url {LEAKS[0]}\n")
    with pytest.raises(error, match=says):
        detect(tmp_path)
