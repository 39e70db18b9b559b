"""Where snapshots of code are kept: a folder, or any storage that fsspec knows."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.naming import digest_hex
from launch_prefect.sources.content import all_files, describe, digest_of
from launch_prefect.sources.disk import needing_space


class CodeStore:
    """Archives of code, each named by the digest of its content.

    Args:
        url: fsspec address of the folder they are in, such as `file:///var/lib/launch/code` or `s3://bucket/code`.

    Raises:
        InvalidInput: Nothing here can read such an address.
    """

    def __init__(self, url: str) -> None:
        self.url = re.sub(r"//[^/@]*@", "//", url)
        """The address without credentials, for people to read."""
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise InvalidInput(
                f"The code store {self.url} cannot be used: {error}.",
                mend="Set LAUNCH_CODE_STORE to a file:// address, or install what fsspec needs for this one.",
            ) from None

    def has(self, digest: str) -> bool:
        """Whether a snapshot is kept here.

        Args:
            digest: Its digest, `sha256:…`.

        Raises:
            Unreachable: The store does not answer.
        """
        with self._answering():
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(digest)))

    def put(self, digest: str, local_file: Path) -> None:
        """Keep a snapshot; it appears whole or not at all.

        Args:
            digest: Its digest, `sha256:…`.
            local_file: The archive, a `.tar.gz`.

        Raises:
            DiskFull: No space is left in the store.
            Unreachable: The store does not answer.
        """
        part = f"{self._root}/.{uuid.uuid4().hex}.part"
        with self._answering():
            self._fs.makedirs(self._root, exist_ok=True)
            try:
                self._fs.put_file(str(local_file), part)
                self._fs.mv(part, self._path(digest))
            except BaseException:
                with suppress(Exception):
                    self._fs.rm_file(part)
                raise

    def unpack(self, digest: str, into: Path) -> None:
        """Unpack a snapshot; on any error nothing is left of it.

        Args:
            digest: Its digest, `sha256:…`.
            into: A folder that is empty or does not exist; the one above it does.

        Raises:
            NotFound: The store has no such snapshot.
            InvalidInput: The archive is damaged, does not hold what its digest says, or would write outside
                `into`; or `into` is not empty.
            DiskFull: No space is left.
            Unreachable: The store does not answer.
        """
        if into.exists() and any(into.iterdir()):
            raise InvalidInput(f"{into} is not empty.", mend="Unpack into a new folder.")
        with needing_space(into.parent):
            part = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
            try:
                part.chmod(0o755)
                self._extract(digest, part)
                os.replace(part, into)  # noqa: PTH105 - atomic also where `into` is an empty folder
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise

    def _extract(self, digest: str, into: Path) -> None:
        try:
            with (
                self._answering(),
                self._fs.open(self._path(digest), "rb") as file,
                tarfile.open(fileobj=file, mode="r:gz") as tar,
                needing_space(into.parent),  # which reading the store does not
            ):
                tar.extractall(into, filter=_only_files)  # noqa: S202 - filtered
        except FileNotFoundError:
            raise NotFound(
                f"The code store {self.url} does not hold the snapshot {digest}.",
                mend="Submit the folder again; agents on other machines need a code store that they share.",
            ) from None
        except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise self._damaged(digest, str(error)) from None
        if digest_of(describe(into, path) for path in all_files(into)) != digest:
            raise self._damaged(digest, "it does not hold what its digest says")

    def _damaged(self, digest: str, reason: str) -> InvalidInput:
        return InvalidInput(
            f"The snapshot {digest} in the code store {self.url} is damaged: {reason}.",
            mend=f"Remove {self._path(digest)} and submit the folder again.",
        )

    def _path(self, digest: str) -> str:
        return f"{self._root}/{digest_hex(digest)}.tar.gz"

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turn what storages raise into our errors; the caller tells of damaged and missing archives."""
        try:
            with needing_space(self.url):
                yield
        except (LaunchError, FileNotFoundError, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError):
            raise
        except Exception as error:  # each storage has exceptions of its own
            raise Unreachable(
                f"The code store {self.url} cannot be used: {error}.",
                mend="Check its address, your permissions and its credentials.",
            ) from error


def _only_files(member: tarfile.TarInfo, into: str) -> tarfile.TarInfo | None:
    """Refuse what snapshots never hold, then all that Python's own filter for untrusted archives refuses."""
    if not (member.isreg() or member.issym()):
        raise tarfile.SpecialFileError(member)
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise tarfile.OutsideDestinationError(member, member.name)
    return tarfile.data_filter(member, into)
