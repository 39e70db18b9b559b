"""Archives of code: written the same for the same content, and read without trusting anything in them."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, BinaryIO, cast

from launch_prefect.sources.content import Entry, HashingReader, open_file
from launch_prefect.sources.links import leads_outside

MAX_SIZE = 100 * 1024**3
"""Bytes that an archive may unpack to: more than any code, and no more than what images and code may take on a machine.

There is no limit to how well it is packed: a file of zeros, which is no attack, takes a thousandth of its size.
"""
MAX_FILES = 1_000_000
"""Files and links that an archive may hold: ten times as many as the largest environments have."""
MAX_PATH = 4096 - 512
"""Bytes of a path: what Linux takes, less some for the folder that it is unpacked into."""
MAX_DEPTH = 200
"""Folders one in another: what removes a tree, such as `shutil.rmtree`, may go down only some hundred levels."""
_MAX_NAME = 255
_MAX_HEADERS = 64 * 1024
"""Bytes of all that stands before a file in an archive; the longest path and link target together have 8 KiB."""
_BLOCK = 512
_CHUNK = 256 * 1024
_LEVEL = 3
"""Of 9 for gzip. Measured on code: a sixth larger than level 6, which is the usual one, in half the time."""


class Damaged(Exception):
    """An archive is broken, or holds what no snapshot does; the text says what, after "is damaged:"."""


class Changed(Exception):
    """A file changed while it was packed; the text is its path."""


def pack(root: Path, entries: Iterable[Entry], archive: Path, on_read: Callable[[int], None]) -> None:
    """Write an archive: the same bytes for the same content, so no times, no owners, one order.

    Args:
        root: The folder.
        entries: Its files, in order.
        archive: The file to write, a `.tar.gz`.
        on_read: Called with the number of bytes of each piece read.

    Raises:
        Changed: A file is no longer what its entry says.
        OSError: One cannot be read, or the archive cannot be written.
    """
    with (
        archive.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0, compresslevel=_LEVEL) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as tar,
    ):
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.mode = 0o755 if entry.kind == "program" else 0o644
            if entry.kind == "link":
                member.type, member.linkname = tarfile.SYMTYPE, entry.content
                tar.addfile(member)
                continue
            member.size = entry.size
            try:
                with open_file(root / entry.path) as file:
                    _add(tar, member, file, entry, on_read)
            except FileNotFoundError:
                raise Changed(entry.path) from None


def _add(
    tar: tarfile.TarFile, member: tarfile.TarInfo, file: BinaryIO, entry: Entry, on_read: Callable[[int], None]
) -> None:
    reader = HashingReader(file, on_read)
    try:
        tar.addfile(member, cast(IO[bytes], reader))
    except OSError as error:
        if error.errno is None:  # tarfile's own "unexpected end of data": the file has become shorter
            raise Changed(entry.path) from None
        raise
    if reader.hexdigest != entry.content:
        raise Changed(entry.path)


def extract(archive: BinaryIO, into: Path, *, max_size: int = MAX_SIZE) -> list[Entry]:
    """Unpack an archive into an empty folder. Only plain files and links within it are made, each once.

    Owners, times and all bits but the executable one are not taken over. On an error, what was unpacked so far is
    left for the caller to remove.

    Args:
        archive: The archive, a `.tar.gz`.
        into: The folder, which nobody else may write to.
        max_size: Bytes that the files may have together.

    Returns:
        What has been unpacked.

    Raises:
        Damaged: It is broken, or holds what no snapshot does.
        OSError: It cannot be read, or the folder not be written.
    """
    tree = _Tree(into, max_size)
    try:
        with (
            _Guarded(archive) as unpacked,
            tarfile.open(fileobj=unpacked, mode="r:", encoding="utf-8") as tar,
        ):
            while member := tar.next():
                tar.members.clear()  # type: ignore[attr-defined] # it would remember each of a million
                tree.check(member, tar)
                unpacked.allow(member.size)
                tree.add(member, tar)
                unpacked.allow(_MAX_HEADERS)
    except Damaged:
        raise
    except OSError as error:
        if error.errno is not None and not isinstance(error, gzip.BadGzipFile):
            raise
        raise Damaged(str(error)) from None
    except Exception as error:  # whatever a crafted archive makes the parsers stumble over
        raise Damaged(f"{error}" or type(error).__name__) from None
    return tree.finish()


class _Guarded(gzip.GzipFile):
    """Reads forward only, and no more than expected: no header makes tarfile read for ever or fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._allowed = _MAX_HEADERS

    def allow(self, size: int) -> None:
        """What comes next may have this many bytes, and the padding to a whole block."""
        self._allowed = size + _BLOCK

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self._allowed:
            raise Damaged("a header has no sensible length")
        self._allowed -= size
        return super().read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if (offset, whence) == (0, os.SEEK_CUR):  # which is how `tell` asks
            return super().seek(offset, whence)
        # tarfile skips padding, and goes back by one byte to see whether data has ended too soon.
        if whence != os.SEEK_SET or not -1 <= offset - self.tell() <= _BLOCK:
            raise Damaged("a header leads to another place")
        return super().seek(offset, whence)


