"""Temporary files of this process, secrets among them: private, and removed even where the process was killed."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout

from launch_prefect.settings import LaunchSettings

_YOUNG_SECONDS = 3600
_held: dict[tuple[int, Path], tuple[Path, FileLock]] = {}
_making = Lock()


def scratch(settings: LaunchSettings) -> Path:
    """The folder for temporary files of this process, which only its user may enter. What is in it nobody else needs.

    A lock tells that its process is alive: the kernel lets go of it when the process ends, however it does. Numbers of
    processes are used again, and the times of their starts move with the clock.

    Args:
        settings: Where state is kept.

    Raises:
        OSError: It cannot be made.
    """
    home = settings.folder("tmp")
    with _making:
        held = _held.get((os.getpid(), home))
        if held is None or not held[0].is_dir():
            folder = home / f"{os.getpid()}-{uuid.uuid4().hex[:12]}"
            lock = FileLock(_lock_of(folder))
            lock.acquire(timeout=0)
            folder.mkdir(mode=0o700)
            held = _held[os.getpid(), home] = (folder, lock)
        return held[0]


def sweep(settings: LaunchSettings) -> None:
    """Remove what processes have left behind that are no longer there: killed, they could not do so themselves.

    Args:
        settings: Where state is kept.
    """
    for path in settings.folder("tmp").iterdir():
        with suppress(OSError, Timeout):
            if path.is_dir():
                with FileLock(_lock_of(path), timeout=0):
                    shutil.rmtree(path, ignore_errors=True)
                    _lock_of(path).unlink(missing_ok=True)
            elif path.stat().st_mtime < time.time() - _YOUNG_SECONDS and not path.with_suffix("").is_dir():
                path.unlink(missing_ok=True)  # a lock whose folder is gone; a young one may be about to have its own


def leave(settings: LaunchSettings) -> None:
    """Remove this process's folder if nothing is in it any more.

    Args:
        settings: Where state is kept.
    """
    with _making, suppress(OSError, KeyError):
        folder, lock = _held[os.getpid(), settings.folder("tmp")]
        folder.rmdir()
        _lock_of(folder).unlink(missing_ok=True)
        lock.release()
        del _held[os.getpid(), settings.folder("tmp")]


def _lock_of(folder: Path) -> Path:
    return folder.with_suffix(".lock")
