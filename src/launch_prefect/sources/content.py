"""What identifies a folder's content: paths, executable bits, bytes and link targets; nothing else."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a folder.

    Attributes:
        path: Its path below the folder, with `/`.
        kind: A plain file, an executable one or a symbolic link.
        content: SHA-256 of its bytes in hexadecimal, or the link's target.
        size: Bytes; 0 for a link.
    """

    path: str
    kind: Literal["file", "program", "link"]
    content: str
    size: int


class HashingReader:
    """A file read through a hash.

    Args:
        file: The open file.
        on_read: Called with the number of bytes of each piece read.
    """

    def __init__(self, file: BinaryIO, on_read: Callable[[int], None] | None = None) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._on_read = on_read

    def read(self, size: int = _CHUNK) -> bytes:
        """Read and hash the next piece."""
        piece = self._file.read(size)
        self._hash.update(piece)
        if self._on_read:
            self._on_read(len(piece))
        return piece

    @property
    def hexdigest(self) -> str:
        """SHA-256 of what has been read so far."""
        return self._hash.hexdigest()


def describe(root: Path, path: str, on_read: Callable[[int], None] | None = None) -> Entry:
    """Read one file.

    Args:
        root: The folder.
        path: The file's path below it, with `/`.
        on_read: Called with the number of bytes of each piece read.

    Returns:
        What identifies it.

    Raises:
        OSError: It cannot be read.
    """
    full = root / path
    if stat.S_ISLNK(full.lstat().st_mode):
        return Entry(path, "link", os.readlink(full), 0)  # noqa: PTH115 - as written
    with open_file(full) as file:
        mode = os.fstat(file.fileno()).st_mode
        reader = HashingReader(file, on_read)
        size = 0
        while piece := reader.read():
            size += len(piece)
    return Entry(path, "program" if mode & stat.S_IXUSR else "file", reader.hexdigest, size)


def open_file(path: Path) -> BinaryIO:
    """Open a plain file and nothing else, whatever stands in its place by now: a pipe would never end.

    Raises:
        OSError: It cannot be opened.
        FileNotFoundError: It is gone, or no plain file any more.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileNotFoundError(errno.ENOENT, "It is no plain file any more", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileNotFoundError(errno.ENOENT, "It is no plain file any more", str(path))
    return os.fdopen(handle, "rb")


def digest_of(entries: Iterable[Entry]) -> str:
    """The digest of a folder's content, whatever the order its files are given in.

    Returns:
        `sha256:` and 64 hexadecimal digits.
    """
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry.path):
        # JSON marks where a field ends, so two different folders never hash the same text
        total.update(json.dumps([entry.path, entry.kind, entry.content]).encode() + b"\n")
    return f"sha256:{total.hexdigest()}"


def all_files(root: Path) -> Iterator[str]:
    """Paths of all files and links below a folder, with `/`."""
    for folder, folders, files in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*files, *links]:
            yield (Path(folder) / name).relative_to(root).as_posix()
