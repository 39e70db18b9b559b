from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WorkTree:
    url: str
    commit: str
    branch: str | None
    subdir: str | None
    patch: bytes
    untracked: tuple[str, ...]
    unpushed: int
    dropped_credentials: bool = False


def work_tree(folder: Path) -> WorkTree | None:
    raise NotImplementedError
