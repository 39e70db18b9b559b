"""When what is kept on this machine was last used."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Literal

from launch_prefect.settings import LaunchSettings

Recorded = Literal["image", "environment", "snapshot"]
"""What has its use recorded here."""
Kind = Literal[Recorded, "git"]
"""What is kept; a git mirror's folder has the time of its last use itself."""


class Usage:
    """One empty file for each thing that has been used; its time is when. Processes share it without a lock.

    Args:
        settings: Where state is kept.

    Raises:
        OSError: The folder cannot be made.
    """

    def __init__(self, settings: LaunchSettings) -> None:
        self._folder = settings.folder("usage")

    def used(self, kind: Recorded, name: str) -> None:
        """Say that something is used now: call it before its use begins, so that it is not removed meanwhile.

        A disk that is full stops nobody from using what is there.

        Args:
            kind: What it is.
            name: An image's id (`sha256:…`), the name of an environment's folder, or a snapshot's digest.
        """
        file = self._file(kind, name)
        with suppress(OSError):
            file.parent.mkdir(exist_ok=True)
            file.touch()

    def last(self, kind: Recorded, name: str) -> float | None:
        """When it was last used, in seconds since 1970; None if that is not known."""
        try:
            return self._file(kind, name).stat().st_mtime
        except OSError:
            return None

    def forget(self, kind: Recorded, name: str) -> None:
        """Forget something that is gone."""
        with suppress(OSError):
            self._file(kind, name).unlink()

    def _file(self, kind: Recorded, name: str) -> Path:
        return self._folder / kind / hashlib.sha256(name.encode()).hexdigest()
