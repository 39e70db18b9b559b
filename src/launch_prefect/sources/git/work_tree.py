"""A folder in somebody's git work tree: the commit that its remote has, and what has changed since."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.sources.git.command import Ended, run, users_environment
from launch_prefect.sources.git.trouble import About
from launch_prefect.sources.git.urls import checked


@dataclass(frozen=True, slots=True)
class WorkTree:
    """What a folder in a git work tree is, against its remote.

    Attributes:
        url: Address of the remote, without credentials.
        commit: Newest commit of its history that the remote has, as far as is known here.
        branch: The branch that is checked out; None for none.
        subdir: The folder's path below the top of the work tree; None for the top itself.
        patch: What leads from `commit` to the folder as it is now: unpushed commits and uncommitted changes. Of files
            outside the folder only `.gitattributes` and `.gitmodules` at the top. Empty for none.
        untracked: Paths in the folder that git does not know and does not ignore, from the folder; not in `patch`.
        unpushed: Number of commits that the remote does not have.
        dropped_credentials: Whether the remote's address holds a password, which `url` lacks: a block is to be named.
    """

    url: str
    commit: str
    branch: str | None
    subdir: str | None
    patch: bytes
    untracked: tuple[str, ...]
    unpushed: int
    dropped_credentials: bool = False


def work_tree(folder: Path) -> WorkTree | None:
    """Look at a folder.

    Args:
        folder: The folder.

    Returns:
        What it is; None where it is in no git work tree.

    Raises:
        NotFound: There is no such folder.
        InvalidInput: It has no commit, no remote, none that can be used, or no commit of it was pushed.
        LaunchError: This machine has no git that can be used.
    """
    if not folder.is_dir():
        raise NotFound(f"There is no folder {folder}.", mend="Check the path.")
    here = _Here(folder)
    top = here.top()
    if top is None:
        return None
    branch = here.ask("symbolic-ref", "--quiet", "--short", "HEAD") or None
    if not here.ask("rev-parse", "--verify", "--quiet", "HEAD^{commit}"):
        raise InvalidInput(f"The git repository of {folder} has no commit.", mend="Commit and push its files.")
    remote = here.remote(branch)
    url, dropped = _public(here.must("remote", "get-url", "--", remote))
    checked(url, what=f"The address of the remote {remote!r} of {folder}")
    commit, unpushed = here.pushed(remote)
    subdir = folder.resolve().relative_to(top).as_posix()
    return WorkTree(
        url=url,
        commit=commit,
        branch=branch,
        subdir=None if subdir == "." else subdir,
        patch=here.changes(commit),
        untracked=here.untracked(),
        unpushed=unpushed,
        dropped_credentials=dropped,
    )


class _Here:
    """Git in a folder of its user's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._env = users_environment()

    def _run(self, arguments: Sequence[str]) -> Ended:
        return run(arguments, env=self._env, cwd=self._folder)

    def ask(self, *arguments: str) -> str:
        """What git answers; empty where it fails."""
        ended = self._run(arguments)
        return ended.text if ended.code == 0 else ""

    def must(self, *arguments: str) -> str:
        """What git answers.

        Raises:
            InvalidInput: It fails.
        """
        return os.fsdecode(self._must(*arguments)).rstrip("\n")

    def _must(self, *arguments: str) -> bytes:
        ended = self._run(arguments)
        if ended.code:
            raise self._failed(ended)
        return ended.out

    def _failed(self, ended: Ended) -> InvalidInput:
        words = About("", None, None, "").words(ended.err)
        return InvalidInput(f"The git repository of {self._folder} cannot be read: {words}")

    def top(self) -> Path | None:
        """The top of the work tree, or None where there is none."""
        ended = self._run(("rev-parse", "--show-toplevel"))
        if ended.code == 0:
            return Path(ended.text).resolve()
        if "not a git repository" in ended.err or "must be run in a work tree" in ended.err:
            return None
        raise self._failed(ended)

    def remote(self, branch: str | None) -> str:
        """The remote of the branch, else `origin`.

        Raises:
            InvalidInput: There is none.
        """
        remotes = self.must("remote").splitlines()
        upstream = self.ask("config", "--get", f"branch.{branch}.remote") if branch else ""
        for name in (upstream, "origin"):
            if name in remotes:
                return name
        raise InvalidInput(
            f"The git repository of {self._folder} has no remote.",
            mend="Add one with git remote add origin URL and push to it, or submit the folder without --git.",
        )

    def pushed(self, remote: str) -> tuple[str, int]:
        """Newest commit that the remote has, and the number of those that it does not."""
        new = self.must("rev-list", "--boundary", "--date-order", "HEAD", "--not", f"--remotes={remote}").split()
        unpushed = [commit for commit in new if not commit.startswith("-")]
        if not unpushed:
            return self.must("rev-parse", "HEAD"), 0
        shared = [commit.removeprefix("-") for commit in new if commit.startswith("-")]
        if not shared:
            raise InvalidInput(
                f"No commit of {self._folder} was pushed to the remote {remote!r}, as far as is known here.",
                mend=f"Push the branch: git push -u {remote} HEAD. Or, where it was pushed: git fetch {remote}.",
            )
        return shared[0], len(unpushed)

    def changes(self, commit: str) -> bytes:
        """The patch from a commit to the folder as it is, whatever its user has configured."""
        return self._must(
            "diff", "--binary", "--full-index", "--no-renames", "--no-color", "--no-ext-diff", "--no-textconv",
            "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=dirty", "--submodule=short",
            "--diff-algorithm=default", "--unified=3", "--inter-hunk-context=0", "-O" + os.devnull, commit, "--",
            ".", ":(top,literal).gitmodules", ":(top,literal).gitattributes",
        )  # fmt: skip

    def untracked(self) -> tuple[str, ...]:
        """Files in the folder that are neither known to git nor ignored."""
        listed = self.must("ls-files", "--others", "--exclude-standard", "-z")
        return tuple(sorted(filter(None, listed.split("\0"))))


def _public(url: str) -> tuple[str, bool]:
    """An address without what only its user may know, and whether that was a password."""
    if "://" not in url:
        return url, False
    try:
        parts = urlsplit(url)
        password = parts.password is not None
    except ValueError:
        return url, False
    if not password and parts.scheme != "https":
        return url, False
    keep = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
    return urlunsplit(parts._replace(netloc=keep + parts.netloc.rpartition("@")[2])), password
