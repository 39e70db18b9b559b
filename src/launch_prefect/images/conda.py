"""`environment.yml` of conda: what is installed, in a form that needs no conda to read."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from launch_prefect.errors import InvalidInput
from launch_prefect.images.credentials import refuse_credentials
from launch_prefect.images.requirements import included_by

NAMES = ("environment.yml", "environment.yaml")
SPEC, PIP, SCRIPT = "launch-conda.json", "launch-conda-pip.txt", "launch-conda.py"
"""Files of the environment: channels and packages; pip's lines, where there are any; the program that installs."""

_DEFAULT_CHANNEL = "conda-forge"
# What conda itself means by `defaults`; the installer has no such name.
_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_PYTHON = re.compile(r"(?:[^\s]+::)?python(?![A-Za-z0-9_.-])(?P<versions>.*)")
_USED = {"channels", "dependencies"}
_LOCAL_NAMES = {"name", "prefix"}  # of the environment on the author's machine
_MEND_CHANNEL = "Leave it out and name a build secret instead: build.secrets NETRC, a block that holds a .netrc file."


@dataclass(frozen=True, slots=True)
class CondaEnvironment:
    """What an `environment.yml` says.

    Attributes:
        name: The file.
        files: What installs it; see `SPEC`.
        notes: What the user should know, lines for the log.
    """

    name: str
    files: dict[str, bytes]
    notes: tuple[str, ...]


def conda_file(folder: Path) -> str | None:
    """The name of the file that the code has, or None."""
    return next((name for name in NAMES if (folder / name).is_file()), None)


def conda_environment(folder: Path, *, python: str | None, pinned: str | None) -> CondaEnvironment | None:
    """Read `environment.yml` or `environment.yaml`; None where the code has neither.

    Args:
        folder: The code.
        python: Python version over what the file says, or None.
        pinned: Python version where the file names none, or None.

    Raises:
        InvalidInput: The file is not valid, or has what cannot be installed.
        NotFound: A requirements file that it includes is not there.
    """
    name = conda_file(folder)
    if name is None:
        return None
    content = _read(folder / name)
    packages, pip = _dependencies(name, content)
    packages = _with_python(packages, python, pinned)
    if pip and not any(map(_PYTHON.fullmatch, packages)):
        raise InvalidInput(
            f"{name}: it has packages of pip, but no python to install them into.",
            mend="Add python to its dependencies, such as python=3.12.",
        )
    channels, notes = _channels(name, content)
    unused = sorted(map(str, content.keys() - _USED - _LOCAL_NAMES))
    if unused:
        notes.append(f"{name}: {', '.join(unused)} is not used; set variables in the job's env.")
    spec = json.dumps({"channels": channels, "packages": packages}, indent=2) + "\n"
    files = {SPEC: spec.encode(), SCRIPT: _script()}
    if pip:
        files[PIP] = ("\n".join(pip) + "\n").encode()
        files |= included_by(folder, name, pip)
    return CondaEnvironment(name, dict(sorted(files.items())), tuple(notes))


def _read(file: Path) -> dict[Any, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise InvalidInput(f"{file.name} is not valid YAML: {what}.", mend="Mend the file.") from None
    if not isinstance(content, dict):
        raise InvalidInput(
            f"{file.name} has no list of dependencies.", mend="Write it as `conda env export --from-history` does."
        )
    return content


def _dependencies(name: str, content: dict[Any, Any]) -> tuple[list[str], list[str]]:
    """Packages of conda, and pip's lines."""
    packages: list[str] = []
    pip: list[str] = []
    for item in _list(name, "dependencies", content.get("dependencies")):
        if isinstance(item, dict) and set(item) == {"pip"}:
            pip += [_line(name, "dependencies.pip", line) for line in _list(name, "dependencies.pip", item["pip"])]
        else:
            packages.append(_line(name, "dependencies", item))
    return packages, pip


def _with_python(packages: list[str], python: str | None, pinned: str | None) -> list[str]:
    found = [package for package in packages if _PYTHON.fullmatch(package)]
    if python is None and (pinned is None or any(re.search(r"\d", package) for package in found)):
        return packages
    return [*(package for package in packages if package not in found), f"python={python or pinned}"]


def _channels(name: str, content: dict[Any, Any]) -> tuple[list[str], list[str]]:
    channels: list[str] = []
    for item in _list(name, "channels", content.get("channels")):
        channel = _line(name, "channels", item)
        channels += _DEFAULTS if channel == "defaults" else () if channel == "nodefaults" else (channel,)
    if channels:
        return list(dict.fromkeys(channels)), []
    return [_DEFAULT_CHANNEL], [f"{name} names no channels: {_DEFAULT_CHANNEL} is taken."]


def _list(name: str, key: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _not_accepted(name, key, value)
    return value


def _line(name: str, key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise _not_accepted(name, key, value)
    refuse_credentials(value, where=f"{name}, {key}", mend=_MEND_CHANNEL)
    return value.strip()


def _not_accepted(name: str, key: str, value: object) -> InvalidInput:
    accepted = {
        "channels": "a list of names or addresses, such as conda-forge",
        "dependencies": "a list of packages, such as numpy=2.1, and of one pip: list",
        "dependencies.pip": "a list of lines as requirements.txt has them",
    }[key]
    return InvalidInput(f"{name}: {key} cannot be {reprlib.repr(value)}.", mend=f"What is accepted there: {accepted}.")


def _script() -> bytes:
    return (resources.files("launch_prefect.images") / "conda_install.py").read_bytes()
