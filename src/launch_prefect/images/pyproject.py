"""`pyproject.toml` and `uv.lock`, as far as they decide an environment."""

from __future__ import annotations

import reprlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from launch_prefect.errors import InvalidInput
from launch_prefect.images.credentials import refuse_credentials, texts_of

Value = TypeVar("Value", dict[str, Any], list[str], str)
Project = Mapping[str, Any]

_MEND_INDEX = (
    "Leave user and password out and name build secrets instead: build.secrets UV_INDEX_<NAME>_USERNAME and "
    "UV_INDEX_<NAME>_PASSWORD for an index with a name, UV_INDEX for one that is not in the file, or NETRC."
)


def read_project(folder: Path) -> Project | None:
    """The content of `pyproject.toml`; None where there is none.

    Raises:
        InvalidInput: It is not valid, or has credentials in an address.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        return None
    project = _parsed(file, "pyproject.toml")
    _refuse_secrets(project, "pyproject.toml")
    return project


def requires_python(project: Project | None) -> str | None:
    """`requires-python`, in its normal form; None where the project says nothing.

    Raises:
        InvalidInput: It is no version specifier.
    """
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


def is_project(project: Project | None, *, has_others: bool) -> bool:
    """Whether it decides the environment.

    One that only holds settings of tools, or leaves its dependencies to another file, decides nothing.

    Args:
        project: Its content.
        has_others: Whether there is such a file.
    """
    table = _table(project or {}, "project")
    return table is not None and not (has_others and "dependencies" not in table)


def has_dependencies(project: Project) -> bool:
    """Whether it names dependencies itself; see `left_to` for one that leaves them to its build backend.

    Raises:
        InvalidInput: What it has there is no list of texts.
    """
    table = _table(project, "project") or {}
    return bool(_value(table, "project", "dependencies", list, '["numpy>=2"]'))


def left_to(project: Project) -> list[str]:
    """The requirements files that its dependencies are left to; empty where it names them itself, or has none.

    Raises:
        InvalidInput: They are left to a build backend in another way, which needs the code to be built.
    """
    table = _table(project, "project") or {}
    dynamic = _value(table, "project", "dynamic", list, '["dependencies"]') or []
    if "dependencies" not in dynamic:
        return []
    for key in ("tool", "setuptools", "dynamic", "dependencies"):
        inner = table.get(key) if key != "tool" else project.get(key)
        table = inner if isinstance(inner, dict) else {}
    named = table.get("file")
    files = [named] if isinstance(named, str) else named
    if not files or not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise InvalidInput(
            "pyproject.toml leaves its dependencies to its build backend (dynamic), which cannot be asked without "
            "the code.",
            mend="List them under [project] dependencies, or add a requirements.txt or a uv.lock.",
        )
    return files


def locked_files(folder: Path, project: Project) -> dict[str, bytes]:
    """The lock and every `pyproject.toml` of the workspace, all of which uv reads.

    Raises:
        InvalidInput: The workspace's members are not folders inside the code, or a file has credentials.
    """
    files = {"uv.lock", "pyproject.toml"}
    for member in _workspace_members(folder, project):
        file = member / "pyproject.toml"
        if file.is_file():
            files.add(name := file.relative_to(folder).as_posix())
            _refuse_secrets(_parsed(file, name), name)
    contents = {name: (folder / name).read_bytes() for name in sorted(files)}
    for number, line in enumerate(contents["uv.lock"].decode("utf-8", errors="replace").splitlines(), start=1):
        refuse_credentials(line, where=f"uv.lock, line {number}", mend=_MEND_INDEX)
    return contents


def _parsed(file: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{name} is not valid TOML: {error}.", mend="Mend the file.") from None


def _refuse_secrets(project: Project, name: str) -> None:
    tool = project.get("tool")
    parts = {
        "project": project.get("project"),
        "dependency-groups": project.get("dependency-groups"),
        "tool.uv": tool.get("uv") if isinstance(tool, dict) else None,
    }
    for where, part in parts.items():
        for text in texts_of(part):
            refuse_credentials(text, where=f"{name}, [{where}]", mend=_MEND_INDEX)


def _workspace_members(folder: Path, project: Project) -> list[Path]:
    table: Project = project
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


def _table(outer: Project, where: str) -> dict[str, Any] | None:
    """The table of a dotted name, given the one that it is in."""
    outer_name, _, key = where.rpartition(".")
    return _value(outer, outer_name, key, dict, f"a table, [{where}]")


def _value(table: Project, where: str, key: str, kind: type[Value], accepted: str) -> Value | None:
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
