"""Read from a folder of code what its environment is made of."""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from launch_prefect.errors import InvalidInput, NotFound

Kind = Literal["uv", "pyproject", "requirements", "none"]
Value = TypeVar("Value", dict[str, Any], list[str], str)

_INCLUDE = re.compile(r"^(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(?P<file>\S+)")
_LOCAL = re.compile(r"^(?:(?:-e|--editable)(?:\s+|=))?(?:file:|/|\.\.?(?:/|$|\[))|^(?:-e|--editable)(?!.*://)")


@dataclass(frozen=True, slots=True)
class Environment:
    """What a job's dependencies come from.

    Attributes:
        kind: `uv` (a lock file), `pyproject`, `requirements` or `none`.
        reason: Why, for the log: `requirements.txt found`.
        files: The files that decide it: path below the folder → content.
        python: Python version the code asks for, such as `3.12`: from `.python-version`, else the lower bound of
            `requires-python`. None where it asks for none.
        requires_python: Versions that would do, such as `>=3.10`, where the code names no single one.
    """

    kind: Kind
    reason: str
    files: Mapping[str, bytes]
    python: str | None = None
    requires_python: str | None = None


def detect(folder: Path) -> Environment:
    """Find the first that fits of `uv.lock`, `pyproject.toml` and `requirements.txt`.

    Args:
        folder: The code.

    Returns:
        Its environment.

    Raises:
        InvalidInput: A dependency file is not valid, or names what is not in the folder or cannot be installed.
        NotFound: A requirements file includes one that is not there.
    """
    project = _read_project(folder / "pyproject.toml")
    exact, requires = _pinned_python(folder), _requires_python(project)
    python = exact or _lower_bound(requires)
    kind, reason, files = _dependencies(folder, project)
    return Environment(kind, reason, files, python, None if exact else requires)


def _dependencies(folder: Path, project: Mapping[str, Any] | None) -> tuple[Kind, str, dict[str, bytes]]:
    if project is not None and (folder / "uv.lock").is_file():
        return "uv", "uv.lock found", _locked_files(folder, project)
    table = _table(project or {}, "project")
    has_requirements = (folder / "requirements.txt").is_file()
    # One that only holds settings of tools, or leaves its dependencies to requirements.txt, decides nothing.
    if table is not None and not (has_requirements and "dependencies" not in table):
        dynamic = _value(table, "project", "dynamic", list, '["dependencies"]') or []
        if _value(table, "project", "dependencies", list, '["numpy>=2"]') or "dependencies" in dynamic:
            content = (folder / "pyproject.toml").read_bytes()
            return "pyproject", "pyproject.toml found", {"pyproject.toml": content}
        return "none", "pyproject.toml names no dependencies", {}
    if has_requirements:
        return "requirements", "requirements.txt found", _requirements(folder)
    return "none", "no uv.lock, pyproject.toml or requirements.txt found", {}


def _read_project(file: Path) -> Mapping[str, Any] | None:
    if not file.is_file():
        return None
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{file.name} is not valid TOML: {error}.", mend="Mend the file.") from None


def _locked_files(folder: Path, project: Mapping[str, Any]) -> dict[str, bytes]:
    """The lock and every `pyproject.toml` of the workspace, all of which uv reads."""
    files = {"uv.lock", "pyproject.toml"}
    for member in _workspace_members(folder, project):
        file = member / "pyproject.toml"
        if file.is_file():
            files.add(file.relative_to(folder).as_posix())
    return {name: (folder / name).read_bytes() for name in sorted(files)}


