"""Files in a folder of any storage that fsspec knows: whole or not there, tried again where that helps."""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import known_implementations
from tenacity import (
    Retrying,
    retry_if_not_exception_type,
    stop_after_attempt,
    stop_after_delay,
    wait_exponential_jitter,
)

from launch_prefect.errors import InvalidInput, LaunchError, Unreachable
from launch_prefect.sources.disk import needing_space

_Result = TypeVar("_Result")

_WHOLE_AT_ONCE = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "r2", "s3", "s3a"})
"""Protocols where what is uploaded appears when all of it has arrived; renaming would copy it."""
_EXTRAS = {"s3": "s3", "s3a": "s3"}
"""Protocols that an extra of ours has the driver of."""
_FINAL = (
    FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError,
    ImportError, TypeError, ValueError, NotImplementedError, AttributeError, LaunchError,
)  # fmt: skip
"""Errors that are the same the next time."""
_TRIES = 3
_PATIENCE = 20
"""Seconds after which nothing is tried again: many drivers have tried several times by then."""


class _CutOff(Exception):
    """Less has come than there is."""


class Storage:
    """A folder of files.

    Args:
        url: Its fsspec address.

    Raises:
        InvalidInput: Nothing here can read such an address.
    """

    def __init__(self, url: str) -> None:
        self._secrets = _secrets(url)
        self.url = re.sub(r"//[^/@]*@", "//", url)
        """The address without credentials, for people to read."""
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise InvalidInput(
                f"The code store {self.url} cannot be used: its driver is not installed ({self._clean(error)}).",
                mend=f"Install it where jobs are submitted and where agents run: {_installation(url)}.",
            ) from None
        except Exception as error:  # each driver has exceptions of its own
            raise InvalidInput(
                f"The code store {self.url} cannot be used: {self._clean(error)}.",
                mend="Set LAUNCH_CODE_STORE to an address such as file:///srv/launch/code or s3://bucket/code.",
            ) from None
        protocols = {self._fs.protocol} if isinstance(self._fs.protocol, str) else set(self._fs.protocol)
        self._whole_at_once = bool(protocols & _WHOLE_AT_ONCE)
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def local_path(self, name: str) -> Path | None:
        """Where a file is on this machine; None where the storage is elsewhere."""
        return Path(self._path(name)) if self._is_local else None

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is no such file.

        Raises:
            Unreachable: The storage does not answer, or refuses.
        """
        try:
            return self._trying(lambda: self._size(name))
        except FileNotFoundError:
            return None

    def upload(self, file: Path, name: str) -> None:
        """Copy a file of this machine here; it appears whole or not at all.

        Raises:
            DiskFull: No space is left here.
            Unreachable: The storage does not answer, or refuses.
        """
        try:
            self._trying(lambda: self._upload(file, name))
        except FileNotFoundError as error:  # no such bucket
            raise self.unusable(error) from error

    def download(self, name: str, to: Path) -> None:
        """Copy a file from here.

        Args:
            name: Its name.
            to: The file on this machine that is written.

        Raises:
            FileNotFoundError: There is no such file.
            DiskFull: No space is left where it is written.
            Unreachable: The storage does not answer, refuses, or breaks off.
        """
        with needing_space(to.parent):
            self._trying(lambda: self._download(name, to))

    def unusable(self, error: Exception) -> Unreachable:
        """The error that says that the storage does not do what it is asked for."""
        return Unreachable(
            f"The code store {self.url} cannot be used: {self._clean(error)}.",
            mend="Check its address, your permissions and its credentials.",
        )

    def _size(self, name: str) -> int:
        self._fs.invalidate_cache()
        return int(self._fs.info(self._path(name))["size"] or 0)

    def _upload(self, file: Path, name: str) -> None:
        if self._whole_at_once:
            self._fs.put_file(str(file), self._path(name))
            return
        self._fs.makedirs(self._root, exist_ok=True)
        part = f"{self._root}/.{uuid.uuid4().hex}.part"
        try:
            self._fs.put_file(str(file), part)
            if self._is_local:
                _flush(part)
            self._fs.mv(part, self._path(name))
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(part)
            raise

    def _download(self, name: str, to: Path) -> None:
        size = self._size(name)
        self._fs.get_file(self._path(name), str(to))
        if to.stat().st_size != size:
            raise _CutOff(f"it broke off after {to.stat().st_size:,} of {size:,} bytes")

    def _trying(self, work: Callable[[], _Result]) -> _Result:
        """Do it, again after a moment where it may then succeed; what storages raise becomes our errors."""
        tries = Retrying(
            stop=stop_after_attempt(_TRIES) | stop_after_delay(_PATIENCE),
            wait=wait_exponential_jitter(initial=0.2, max=2, jitter=0.2),
            retry=retry_if_not_exception_type(_FINAL),
            reraise=True,
        )
        try:
            with needing_space(self.url):
                return tries(work)
        except (LaunchError, FileNotFoundError):
            raise
        except Exception as error:  # each storage has exceptions of its own
            raise self.unusable(error) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _clean(self, error: Exception) -> str:
        """The text of an error in one line, without the credentials that a driver may have put there."""
        text = " ".join(f"{error}".split()).rstrip(".") or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _secrets(url: str) -> list[str]:
    """Whatever in an address may be a password, longest first."""
    found: set[str] = set()
    for user in re.findall(r"//([^/@]*)@", url):
        name, _, password = user.partition(":")
        found |= {user, unquote(user), password, unquote(password)} | ({name} if not password else set())
    return sorted(filter(None, found), key=len, reverse=True)


def _installation(url: str) -> str:
    protocol = url.partition("://")[0].rpartition("::")[2]
    if protocol in _EXTRAS:
        return f"pip install 'launch-prefect[{_EXTRAS[protocol]}]'"
    known = known_implementations.get(protocol, {})
    package = known.get("class", "").partition(".")[0]
    return known.get("err", "") if package in ("", "fsspec") else f"pip install {package}"


def _flush(path: str) -> None:
    """See that a file is on the disk before it gets its name: a power cut must not leave an empty one."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
