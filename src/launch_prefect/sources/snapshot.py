"""Take a folder of code as it is now: a digest of its content, and an archive in the code store."""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.sources.content import Entry, HashingReader, describe, digest_of
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.ignore import IgnoreRules, holds_private_key, is_never_code, is_secret
from launch_prefect.sources.store import CodeStore

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A folder's content.

    Attributes:
        digest: `sha256:…` of paths, executable bits, contents and link targets.
        files: Number of files and links in it.
        size: Bytes of all files together.
        left_out: Paths left out because they may hold secrets or are no files (sockets, devices). What the ignore
            files name, caches and virtual environments are not listed.
    """

    digest: str
    files: int
    size: int
    left_out: tuple[str, ...]


def take(folder: Path, store: CodeStore, *, progress: Progress | None = None) -> Snapshot:
    """Take a snapshot of a folder and keep it in the store, unless the store has it.

    Args:
        folder: The folder of code.
        store: Where the archive is kept.
        progress: Called with bytes done and bytes in all; reading and packing count alike.

    Returns:
        The snapshot.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It is no folder, nothing in it is left to take, a link leaves it, a file in it cannot be
            read or changes meanwhile.
        DiskFull: No space is left for the archive.
        Unreachable: The store does not answer.
    """
    root = _check_folder(folder)
    paths, left_out = _find(root)
    if not paths:
        raise InvalidInput(
            f"The folder {folder} is empty, or all of it is ignored.",
            mend="Name the folder that holds the job's code; see its .gitignore and .launchignore.",
        )
    try:
        counter = _Counter(2 * sum((root / path).lstat().st_size for path in paths), progress)
        entries = [describe(root, path, counter.add) for path in paths]
    except OSError as error:
        raise _unreadable(error) from None
    digest = digest_of(entries)
    if not store.has(digest):
        _keep(root, entries, digest, store, counter)
    counter.finish()
    return Snapshot(digest, len(entries), sum(entry.size for entry in entries), tuple(left_out))


def _check_folder(folder: Path) -> Path:
    root = folder.expanduser().resolve()
    if not root.exists():
        raise NotFound(f"There is no folder {folder}.", mend="Check the path.")
    if not root.is_dir():
        raise InvalidInput(f"{folder} is a file, not a folder.", mend="Name the folder that holds the job's code.")
    return root


def _unreadable(error: OSError) -> InvalidInput:
    return InvalidInput(
        f"{error.filename or 'A file'} cannot be read: {error.strerror}.",
        mend="Make it readable, or name it in .launchignore.",
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


def _find(root: Path) -> tuple[list[str], list[str]]:
    """Paths to take and paths to report as left out, both sorted."""
    taken: list[str] = []
    left_out: list[str] = []

    def walk(folder: Path, prefix: str, rules: IgnoreRules) -> None:
        for item in sorted(folder.iterdir()):
            path = prefix + item.name
            is_folder = item.is_dir() and not item.is_symlink()
            if is_never_code(item):
                continue
            if is_secret(item) and not rules.wants_secret(path + "/" * is_folder):
                left_out.append(path)
            elif is_folder:
                if rules.can_return or not rules.leave_out(path + "/"):
                    walk(item, path + "/", rules.within(item, path + "/"))
            elif rules.leave_out(path):
                continue
            elif holds_private_key(item) and not rules.wants_secret(path):
                left_out.append(path)
            elif item.is_symlink():
                _check_link(root, item, path)
                taken.append(path)
            elif item.is_file():
                taken.append(path)
            else:
                left_out.append(path)

    try:
        walk(root, "", IgnoreRules.of(root))
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(taken), sorted(left_out)


def _check_link(root: Path, link: Path, path: str) -> None:
    """A link has to mean the same wherever the snapshot is unpacked."""
    target = str(link.readlink())
    written = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120 - as written
    real = Path(os.path.realpath(link))
    if os.path.isabs(target) or written.split("/")[0] == ".." or not real.is_relative_to(root):  # noqa: PTH117
        raise InvalidInput(
            f"The link {path} leads to {target}, outside the folder.",
            mend="Put what it leads to into the folder, make the link relative, or name it in .launchignore.",
        )


def _keep(root: Path, entries: list[Entry], digest: str, store: CodeStore, counter: _Counter) -> None:
    with (
        needing_space(tempfile.gettempdir()),
        tempfile.TemporaryDirectory(prefix="launch-snapshot-") as folder,
    ):
        archive = Path(folder) / "snapshot.tar.gz"
        try:
            _pack(root, entries, archive, counter)
        except FileNotFoundError as error:
            raise _changed(str(error.filename)) from None
        store.put(digest, archive)


def _pack(root: Path, entries: list[Entry], archive: Path, counter: _Counter) -> None:
    """Write the same bytes for the same content: no times, no owners, one order."""
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode = 0o755 if entry.kind == "program" else 0o644
            if entry.kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, entry.content
                tar.addfile(member)
                continue
            member.size = entry.size
            with (root / entry.path).open("rb") as file:
                _add(tar, member, file, entry, counter)


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, file: BinaryIO, entry: Entry, counter: _Counter) -> None:
    reader = HashingReader(file, counter.add)
    try:
        tar.addfile(member, cast(IO[bytes], reader))
    except OSError as error:
        if error.errno is None:  # tarfile's own "unexpected end of data": the file has become shorter
            raise _changed(entry.path) from None
        raise
    if reader.hexdigest != entry.content:
        raise _changed(entry.path)


def _changed(path: str) -> InvalidInput:
    return InvalidInput(
        f"{path} changed while the snapshot was taken.",
        mend="Submit again when nothing writes to the folder, or name the file in .launchignore.",
    )
