"""The code of a job, wherever it comes from, as images and environments want it: a key, and files on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from launch_prefect.errors import InvalidInput
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git import GitCode, GitCredentials
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import CodeSource, GitSource

Log = Callable[[str], None]


class Code(Protocol):
    """Code that is pinned."""

    @property
    def key(self) -> str:
        """What identifies it, the same on every machine. Two keys may still lead to the same content."""

    def fetch(self, into: Path, *, log: Log, stop: threading.Event) -> str:
        """Put its files into a folder. Blocking: call it in a thread.

        Args:
            into: A folder that is empty or does not exist; the one above it does.
            log: Takes lines for the run's log.
            stop: Set by another thread to give up.

        Returns:
            Digest of its content, `sha256:…`; of the same files the same, whatever they came from.

        Raises:
            NotFound: It is not where the source says.
            InvalidInput: It is damaged, or holds what is not accepted.
            DiskFull: No space is left.
            Unreachable: The code store or the git server does not answer.
            GivenUp: `stop` was set.
        """


class SnapshotCode:
    """Code of a snapshot in the code store.

    Args:
        digest: The snapshot's digest.
        url: Address of the store.
    """

    def __init__(self, digest: str, url: str) -> None:
        self.key = digest
        self._url = url

    def fetch(self, into: Path, *, log: Log, stop: threading.Event) -> str:
        """See `Code.fetch`."""
        CodeStore(self._url).unpack(self.key, into)
        return self.key


def code_of(
    source: CodeSource | GitSource, settings: LaunchSettings, credentials: GitCredentials | None = None
) -> Code:
    """The code that a source names.

    Args:
        source: The source, pinned.
        settings: Where state is kept on this machine.
        credentials: For its git repository.

    Raises:
        InvalidInput: The source is not pinned.
    """
    if isinstance(source, GitSource):
        if source.commit is None:
            raise InvalidInput(f"The job's commit of {source.git} is not known.", mend="Submit the job again.")
        return GitCode(source, settings, credentials)
    if source.digest is None:
        raise InvalidInput(f"The code {source.code} has no digest.", mend="Submit the folder again.")
    own = settings.code_store_url
    # A source names its store without credentials; where that is this machine's own, its setting may have some.
    url = own if source.store in (None, CodeStore(own).url) else str(source.store)
    return SnapshotCode(source.digest, url)
