"""Take a folder of code as it is now: a digest of its content, and an archive in the code store.

Files and links are taken, hard links as a file each; a folder that holds neither is not, as in git. Names stay byte for
byte what they are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.sources import archive
from launch_prefect.sources.content import Entry, describe, digest_of
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.finding import Found, find
from launch_prefect.sources.links import leads_outside
from launch_prefect.sources.store import CodeStore

Progress = Callable[[int, int], None]
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder's content.

    Attributes:
        digest: `sha256:…` of paths, executable bits, contents and link targets.
        files: Number of files and links in it.
        size: Bytes of all files together.
        left_out: Paths left out because they may hold secrets or are no files (sockets, devices). What the ignore
            files name, caches and virtual environments are not listed.
        reasons: Why each of these was left out, in words such as `it may hold private keys`.
    """

    digest: str
    files: int
    size: int
    left_out: tuple[str, ...]
    reasons: Mapping[str, str] = field(default_factory=dict, hash=False)


class TooLarge(InvalidInput):
    """A folder is larger than the limit; nothing of it has been read.

    Attributes:
        size: Bytes of all that would be taken.
        limit: Bytes that were allowed.
        largest: The largest files and folders (whose paths end with `/`) and their bytes, largest first.
    """

    def __init__(self, folder: Path, size: int, limit: int, largest: tuple[tuple[str, int], ...]) -> None:
        self.size, self.limit, self.largest = size, limit, largest
        listed = ", ".join(f"{path} ({_readable(each)})" for path, each in largest)
        super().__init__(
            f"The folder {folder} holds {_readable(size)} of code, and {_readable(limit)} are allowed. "
            f"The largest in it: {listed}.",
            mend="Name in .launchignore what the job does not need; data is better read from where it is kept.",
        )


def take(
    folder: Path,
    store: CodeStore,
    *,
    progress: Progress | None = None,
    limit: int | None = None,
    dockerfile: str | None = None,
) -> Snapshot:
    """Take a snapshot of a folder and keep it in the store, unless the store has it.

    Args:
        folder: The folder of code.
        store: Where the archive is kept.
        progress: Called with bytes done and bytes in all; reading and packing count alike.
        limit: Bytes that its files may have together; None for no other limit than `archive.MAX_SIZE`.
        dockerfile: Path below the folder of the Dockerfile that its image is made by. It is taken whatever
            `.dockerignore` says, and where it has an ignore file of its own, that one holds, as it does for Docker.

    Returns:
        The snapshot.

    Raises:
        NotFound: There is no such folder.
        TooLarge: Its files are larger than the limit.
        InvalidInput: It is no folder, nothing in it is left to take, a link leaves it, a file in it cannot be
            read, has a name that is not UTF-8, or changes meanwhile.
        DiskFull: No space is left for the archive.
        Unreachable: The store does not answer.
    """
    root = _check_folder(folder)
    try:
        found = find(root, dockerfile)
        _check_found(folder, found, limit)
        counter = _Counter(2 * found.size, progress)
        entries = [describe(root, path, counter.add) for path in sorted(found.sizes)]
    except FileNotFoundError as error:
        raise _changed(os.path.relpath(error.filename or root, root)) from None
    except OSError as error:
        raise _unreadable(error) from None
    _check_links(entries)
    digest = digest_of(entries)
    if store.has(digest):
        store.renew(digest)
    else:
        _keep(root, entries, digest, store, counter)
    counter.finish()
    size = sum(entry.size for entry in entries)
    return Snapshot(digest, len(entries), size, tuple(sorted(found.left_out)), found.left_out)


def _check_folder(folder: Path) -> Path:
    root = folder.expanduser().resolve()
    if not root.exists():
        raise NotFound(f"There is no folder {folder}.", mend="Check the path.")
    if not root.is_dir():
        raise InvalidInput(f"{folder} is a file, not a folder.", mend="Name the folder that holds the job's code.")
    return root


def _check_found(folder: Path, found: Found, limit: int | None) -> None:
    if not found.sizes:
        raise InvalidInput(
            f"The folder {folder} is empty, or all of it is ignored.",
            mend="Name the folder that holds the job's code; see its .gitignore and .launchignore.",
        )
    for path in found.sizes:
        if trouble := _trouble(path):
            raise InvalidInput(
                f"The name {path[:200].encode(errors='backslashreplace').decode()} {trouble}.",
                mend="Rename it, or leave it out by a pattern in .launchignore.",
            )
    if len(found.sizes) > archive.MAX_FILES:
        raise InvalidInput(
            f"The folder {folder} holds {len(found.sizes):,} files, and {archive.MAX_FILES:,} are allowed.",
            mend="Name in .launchignore what the job does not need.",
        )
    allowed = archive.MAX_SIZE if limit is None else min(limit, archive.MAX_SIZE)
    if found.size > allowed:
        raise TooLarge(folder, found.size, allowed, found.largest(_SHOWN))


def _trouble(path: str) -> str | None:
    """Why a path could not be unpacked on every machine."""
    if not archive.is_text(path):
        return "is not UTF-8"
    if len(path.encode()) > archive.MAX_PATH:
        return f"has more than {archive.MAX_PATH} bytes"
    if path.count("/") >= archive.MAX_DEPTH:
        return f"is more than {archive.MAX_DEPTH} folders deep"
    return None


def _check_links(entries: list[Entry]) -> None:
    """A link has to mean the same wherever the snapshot is unpacked, which checks this, too."""
    links = {entry.path: entry.content for entry in entries if entry.kind == "link"}
    for path, target in links.items():
        if leads_outside(path, links) or not archive.is_text(target):
            raise InvalidInput(
                f"The link {path} leads to {os.fsencode(target).decode(errors='backslashreplace')}, outside the "
                "folder, or in a circle.",
                mend="Put what it leads to into the folder, make the link relative, or name it in .launchignore.",
            )


def _unreadable(error: OSError) -> InvalidInput:
    return InvalidInput(
        f"{error.filename or 'A file'} cannot be read: {error.strerror}.",
        mend="Make it readable, or name it in .launchignore.",
    )


def _changed(path: str) -> InvalidInput:
    return InvalidInput(
        f"{path} changed while the snapshot was taken.",
        mend="Submit again when nothing writes to the folder, or name the file in .launchignore.",
    )


class _Counter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, size: int) -> None:
        self._done += size
        if self._progress and size:
            self._progress(min(self._done, self._total), self._total)

    def finish(self) -> None:
        self.add(max(self._total - self._done, 0))


def _keep(root: Path, entries: list[Entry], digest: str, store: CodeStore, counter: _Counter) -> None:
    with (
        needing_space(tempfile.gettempdir()),
        tempfile.TemporaryDirectory(prefix="launch-snapshot-") as folder,
    ):
        packed = Path(folder) / "snapshot.tar.gz"
        try:
            archive.pack(root, entries, packed, counter.add)
        except archive.Changed as error:
            raise _changed(str(error)) from None
        except OSError as error:
            if error.filename and Path(os.fsdecode(error.filename)).is_relative_to(root):
                raise _unreadable(error) from None
            raise
        store.put(digest, packed)


def _readable(size: int) -> str:
    number, units = float(size), ["bytes", "KiB", "MiB", "GiB"]
    while number >= 1024 and len(units) > 1:
        number /= 1024
        units.pop(0)
    return f"{number:.0f} {units[0]}" if units[0] == "bytes" or number >= 100 else f"{number:.1f} {units[0]}"
