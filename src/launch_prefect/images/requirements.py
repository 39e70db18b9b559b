"""`requirements.txt` and what it includes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.images.credentials import refuse_credentials

MEND_INDEX = (
    "Take the line out and name a build secret instead: build.secrets PIP_EXTRA_INDEX_URL (or PIP_INDEX_URL, NETRC), "
    "a block that holds the whole address."
)

_INCLUDE = re.compile(r"^(?:-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(?P<file>\S+)")
_LOCAL = re.compile(r"^(?:(?:-e|--editable)(?:\s+|=))?(?:file:|/|\.\.?(?:/|$|\[))|^(?:-e|--editable)(?!.*://)")


def requirements_files(folder: Path) -> dict[str, bytes]:
    """`requirements.txt` and all files it includes, checked.

    Args:
        folder: The code.

    Returns:
        Path below the folder → content.

    Raises:
        InvalidInput: A line is a local path, leaves the folder, or has credentials.
        NotFound: An included file is not there.
    """
    return _with_includes(folder, {}, ["requirements.txt"])


def requirements_named(folder: Path, names: Sequence[str], *, by: str) -> dict[str, bytes]:
    """Requirements files, all that they include, and a `requirements.txt` that includes them.

    Args:
        folder: The code, which has no `requirements.txt` of its own.
        names: Paths from the folder.
        by: What names them, for messages.

    Returns:
        Path below the folder → content.

    Raises:
        InvalidInput: A path leaves the folder or has a space; or a line is a local path, or has credentials.
        NotFound: A file is not there.
    """
    paths: list[str] = []
    for name in names:
        if re.search(r"[\s\\\"'#]|://", name) or name.startswith("-"):
            raise InvalidInput(
                f"{by}: {name!r} cannot be used as the name of a requirements file.",
                mend="Name a file of the job's folder, without spaces and quotes.",
            )
        paths += _included(folder, by, folder, name)
    files = _with_includes(folder, {}, paths.copy())
    files["requirements.txt"] = "".join(f"-r {path}\n" for path in paths).encode()
    return dict(sorted(files.items()))


def included_by(folder: Path, name: str, lines: list[str]) -> dict[str, bytes]:
    """The files that lines of requirements include, checked as the lines are.

    Args:
        folder: The code.
        name: The file at the top of the folder that the lines are in, for messages.
        lines: Requirements as `requirements.txt` has them.

    Raises:
        InvalidInput: A line is a local path, leaves the folder, or has credentials.
        NotFound: An included file is not there.
    """
    return _with_includes(folder, {}, _checked(folder, name, lines))


def _with_includes(folder: Path, files: dict[str, bytes], waiting: list[str]) -> dict[str, bytes]:
    while waiting:
        name = waiting.pop()
        if name in files:
            continue
        files[name] = (folder / name).read_bytes()
        waiting += _checked(folder, name, files[name].decode("utf-8", errors="replace").splitlines())
    return dict(sorted(files.items()))


def _checked(folder: Path, name: str, lines: list[str]) -> list[str]:
    """Refuse what cannot be installed; the files that the others include."""
    found: list[str] = []
    for number, line in enumerate(map(str.strip, lines), start=1):
        refuse_credentials(line, where=f"{name}, line {number}", mend=MEND_INDEX)
        if included := _INCLUDE.match(line):
            found += _included(folder, f"{name}, line {number}", (folder / name).parent, included["file"])
        elif _LOCAL.match(line):
            raise InvalidInput(
                f"{name}, line {number}: {line!r} is a local path; dependencies are installed without the code.",
                mend="Remove the line (the code is there when the job runs), or publish it as a package.",
            )
    return found


def _included(folder: Path, where: str, start: Path, file: str) -> list[str]:
    if "://" in file:
        return []
    path = start / file
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidInput(f"{where}: {file} is outside the job's folder.", mend="Put it into the folder.")
    if not path.is_file():
        raise NotFound(f"{where}: there is no file {file}.", mend="Add it, or remove the line.")
    return [path.resolve().relative_to(folder.resolve()).as_posix()]
