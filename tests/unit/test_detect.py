"""Which environment a folder of code has: the first that fits, the Python version, and what the log is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.images.detect import detect
from launch_prefect.spec.build import BuildSpec

pytestmark = pytest.mark.unit

PROJECT = '[project]\nname = "x"\nversion = "1"\n'
ALL = {
    "docker/Own": "FROM a",
    "src/train.py": "",
    "src/Dockerfile.launch": "FROM b",
    "src/Dockerfile.wandb": "FROM c",
    "Dockerfile.launch": "FROM d",
    "Dockerfile.wandb": "FROM e",
    "uv.lock": "",
    "pyproject.toml": PROJECT + 'dependencies = ["six"]\n',
    "requirements.txt": "six",
    "environment.yml": "dependencies: [python=3.11]",
    "environment.yaml": "dependencies: [python=3.12]",
}
COMMAND = ["python", "src/train.py", "--data", "docker/Own"]


def folder_with(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("without", "reason"),
    [
        (0, "docker/Own is the job's own Dockerfile (build.dockerfile)"),
        (2, "src/Dockerfile.launch found"),
        (3, "src/Dockerfile.wandb found"),
        (4, "Dockerfile.launch found"),
        (5, "Dockerfile.wandb found"),
        (6, "uv.lock found"),
        (7, "pyproject.toml found"),
        (8, "requirements.txt found"),
        (9, "environment.yml found"),
        (10, "environment.yaml found"),
        (11, "no uv.lock, pyproject.toml, requirements.txt or environment.yml found"),
    ],
)
def test_order(tmp_path: Path, without: int, reason: str) -> None:
    # With the first ones gone, the next comes up.
    files = dict(list(ALL.items())[without:]) | {"src/train.py": ""}
    if without == 8:
        files["pyproject.toml"] = "[tool.ruff]\n"
    build = BuildSpec(dockerfile="docker/Own", context="docker") if without == 0 else BuildSpec()
    found = detect(folder_with(tmp_path, files), build=build, command=COMMAND)
    assert found.reason == reason
    assert found.kind == (
        "dockerfile" if without < 6 else ("uv", "pyproject", "requirements", "conda", "conda", "none")[without - 6]
    )
    if found.kind == "dockerfile":
        assert found.dockerfile is not None
        assert found.files == {found.dockerfile: ALL[found.dockerfile].encode()}
        assert found.context == ("docker" if without == 0 else ".")


def test_what_is_passed_over_is_told(tmp_path: Path) -> None:
    found = detect(folder_with(tmp_path, ALL), build=BuildSpec(python="3.11"), command=COMMAND)
    assert found.notes == (
        "src/Dockerfile.wandb is passed over: src/Dockerfile.launch comes first.",
        "Dockerfile.launch is passed over: src/Dockerfile.launch comes first.",
        "Dockerfile.wandb is passed over: src/Dockerfile.launch comes first.",
        "build: python is not used: src/Dockerfile.launch says it.",
    )


@pytest.mark.parametrize(
    "command",
    [
        None,
        [],
        ["python", "-m", "src.train"],
        ["python", "../code/src/train.py"],
        ["python", "/src/train.py"],
        ["sh", "-c", "echo " + "x" * 5000, "a\0b", ""],
        ["python", "top.py", "src/train.py"],
    ],
)
def test_without_an_entrypoint_in_the_code_the_top_counts(tmp_path: Path, command: list[str] | None) -> None:
    folder = folder_with(tmp_path / "code", ALL | {"top.py": ""})
    assert detect(folder, command=command).dockerfile == "Dockerfile.launch"


def test_links_that_lead_out_are_no_dockerfiles(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("FROM x")
    code = folder_with(tmp_path / "code", {"train.py": ""})
    (code / "Dockerfile.launch").symlink_to(tmp_path / "secret")
    assert detect(code).kind == "none"
    with pytest.raises(InvalidInput, match=r"build\.dockerfile: Dockerfile\.launch leads out"):
        detect(code, build=BuildSpec(dockerfile="Dockerfile.launch"))
    (code / "out").symlink_to(tmp_path)
    (code / "Own").write_text("FROM x")
    with pytest.raises(InvalidInput, match=r"build\.context: out leads out"):
        detect(code, build=BuildSpec(dockerfile="Own", context="out"))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (BuildSpec(dockerfile="Nowhere"), r"build\.dockerfile: the code has no file Nowhere"),
        (BuildSpec(dockerfile="docker"), r"build\.dockerfile: the code has no file docker"),
        (BuildSpec(dockerfile="docker/Own", context="x"), r"build\.context: the code has no folder x"),
    ],
)
def test_dockerfiles_that_are_not_there(tmp_path: Path, build: BuildSpec, says: str) -> None:
    with pytest.raises(NotFound, match=says):
        detect(folder_with(tmp_path, ALL), build=build)


def test_target_process_passes_over_what_makes_images(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, ALL)
    build = BuildSpec(base_image="team/cuda:1", system_packages=("ffmpeg",))
    found = detect(folder, build=build, dockerfiles=False)
    assert (found.kind, found.reason) == (
        "uv",
        "uv.lock found (Dockerfile.launch, Dockerfile.wandb is passed over: target process runs no images)",
    )
    assert [note.partition(" ")[0] for note in found.notes] == ["build.base_image", "build.system_packages"]
    with pytest.raises(InvalidInput, match=r"build\.dockerfile: target process runs no images") as caught:
        detect(folder, build=BuildSpec(dockerfile="docker/Own"), dockerfiles=False)
    assert "target docker" in caught.value.mend


@pytest.mark.parametrize(
    ("build", "version_file", "runtime", "requires", "python", "range_"),
    [
        ("3.13", "3.12", "python-3.11.4", ">=3.10", "3.13", None),
        (None, "3.12.1", "python-3.11.4", ">=3.10", "3.12.1", None),
        (None, "cpython-3.12", "python-3.11.4", ">=3.10", "3.12", None),
        (None, "my-env", "python-3.11.4\n", ">=3.10", "3.11.4", None),
        (None, None, "python-3.11.x", None, "3.11", None),
        (None, None, "python-3.11", None, "3.11", None),
        (None, None, "python3.11", None, "3.11", None),
        (None, None, "r-4.1-2022-01-01", ">=3.10,<4", "3.10", "<4,>=3.10"),
        (None, None, None, None, None, None),
    ],
)
def test_python_version(
    tmp_path: Path,
    build: str | None,
    version_file: str | None,
    runtime: str | None,
    requires: str | None,
    python: str | None,
    range_: str | None,
) -> None:
    files = {".python-version": version_file, "runtime.txt": runtime}
    folder = folder_with(tmp_path, {name: text for name, text in files.items() if text is not None})
    (folder / "pyproject.toml").write_text(PROJECT + (f'requires-python = "{requires}"\n' if requires else ""))
    found = detect(folder, build=BuildSpec(python=build))
    assert (found.python, found.requires_python) == (python, range_)


@pytest.mark.parametrize(
    ("file", "text", "kind"),
    [("requirements.txt", "six", "requirements"), ("environment.yml", "dependencies: [six]", "conda")],
)
def test_a_project_that_leaves_its_dependencies_to_another_file(
    tmp_path: Path, file: str, text: str, kind: str
) -> None:
    assert detect(folder_with(tmp_path, {"pyproject.toml": PROJECT, file: text})).kind == kind
