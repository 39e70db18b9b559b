from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git.credentials import GitCredentials
from launch_prefect.spec import GitSource

Log = Callable[[str], None]


def _quiet(line: str) -> None:
    """Logs nothing."""


def resolve(
    source: GitSource,
    settings: LaunchSettings,
    credentials: GitCredentials | None = None,
    *,
    log: Log = _quiet,
    stop: threading.Event | None = None,
) -> GitSource:
    raise NotImplementedError


class GitCode:
    def __init__(
        self, source: GitSource, settings: LaunchSettings, credentials: GitCredentials | None = None
    ) -> None:
        self.key = ""

    def fetch(self, into: Path, *, log: Log, stop: threading.Event) -> str:
        raise NotImplementedError
