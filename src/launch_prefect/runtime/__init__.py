"""Files that run beside or inside jobs. Each is one file of the standard library only."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """The folder that `launch_run` is imported from by process runs."""
    return Path(__file__).parent


def module() -> bytes:
    """The module `launch_run`, as images get it."""
    return (folder() / "launch_run.py").read_bytes()
