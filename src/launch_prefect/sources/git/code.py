"""The code of a git source: which commit it is, and its files."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.content import all_files, describe, digest_of
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.git.command import has_lfs
from launch_prefect.sources.git.credentials import GitCredentials
from launch_prefect.sources.git.mirror import Mirror
from launch_prefect.sources.git.patch import read_patch
from launch_prefect.sources.git.resolve import commit_of
from launch_prefect.sources.git.tree import Trees, check_links
from launch_prefect.sources.git.urls import checked, server_of
from launch_prefect.sources.store import CodeStore
from launch_prefect.spec import GitSource
from launch_prefect.spec.git import check_git_ref
from launch_prefect.spec.paths import check_inside

Log = Callable[[str], None]

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def _quiet(line: str) -> None:
    """Log nothing."""


def resolve(
    source: GitSource,
    settings: LaunchSettings,
    credentials: GitCredentials | None = None,
    *,
    log: Log = _quiet,
    stop: threading.Event | None = None,
) -> GitSource:
    """Pin a source to a commit. Blocking: call it in a thread.

    Args:
        source: The source. One that is pinned is returned as it is.
        settings: Where state is kept on this machine.
        credentials: For its server; None where this machine's own git and ssh configuration serves.
        log: Takes lines about what is done and tried again.
        stop: Set by another thread to give up.

    Returns:
        The source with the full SHA that its `ref` leads to now.

    Raises:
        NotFound: There is no such repository, ref or folder; or the ref means more than one commit.
        InvalidInput: The repository may not be read with these credentials.
        Unreachable: Its server does not answer.
        DiskFull: No space is left for its mirror.
        LaunchError: This machine has no git that can be used.
    """
    _check(source, credentials)
    if source.commit is not None:
        return source
    mirror = Mirror(
        source.git, settings, credentials, block=source.credentials, log=log, stop=stop or threading.Event()
    )
    commit = commit_of(mirror, source.ref)
    subdir = _subdir(source)
    if subdir and not source.patch and mirror.has(commit) and _kind(mirror, commit, subdir) == "blob":
        raise NotFound(f"{subdir} in commit {commit[:12]} of {source.git} is a file.", mend="Name a folder as subdir.")
    return source.model_copy(update={"commit": commit})


def code_key(source: GitSource, *, large_files: bool = True) -> str:
    """What determines the files of a pinned source, wherever they are fetched from.

    Args:
        source: The source.
        large_files: Whether large files (LFS) are there; without git-lfs there are pointers to them.

    Returns:
        `sha256:…`.

    Raises:
        InvalidInput: The source is not pinned.
    """
    if source.commit is None:
        raise InvalidInput(f"The job's commit of {source.git} is not known.", mend="Submit the job again.")
    named = [source.commit, _subdir(source), source.patch, *([] if large_files else ["pointers"])]
    return f"sha256:{hashlib.sha256(json.dumps(named).encode()).hexdigest()}"


class GitCode:
    """Code of a git repository at a commit.

    Args:
        source: The source, pinned.
        settings: Where mirrors are kept on this machine.
        credentials: For its server, and never sent to another; None where this machine's own git and ssh
            configuration serves.

    Raises:
        InvalidInput: The source is not pinned, or says what git may not be given.
    """

    def __init__(self, source: GitSource, settings: LaunchSettings, credentials: GitCredentials | None = None) -> None:
        _check(source, credentials)
        self.key = code_key(source, large_files=has_lfs())
        self._source, self._settings, self._credentials = source, settings, credentials
        self._commit = str(source.commit)
        self._subdir = _subdir(source)

    def fetch(self, into: Path, *, log: Log, stop: threading.Event) -> str:
        """See `sources.code.Code.fetch`. On any error nothing is left of it.

        Raises:
            GivenUp: `stop` was set.
        """
        if into.exists() and any(into.iterdir()):
            raise InvalidInput(f"{into} is not empty.", mend="Fetch into a new folder.")
        with needing_space(into.parent):
            part = Path(tempfile.mkdtemp(prefix=f".{into.name}-", dir=into.parent))
            try:
                return self._fetch(part, into, log, stop)
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def _fetch(self, part: Path, into: Path, log: Log, stop: threading.Event) -> str:
        patch = b""
        if self._source.patch:
            store = CodeStore(self._source.store or self._settings.code_store_url)
            patch = read_patch(self._source.patch, store, part)
        whole = part / "tree"
        whole.mkdir()
        trees = Trees(lambda url: self._mirror(url, log, stop))
        trees.lay_out(self._source.git, self._commit, whole, subdir=self._subdir, patch=patch)
        root = whole / self._subdir if self._subdir else whole
        if root.is_symlink() or not root.is_dir():
            raise NotFound(
                f"There is no folder {self._subdir} in commit {self._commit[:12]} of {self._source.git}.",
                mend="Check the job's subdir.",
            )
        check_links(root)
        digest = digest_of(describe(root, path) for path in all_files(root))
        root.chmod(0o755)
        os.replace(root, into)  # noqa: PTH105 - atomic also where `into` is an empty folder
        return digest

    def _mirror(self, url: str, log: Log, stop: threading.Event) -> Mirror:
        own = server_of(url) == server_of(self._source.git)
        credentials = self._credentials if own else None
        return Mirror(url, self._settings, credentials, block=self._source.credentials, log=log, stop=stop)


def _check(source: GitSource, credentials: GitCredentials | None) -> None:
    """Models are checked when they are made, but for those made without a check."""
    url = checked(source.git, what="The address of the job's repository")
    try:
        if source.ref is not None:
            check_git_ref(source.ref)
        if source.subdir is not None:
            check_inside(source.subdir)
    except ValueError as error:
        raise InvalidInput(f"The git source of the job is not accepted: {error}.") from None
    if source.commit is not None and not _COMMIT.fullmatch(source.commit):
        raise InvalidInput(f"{source.commit!r} is no full SHA of a commit.")
    if credentials is None:
        return
    scheme = server_of(url)[0]
    if scheme == "ssh" and not credentials.ssh_key:
        raise InvalidInput(
            f"The block with the credentials for {url} holds a token, which ssh has no use for.",
            mend="Name a block that holds a private ssh key, or write the address as https://HOST/PATH.",
        )
    if scheme == "https" and not credentials.token:
        raise InvalidInput(
            f"The block with the credentials for {url} holds an ssh key, which https has no use for.",
            mend="Name a block that holds a token, or write the address as ssh://git@HOST/PATH.",
        )


def _subdir(source: GitSource) -> str | None:
    path = check_inside(source.subdir) if source.subdir else "."
    return None if path == "." else path


def _kind(mirror: Mirror, commit: str, path: str) -> str:
    return mirror.local("cat-file", "-t", f"{commit}:{path}").text
