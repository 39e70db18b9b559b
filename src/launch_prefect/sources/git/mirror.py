"""What this machine keeps of a git repository: a bare repository that each fetch adds a little to."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from launch_prefect.errors import NotFound, Unreachable
from launch_prefect.naming import slug
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.git.command import Ended, GivenUp, Silent, local_environment, remote_environment, run
from launch_prefect.sources.git.credentials import GitCredentials
from launch_prefect.sources.git.trouble import About, Damaged, RefusesCommits
from launch_prefect.sources.git.urls import server_of

Log = Callable[[str], None]
Result = TypeVar("Result")

_TRIES = 3
_LOOK = 0.1
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 4.0
_HALF_WRITTEN = ("*.lock", "refs/**/*.lock", "objects/**/tmp_*", "objects/**/*.lock", "objects/pack/.tmp-*")


class Mirror:
    """The repository at one address. The time of its folder says when it was last used.

    Args:
        url: Its address, checked.
        settings: Where mirrors are kept.
        credentials: For its server.
        block: The block that they are from, for messages.
        log: Takes lines for the run's log.
        stop: Set by another thread to give up.
    """

    def __init__(
        self,
        url: str,
        settings: LaunchSettings,
        credentials: GitCredentials | None,
        *,
        block: str | None,
        log: Log,
        stop: threading.Event,
    ) -> None:
        self.url = url
        self.log = log
        self.stop = stop
        self.credentials = credentials
        self._settings = settings
        self._root = settings.folder("git")
        name = slug(url.partition("://")[2] or url, limit=60).removesuffix("-git")
        self.path = self._root / f"{name}-{hashlib.sha256(url.encode()).hexdigest()[:16]}"
        self.about = About(url, credentials, block, str(self._root))

    def refs(self) -> dict[str, str]:
        """All refs of the repository with the objects they lead to; `HEAD` as well, and `name^{}` of annotated tags.

        Raises:
            NotFound, InvalidInput: It is not there, or may not be read.
            Unreachable: The server does not answer.
        """
        ended = self._remote(["ls-remote", "--", "origin"], f"{self.url} cannot be read")
        lines = (line.partition("\t") for line in ended.text.splitlines())
        return {name: commit for commit, tab, name in lines if tab}

    def has(self, commit: str) -> bool:
        """Whether a commit is here, whole: its ref is written last."""
        return self.path.exists() and self._find(_ref(commit)) is not None

    def ensure(self, commit: str) -> None:
        """Have a commit here. Speaks to the server only where it is not.

        Args:
            commit: Its full SHA.

        Raises:
            NotFound: The server does not have it, or there is no such repository.
            InvalidInput: The repository may not be read.
            Unreachable: The server does not answer.
            DiskFull: No space is left.
            GivenUp: `stop` was set.
        """
        self.mending(lambda: self._ensure(commit))

    def find(self, short: str) -> str | None:
        """The commit that a shortened SHA means; fetches the whole history.

        Raises:
            NotFound: It means more than one.
        """
        return self.mending(lambda: self._find_short(short))

    def mending(self, action: Callable[[], Result]) -> Result:
        """Do something with the mirror; where the mirror turns out to be damaged, make it anew and do it again."""
        try:
            return action()
        except Damaged as error:
            self.log(f"The mirror of {self.url} is damaged and is made anew: {error.message}")
            with self.locked():
                self._discard()
            return action()

    def local(
        self, *arguments: str, env: dict[str, str] | None = None, cwd: Path | None = None, feed: bytes | None = None
    ) -> Ended:
        """Run git on the mirror, reaching nothing.

        Args:
            *arguments: Its arguments.
            env: Its environment; by default that of `local_environment`.
            cwd: Its working folder.
            feed: Its standard input.
        """
        env = (local_environment() if env is None else env) | {"GIT_DIR": str(self.path)}
        with suppress(OSError):  # it is another user's, or not there
            os.utime(self.path)
        return run(arguments, env=env, cwd=cwd or self._root, feed=feed, stop=self.stop)

    def fetch_lfs(self, commit: str, lfs_url: str | None, subdir: str | None) -> None:
        """Fetch the large files of a commit that are not here.

        Args:
            commit: Its full SHA, which the mirror has.
            lfs_url: Address of their server where it is not the repository's, checked.
            subdir: Folder of the commit whose files are wanted.
        """
        include = ["--include", f"{subdir},{subdir}/**"] if subdir else []
        with self.locked():
            self._remote(
                ["lfs", "fetch", *include, "--", "origin", commit],
                f"Large files (LFS) of {self.url} cannot be fetched",
                git_dir=True,
                settings={"lfs.url": lfs_url} if lfs_url else {},
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that writes to the mirror."""
        lock = FileLock(self._root / f"{self.path.name}.lock")
        told = False
        while True:
            if self.stop.is_set():
                raise GivenUp(f"Fetching {self.url} was given up.")
            try:
                lock.acquire(timeout=_LOOK)
                break
            except Timeout:
                if not told:
                    self.log(f"Waiting for another fetch of {self.url}.")
                    told = True
        try:
            with needing_space(self._root):
                yield
        finally:
            lock.release()

    def _ensure(self, commit: str) -> None:
        if self.has(commit):
            return
        with self.locked():
            if self.has(commit):
                return
            self._prepare(commit)
            self.log(f"Fetching {commit[:12]} of {self.url}.")
            doing = f"The commit {commit} of {self.url} cannot be fetched"
            try:
                self._remote([*_FETCH, "--depth=1", "--", "origin", f"+{commit}:{_ref(commit)}"], doing, True)
            except RefusesCommits:
                self._fetch_all()
                self._keep(commit)
            self._tidy()
            if not self.has(commit):
                raise NotFound(
                    f"{self.url} has no commit {commit}.",
                    mend="It was never pushed, or a force-push has taken it away. Push it, or submit the job again.",
                )

    def _find_short(self, short: str) -> str | None:
        with self.locked():
            self._prepare(short)
            self._fetch_all()
            ended = self.local("rev-parse", "--verify", "--end-of-options", f"{short}^{{commit}}")
            if "ambiguous" in ended.err:
                raise NotFound(f"{short} is the beginning of more than one commit of {self.url}.", mend="Write more.")
            if ended.code:
                return None
            self._keep(ended.text)
            self._tidy()
            return ended.text

    def _fetch_all(self) -> None:
        self.log(f"Fetching the history of {self.url}.")
        shallow = self.local("rev-parse", "--is-shallow-repository").text == "true"
        refspecs = ("+refs/heads/*:refs/launch/heads/*", "+refs/tags/*:refs/launch/tags/*")
        arguments = [*_FETCH, "--prune", *["--unshallow"] * shallow, "--", "origin", *refspecs]
        self._remote(arguments, f"{self.url} cannot be fetched", True)

    def _tidy(self) -> None:
        """What git does now and then after a fetch: many small packs become one."""
        self.local("gc", "--auto", "--quiet")

    def _keep(self, commit: str) -> None:
        """Give a commit that is here its ref."""
        self.local("update-ref", _ref(commit), commit)

    def _find(self, name: str) -> str | None:
        ended = self.local("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        return ended.text if ended.code == 0 else None

    def _prepare(self, commit: str) -> None:
        """Make the mirror where there is none, and remove what one that was killed has left."""
        for left in self._root.glob(f".{self.path.name}-*"):
            shutil.rmtree(left, ignore_errors=True)
        if not (self.path / "HEAD").is_file():
            self._discard()
            part = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self._root))
            kind = "sha256" if len(commit) == 64 else "sha1"
            made = run(
                ["init", "--bare", "--quiet", "--template=", f"--object-format={kind}", str(part)],
                env=local_environment(),
                cwd=self._root,
                stop=self.stop,
            )
            if made.code:
                raise self.about.error(made.err, f"No mirror of {self.url} can be made")
            part.rename(self.path)
        for pattern in _HALF_WRITTEN:
            for left in self.path.glob(pattern):
                with suppress(OSError):
                    left.unlink()

    def _discard(self) -> None:
        if self.path.exists():
            away = Path(tempfile.mkdtemp(prefix=f".{self.path.name}-", dir=self._root))
            os.replace(self.path, away)  # noqa: PTH105 - atomic onto an empty folder
            shutil.rmtree(away, ignore_errors=True)

    def _remote(
        self, arguments: list[str], doing: str, git_dir: bool = False, settings: dict[str, str] | None = None
    ) -> Ended:
        """Run git so that it speaks to the server, again where that did not answer."""

        def once() -> Ended:
            with remote_environment(self.url, self._settings, self.credentials, settings) as env:
                if git_dir:
                    env["GIT_DIR"] = str(self.path)
                # Large files have limits of their own, and their progress is shown to terminals only.
                silent = None if arguments[0] == "lfs" else self._tell_silence
                try:
                    ended = run(arguments, env=env, cwd=self._root, stop=self.stop, silent=silent)
                except Silent:
                    raise self.about.silent(doing) from None
            if ended.code:
                raise self.about.error(ended.err, doing, mirrored=git_dir and arguments[0] == "fetch")
            return ended

        def tell(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            message = error.message if isinstance(error, Unreachable) else str(error)
            self.log(f"{message} Trying again ({state.attempt_number + 1} of {_TRIES}).")

        trying = Retrying(
            stop=stop_after_attempt(_TRIES),
            wait=wait_exponential(multiplier=_FIRST_WAIT, max=_LONGEST_WAIT),
            retry=retry_if_exception_type(Unreachable),
            sleep=self._rest,
            before_sleep=tell,
            reraise=True,
        )
        return trying(once)

    def _tell_silence(self) -> None:
        self.log(f"Waiting for {server_of(self.url)[1]}.")

    def _rest(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise GivenUp(f"Fetching {self.url} was given up.")


# With its progress: it tells a server that is slow from one that is silent. Without its house-keeping, which may be
# silent for longer than a server may.
_FETCH = (
    "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance",
)  # fmt: skip


def _ref(commit: str) -> str:
    return f"refs/launch/commits/{commit}"