def _workspace_members(folder: Path, project: Mapping[str, Any]) -> list[Path]:
    table: Mapping[str, Any] = project
    where = ""
    for key in ("tool", "uv", "workspace"):
        where = f"{where}.{key}".removeprefix(".")
        table = _table(table, where) or {}
    accepted = '["libs/*"], folders inside the job\'s folder'
    members: list[Path] = []
    for pattern in _value(table, where, "members", list, accepted) or []:
        refused = _not_accepted(f"{where}.members", [pattern], accepted)
        parts = Path(pattern).parts
        if ".." in parts:
            raise refused
        try:
            members += folder.glob(pattern) if parts else ()  # `.` is the folder itself
        except (ValueError, NotImplementedError):  # an absolute path; `**` within a name
            raise refused from None
    return members


def _table(outer: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The table of a dotted name, given the one that it is in."""
    outer_name, _, key = where.rpartition(".")
    return _value(outer, outer_name, key, dict, f"a table, [{where}]")


def _value(table: Mapping[str, Any], where: str, key: str, kind: type[Value], accepted: str) -> Value | None:
    """What `pyproject.toml` has under a key, checked; None where it has nothing.

    Args:
        table: The table that the key is in.
        where: The table's dotted name, for messages.
        key: The key.
        kind: What it has to be; a list is one of texts.
        accepted: What would be accepted, for messages.

    Raises:
        InvalidInput: It is something else.
    """
    value = table.get(key)
    if value is None:
        return None
    fits = isinstance(value, kind) and (kind is not list or all(isinstance(item, str) for item in value))
    if not fits:
        raise _not_accepted(f"{where}.{key}".removeprefix("."), value, accepted)
    return cast(Value, value)


def _not_accepted(key: str, value: object, accepted: str) -> InvalidInput:
    return InvalidInput(
        f"pyproject.toml: {key} cannot be {reprlib.repr(value)}.", mend=f"What is accepted there: {accepted}."
    )


def _requirements(folder: Path) -> dict[str, bytes]:
    """`requirements.txt` and all files it includes."""
    files: dict[str, bytes] = {}
    waiting = ["requirements.txt"]
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        content = (folder / name).read_bytes()
        files[name] = content
        lines = content.decode("utf-8", errors="replace").splitlines()
        for number, line in enumerate(map(str.strip, lines), start=1):
            if included := _INCLUDE.match(line):
                waiting += _included(folder, name, number, included["file"])
            elif _LOCAL.match(line):
                raise InvalidInput(
                    f"{name}, line {number}: {line!r} is a local path; dependencies are installed without the code.",
                    mend="Remove the line (the code is there when the job runs), or publish it as a package.",
                )
    return dict(sorted(files.items()))


def _included(folder: Path, by: str, number: int, file: str) -> list[str]:
    if "://" in file:
        return []
    path = (folder / by).parent / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(f"{by}, line {number}: {file} is outside the job's folder.", mend="Put it into the folder.")
    if not path.is_file():
        raise NotFound(f"{by}, line {number}: there is no file {file}.", mend="Add it, or remove the line.")
    return [path.resolve().relative_to(folder.resolve()).as_posix()]


def _pinned_python(folder: Path) -> str | None:
    file = folder / ".python-version"
    lines = file.read_text(errors="replace").split() if file.is_file() else []
    # Other names mean environments on the author's machine.
    return next((line for line in lines if re.fullmatch(r"3\.\d+(\.\d+)?", line)), None)


def _requires_python(project: Mapping[str, Any] | None) -> str | None:
    table = _table(project or {}, "project") or {}
    text = _value(table, "project", "requires-python", str, '">=3.11", a text')
    if text is None:
        return None
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier:
        raise InvalidInput(
            f"pyproject.toml: requires-python = {text!r} is no version specifier.",
            mend='Write one such as ">=3.11".',
        ) from None


def _lower_bound(requires: str | None) -> str | None:
    """The lowest `3.x` that a specifier names, or None where it names none."""
    bounds = [
        Version(part.version.removesuffix(".*"))
        for part in SpecifierSet(requires or "")
        if part.operator in (">=", "~=", "==")
    ]
    return f"{max(bounds).major}.{max(bounds).minor}" if bounds and len(max(bounds).release) > 1 else None
