"""Where snapshots of code are kept: a folder, or any storage that fsspec knows."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.naming import digest_hex
from launch_prefect.sources.archive import MAX_SIZE, Damaged, extract
from launch_prefect.sources.content import digest_of
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.storage import Storage


class CodeStore:
    """Archives of code, each named by the digest of its content.

    Args:
        url: fsspec address of the folder they are in, such as `file:///var/lib/launch/code` or `s3://bucket/code`.

    Raises:
        InvalidInput: Nothing here can read such an address.
    """

    def __init__(self, url: str) -> None:
        self._storage = Storage(url)
        self.url = self._storage.url
        """The address without credentials, for people to read."""

    def has(self, digest: str) -> bool:
        """Whether a snapshot is kept here, whole.

        Args:
            digest: Its digest, `sha256:…`.

        Raises:
            Unreachable: The store does not answer.
        """
        return bool(self._storage.size(_name(digest)))  # what a power cut left empty is none

    def renew(self, digest: str) -> None:
        """Mark a snapshot in a local folder as used now; elsewhere this does nothing.

        Args:
            digest: Its digest, `sha256:…`.
        """
        if path := self._storage.local_path(_name(digest)):
            with suppress(OSError):  # it may be someone else's
                os.utime(path)

    def put(self, digest: str, local_file: Path) -> None:
        """Keep a snapshot; it appears whole or not at all, also when two put it at once.

        Args:
            digest: Its digest, `sha256:…`.
            local_file: The archive, a `.tar.gz`.

        Raises:
            DiskFull: No space is left in the store.
            Unreachable: The store does not answer, or refuses.
        """
        self._storage.upload(local_file, _name(digest))

    def unpack(self, digest: str, into: Path, *, max_size: int = MAX_SIZE) -> None:
        """Unpack a snapshot; on any error nothing is left of it.

        Args:
            digest: Its digest, `sha256:…`.
            into: A folder that is empty or does not exist; the one above it does.
            max_size: Bytes that its files may have together.

        Raises:
            NotFound: The store has no such snapshot.
            InvalidInput: The archive is damaged, does not hold what its digest says, is too large, or would write
                outside `into`; or `into` is not empty.
            DiskFull: No space is left.
            Unreachable: The store does not answer, or breaks off.
        """
        if into.exists() and any(into.iterdir()):
            raise InvalidInput(f"{into} is not empty.", mend="Unpack into a new folder.")
        with needing_space(into.parent):
            part = Path(tempfile.mkdtemp(prefix=f".{uuid.uuid4().hex[:8]}-", dir=into.parent))
            try:
                with self._opened(digest, into.parent) as archive:
                    self._extract(digest, archive, part, max_size)
                part.chmod(0o755)
                os.replace(part, into)  # noqa: PTH105 - atomic also where `into` is an empty folder
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
        self.renew(digest)

    @contextmanager
    def _opened(self, digest: str, beside: Path) -> Iterator[BinaryIO]:
        """The archive as a file on this machine: a storage that breaks off has done so before anything is unpacked."""
        name = _name(digest)
        try:
            if local := self._storage.local_path(name):
                with local.open("rb") as file:
                    yield file
                return
            with tempfile.NamedTemporaryFile(prefix=".snapshot-", dir=beside) as file:
                self._storage.download(name, Path(file.name))
                with Path(file.name).open("rb") as archive:
                    yield archive
        except FileNotFoundError:
            raise NotFound(
                f"The code store {self.url} does not hold the snapshot {digest}.",
                mend="Submit the folder again; agents on other machines need a code store that they share.",
            ) from None
        except PermissionError as error:
            raise self._storage.unusable(error) from None

    def _extract(self, digest: str, archive: BinaryIO, into: Path, max_size: int) -> None:
        try:
            entries = extract(archive, into, max_size=max_size)
        except Damaged as error:
            raise self._damaged(digest, str(error)) from None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise self._damaged(digest, f"a path in it is too long for {into.parent}") from None
            raise
        if digest_of(entries) != digest:
            raise self._damaged(digest, "it does not hold what its digest says")

    def _damaged(self, digest: str, reason: str) -> InvalidInput:
        return InvalidInput(
            f"The snapshot {digest} in the code store {self.url} is damaged: {reason}.",
            mend=f"Remove {_name(digest)} there and submit the folder again.",
        )


def _name(digest: str) -> str:
    return f"{digest_hex(digest)}.tar.gz"
