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
from launch_prefect.images.housekeeping.choice import GRACE_SECONDS, Candidate
from launch_prefect.images.housekeeping.usage import Kind, Usage
from launch_prefect.settings import LaunchSettings

STALE_SECONDS = 90 * 24 * 3600
"""An entry of the image index that nobody asked for so long is removed, however much space there is."""
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
            yield self._candidate("environment", folder.name, folder.name in in_use)
        for folder in _folders(self._home / "git"):
            yield self._candidate("git", folder.name, False)
        if self._has_store:
            for file in (self._home / "code").glob("*.tar.gz"):
                yield self._candidate("snapshot", f"sha256:{file.name.removesuffix('.tar.gz')}", False)

    def last_used(self, kind: Kind, name: str) -> float:
        """When something was last used, as of now.

        Args:
            kind: What it is; no image.
            name: What identifies it among its kind.

        Returns:
            Seconds since 1970; now where it is gone.
        """
        path = self._path(kind, name)
        ready = path / ".ready"  # what runs in an environment may write beside it
        dated = _modified(ready if kind == "environment" and ready.exists() else path, time.time())
        # Taking a snapshot again, unpacking it, and each use of a mirror renews its own time.
        return dated if kind == "git" else max(dated, self._usage.last(kind, name) or 0)

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
        path = self._path(candidate.kind, candidate.name)
        try:
            match candidate.kind:
                case "snapshot":
                    path.unlink()
                case "environment":
                    with _held(path.with_suffix(".lock")):
                        if candidate.name in self.environments_in_use():
                            return False
                        _remove_folder(path)
                case _:
                    with _held(path.with_name(f"{path.name}.lock")):
                        _remove_folder(path)
        except (FileNotFoundError, Timeout):
            return False
        return True

    def remove_superseded(self, now: float) -> None:
        """Remove environments that were built again since, but for those that an attempt runs in or has just found.

        Args:
            now: Seconds since 1970.
        """
        of_key: dict[str, list[tuple[int, str]]] = {}
        for folder in _folders(self._home / "envs"):
            key, _, number = folder.name.partition(".")
            if (folder / ".ready").is_file() and (number or "1").isdecimal():
                of_key.setdefault(key, []).append((int(number or 1), folder.name))
        in_use = self.environments_in_use()
        for built in of_key.values():
            for _, name in sorted(built)[:-1]:
                if name in in_use or self.last_used("environment", name) > now - GRACE_SECONDS:
                    continue
                with suppress(OSError):  # the next one may do it
                    if self.remove(Candidate("environment", name, 0, {})):
                        self._usage.forget("environment", name)

    def sweep(self, now: float) -> None:
        """Remove what serves nobody: small records, environments that were built again, what a kill has left.

        Args:
            now: Seconds since 1970.
        """
        self.remove_superseded(now)
        images = self._home / "images"
        for file in (images / "index").glob("*.json"):
            if _modified(file, now) < now - STALE_SECONDS:
                _unlink(file)
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

    def _path(self, kind: Kind, name: str) -> Path:
        match kind:
            case "snapshot":
                return self._home / "code" / f"{name.removeprefix('sha256:')}.tar.gz"
            case "environment":
                return self._home / "envs" / name
            case _:
                return self._home / "git" / name

    def _candidate(self, kind: Kind, name: str, in_use: bool) -> Candidate:
        path, last = self._path(kind, name), self.last_used(kind, name)
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
