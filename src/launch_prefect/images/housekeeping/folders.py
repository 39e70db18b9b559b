"""What of ours is in folders of this machine: environments, snapshots, git mirrors, small records."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from launch_prefect.images.failures import REMEMBERED_SECONDS
from launch_prefect.images.housekeeping.choice import Candidate
from launch_prefect.images.housekeeping.usage import Kind, Usage
from launch_prefect.settings import LaunchSettings

STALE_SECONDS = 90 * 24 * 3600
"""An entry of the image index that led to nothing for so long is removed, however much space there is."""
_LEFT_OVER_SECONDS = 24 * 3600
_REMOVED = ".removed-"


class Folders:
    """The folders below one `LAUNCH_HOME`.

    Args:
        settings: Where they are.
        usage: When what is in them was last used.
    """

    def __init__(self, settings: LaunchSettings, usage: Usage) -> None:
        self._usage = usage
        self._home = settings.folder()
        self._has_store = settings.code_store is None  # one that is set may be shared with others

    def find(self) -> Iterator[Candidate]:
        """All that takes space."""
        in_use = self.environments_in_use()
        for folder in _folders(self._home / "envs"):
            ready = folder / ".ready"
            yield self._candidate("environment", folder, ready if ready.exists() else folder, folder.name in in_use)
        for folder in _folders(self._home / "git"):
            yield self._candidate("git", folder, folder, False)
        if self._has_store:
            for file in (self._home / "code").glob("*.tar.gz"):
                yield self._candidate("snapshot", file, file, False)

    def environments_in_use(self) -> set[str]:
        """Names of the environments' folders that attempts run in: each attempt's folder names its own."""
        names = set()
        for file in (self._home / "runs").glob("*/*/environment"):
            with suppress(OSError):
                names.add(Path(file.read_text().strip()).name)
        return names

    def remove(self, candidate: Candidate) -> bool:
        """Remove something, at one stroke for whoever looks at it.

        Returns:
            Whether it has been removed by this: not if it is gone already, or someone uses or writes it.

        Raises:
            OSError: It cannot be removed.
        """
        try:
            match candidate.kind:
                case "snapshot":
                    (self._home / "code" / f"{candidate.name.removeprefix('sha256:')}.tar.gz").unlink()
                case "environment":
                    folder = self._home / "envs" / candidate.name
                    with _held(folder.with_suffix(".lock")):
                        if candidate.name in self.environments_in_use():
                            return False
                        _remove_folder(folder)
                case _:
                    folder = self._home / "git" / candidate.name
                    with _held(self._home / "git" / f"{candidate.name}.lock"):
                        _remove_folder(folder)
        except (FileNotFoundError, Timeout):
            return False
        return True

    def sweep(self, now: float) -> None:
        """Remove small records that serve nobody, and what a removal or an upload that was killed has left.

        Args:
            now: Seconds since 1970.
        """
        images = self._home / "images"
        for file in (images / "index").glob("*.json"):
            if max(_modified(file, now), self._usage.last("index", file.stem) or 0) < now - STALE_SECONDS:
                _unlink(file)
                self._usage.forget("index", file.stem)
        for file in (images / "failures").glob("*.json"):
            if _modified(file, now) < now - REMEMBERED_SECONDS:
                _unlink(file)
        for pattern in ("images/*/*.part", "code/.*.part"):
            for file in self._home.glob(pattern):
                if _modified(file, now) < now - _LEFT_OVER_SECONDS:
                    _unlink(file)
        for pattern in ("envs", "git"):
            for folder in (self._home / pattern).glob(f"{_REMOVED}*"):
                shutil.rmtree(folder, ignore_errors=True)

    def _candidate(self, kind: Kind, path: Path, dated: Path, in_use: bool) -> Candidate:
        name = path.name if kind != "snapshot" else f"sha256:{path.name.removesuffix('.tar.gz')}"
        # Taking a snapshot again, and unpacking it, renews the time of its file.
        last = max(_modified(dated, time.time()), self._usage.last(kind, name) or 0)
        digest = f"sha256:{name.partition('.')[0]}"
        also = frozenset({str(path), digest} if kind == "environment" else {str(path)})
        return Candidate(kind, name, last, {str(path): _size(path)}, also=also, in_use=in_use, shown=name)


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    """Hold a lock that builders hold while they build. Its file stays: another may wait for it.

    Raises:
        Timeout: Someone else holds it.
    """
    with FileLock(lock, timeout=0):
        yield


def _folders(folder: Path) -> Iterable[Path]:
    if not folder.is_dir():
        return []
    return [each for each in folder.iterdir() if each.is_dir() and not each.is_symlink() and each.name[0] != "."]


def _remove_folder(folder: Path) -> None:
    gone = folder.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _unlink(file: Path) -> None:
    with suppress(OSError):
        file.unlink()


def _modified(path: Path, default: float) -> float:
    """When it was last changed; `default` if it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return default


def _size(path: Path) -> int:
    """Bytes on the disk; a file that has several names in there counts once."""
    if path.is_file():
        return path.stat().st_size
    sizes: dict[tuple[int, int], int] = {}
    for folder, _, files in os.walk(path):
        for name in files:
            with suppress(OSError):
                status = os.lstat(Path(folder, name))
                sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())
