"""Paths that users write in job files."""

from __future__ import annotations

from pathlib import PurePosixPath


def check_inside(value: str) -> str:
    """A path below the code's folder.

    Raises:
        ValueError: It is absolute or leaves the folder.
    """
    path = PurePosixPath(value)
    if not value or "\x00" in value or path.is_absolute() or ".." in path.parts:
        raise ValueError("give a path below the code's folder")
    return path.as_posix()
