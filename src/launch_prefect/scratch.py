"""Temporary files of this process, secrets among them: private, and removed even where the process was killed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import psutil

from launch_prefect.settings import LaunchSettings


def scratch(settings: LaunchSettings) -> Path:
    """The folder for temporary files of this process, which only its user may enter. What is in it nobody else needs.

    Args:
        settings: Where state is kept.

    Raises:
        OSError: It cannot be made.
    """
    folder = settings.folder("tmp") / _owner(psutil.Process())
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def sweep(settings: LaunchSettings) -> None:
    """Remove what processes have left behind that are no longer there: killed, they could not do so themselves.

    Args:
        settings: Where state is kept.
    """
    for folder in settings.folder("tmp").iterdir():
        if not _is_alive(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def leave(settings: LaunchSettings) -> None:
    """Remove this process's folder where it is empty."""
    with suppress(OSError):
        (settings.folder("tmp") / _owner(psutil.Process())).rmdir()


def _owner(process: psutil.Process) -> str:
    # With the time of its start: numbers of processes are used again.
    return f"{process.pid}-{process.create_time():.2f}"


def _is_alive(name: str) -> bool:
    number = name.partition("-")[0]
    if not number.isdecimal():
        return False
    try:
        return name == _owner(psutil.Process(int(number)))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # another user's, which shares this home
        return True
