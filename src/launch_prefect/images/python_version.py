"""The Python version that a folder of code asks for."""

from __future__ import annotations

import re
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from launch_prefect.errors import InvalidInput

_MINORS = range(20)
_PATCHES = range(40)


def pinned(folder: Path) -> str | None:
    """The version in `.python-version`, else in `runtime.txt`; None where neither names one.

    Args:
        folder: The code.
    """
    # Other names in .python-version mean environments on the author's machine.
    version = _first_word(folder / ".python-version", r"(?:cpython-)?(3\.\d+(?:\.\d+)?)")
    return version or _first_word(folder / "runtime.txt", r"python-?(3\.\d+(?:\.\d+)?)(?:\.x)?")


def lower_bound(requires: str | None) -> str | None:
    """The lowest `3.x` that a specifier names, or None where it names none."""
    bounds = [
        Version(part.version.removesuffix(".*"))
        for part in SpecifierSet(requires or "")
        if part.operator in (">=", "~=", "==")
    ]
    return f"{max(bounds).major}.{max(bounds).minor}" if bounds and len(max(bounds).release) > 1 else None


def fitting(python: str | None, requires: str | None) -> list[str]:
    """Shell patterns of the versions that would do.

    Args:
        python: Version that is asked for, or None.
        requires: Versions that would do, such as `>=3.10`, where no single one is asked for.

    Returns:
        Such as `["3.11.*"]`; with a lower bound alone all that follow, too.

    Raises:
        InvalidInput: What is asked for is no version of Python 3.
    """
    if requires is not None:
        wanted = SpecifierSet(requires)
        fit = [minor for minor in _MINORS if any(wanted.contains(f"3.{minor}.{patch}") for patch in _PATCHES)]
        return ["3.*"] if fit == list(_MINORS) else _patterns(fit)
    if python is None:
        return ["3.*"]
    if not re.fullmatch(r"3\.\d+(\.\d+)?", python):
        raise InvalidInput(f"{python!r} is no version of Python 3.", mend="Write it as 3.12 or 3.12.4.")
    return [python if python.count(".") == 2 else f"{python}.*"]


def _patterns(minors: list[int]) -> list[str]:
    """`3.9.*` and `3.1[0-2].*` for 9 to 12: one pattern for each ten."""
    found = []
    for ten, prefix in ((0, ""), (10, "1")):
        digits = "".join(str(minor - ten) for minor in minors if ten <= minor < ten + 10)
        if len(digits) > 2 and digits in "0123456789":
            digits = f"{digits[0]}-{digits[-1]}"
        if digits:
            found.append(f"3.{prefix}[{digits}].*" if len(digits) > 1 else f"3.{prefix}{digits}.*")
    return found


def _first_word(file: Path, pattern: str) -> str | None:
    words = file.read_text(errors="replace").split() if file.is_file() else []
    return next((match[1] for word in words if (match := re.fullmatch(pattern, word))), None)