class _Tree:
    """What has been unpacked so far."""

    def __init__(self, root: Path, max_size: int) -> None:
        self._root, self._max_size = root, max_size
        self._entries: dict[str, Entry] = {}
        self._links: dict[str, str] = {}
        self._folders: set[str] = {""}
        self._size = 0

    def add(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        path = member.name
        self._make_folder(path.rpartition("/")[0])
        if path in self._entries or path in self._folders:
            raise Damaged(f"it holds {path!r} twice")
        if member.issym():
            (self._root / path).symlink_to(member.linkname)
            self._links[path] = member.linkname
            self._entries[path] = Entry(path, "link", member.linkname, 0)
            return
        content = self._write(path, member, tar)
        self._entries[path] = Entry(path, "program" if member.mode & 0o100 else "file", content, member.size)

    def check(self, member: tarfile.TarInfo, tar: tarfile.TarFile) -> None:
        if tar.pax_headers:
            raise Damaged("it has headers for all of its files")
        path = member.name
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise Damaged(f"{path!r} would be written elsewhere")
        if not is_text(path) or any(len(part.encode()) > _MAX_NAME for part in parts):
            raise Damaged(f"{path[:100]!r} is no name of a file")
        if len(path.encode()) > MAX_PATH or len(parts) > MAX_DEPTH:
            raise Damaged(f"the path {path[:100]!r}… is too long")
        if member.issym():
            target = member.linkname
            if not target or not is_text(target) or len(target.encode()) >= MAX_PATH or member.size:
                raise Damaged(f"the link {path!r} leads nowhere")
        elif not member.isreg() or member.issparse() or member.size < 0:
            raise Damaged(f"{path!r} is neither a file nor a link")
        self._size += member.size
        if self._size > self._max_size:
            raise Damaged(f"it holds more than {self._max_size:,} bytes")
        if len(self._entries) >= MAX_FILES:
            raise Damaged(f"it holds more than {MAX_FILES:,} files")

    def _make_folder(self, path: str) -> None:
        parts = path.split("/") if path else []
        for count in range(1, len(parts) + 1):
            folder = "/".join(parts[:count])
            if folder in self._folders:
                continue
            if folder in self._entries:  # a link, through which something would be written, or a file
                raise Damaged(f"{folder!r} is a folder and something else")
            (self._root / folder).mkdir()
            (self._root / folder).chmod(0o755)
            self._folders.add(folder)

    def _write(self, path: str, member: tarfile.TarInfo, tar: tarfile.TarFile) -> str:
        """Write a file, and return the hash of its content."""
        source = tar.extractfile(member)
        if source is None:  # pragma: no cover - a plain file has content
            raise Damaged(f"{path!r} has no content")
        total, missing = hashlib.sha256(), member.size
        with (self._root / path).open("xb") as file:
            while missing:
                piece = source.read(min(missing, _CHUNK))
                if not piece:
                    raise Damaged(f"{path!r} ends too soon")
                file.write(piece)
                total.update(piece)
                missing -= len(piece)
            os.fchmod(file.fileno(), 0o755 if member.mode & 0o100 else 0o644)
        return total.hexdigest()

    def finish(self) -> list[Entry]:
        for path in self._links:
            if leads_outside(path, self._links):
                raise Damaged(f"the link {path!r} leads out of the folder")
        return list(self._entries.values())


def is_text(name: str) -> bool:
    """Whether a name can be written in UTF-8, and to a disk."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in name
