"""Files of a commit, out of a mirror: large files and submodules too, with a patch applied; nothing of git's itself."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from launch_prefect.errors import InvalidInput, NotFound
from launch_prefect.sources.content import all_files
from launch_prefect.sources.git.command import Ended, has_lfs, local_environment
from launch_prefect.sources.git.mirror import Mirror
from launch_prefect.sources.git.urls import beside, checked
from launch_prefect.sources.links import leads_outside
from launch_prefect.spec.paths import check_inside

_DEEPEST, _MOST = 8, 500
_POINTER = b"version https://git-lfs.github.com/spec/v1\n"
_LONGEST_POINTER = 1024
_SHOWN = 5
# Objects are fetched before. One that is not here then is left as it is, and told of.
_LFS = {
    "filter.lfs.process": "git-lfs filter-process",
    "filter.lfs.smudge": "git-lfs smudge -- %f",
    "filter.lfs.required": "true",
    "lfs.skipdownloaderrors": "true",
}


@dataclass(frozen=True, slots=True)
class _Submodule:
    path: str
    commit: str
    name: str
    url: str


class Trees:
    """Lays out a commit and the submodules in it.

    Args:
        mirror_of: The mirror of an address.
    """

    def __init__(self, mirror_of: Callable[[str], Mirror]) -> None:
        self._mirror_of = mirror_of
        self._count = 0

    def lay_out(
        self, url: str, commit: str, into: Path, *, subdir: str | None = None, patch: bytes = b"", depth: int = 0
    ) -> None:
        """Put the files of a commit into a folder.

        Args:
            url: Address of the repository, checked.
            commit: Full SHA.
            into: An empty folder.
            subdir: Folder of the commit that is wanted; only what is in it is written, at its place.
            patch: Changes to it, as `git diff --binary` writes them; empty for none.
            depth: How many repositories this one is in.

        Raises:
            NotFound: There is no such repository, commit or folder.
            InvalidInput: The patch does not fit, or a submodule is not accepted.
            Unreachable, DiskFull, GivenUp: See `Mirror.ensure`.
        """
        mirror = self._mirror_of(url)

        def files() -> list[_Submodule]:
            mirror.ensure(commit)
            with tempfile.TemporaryDirectory(prefix="launch-git-") as scratch:
                return _Index(mirror, commit, into, Path(scratch)).write(subdir, patch)

        for submodule in mirror.mending(files):
            self._count += 1
            where = f"the submodule {submodule.path} of {url}"
            if depth + 1 > _DEEPEST or self._count > _MOST:
                raise InvalidInput(
                    f"Submodules of {url} are too deep in one another, or too many.",
                    mend=f"At most {_MOST} of them are fetched, {_DEEPEST} deep.",
                )
            address = checked(beside(url, submodule.url), what=f"The address of {where}")
            inner = into / _inside(submodule.path)
            if not inner.resolve().is_relative_to(into.resolve()):
                raise InvalidInput(f"The path of {where} leaves its folder.")
            inner.mkdir(parents=True, exist_ok=True)
            self.lay_out(address, submodule.commit, inner, depth=depth + 1)


class _Index:
    """An index of our own on a mirror: many may write out of one mirror at once.

    Args:
        mirror: The mirror, which has the commit.
        commit: Full SHA.
        into: Folder that is written.
        scratch: Folder for the index, and for the objects that a patch makes.
    """

    def __init__(self, mirror: Mirror, commit: str, into: Path, scratch: Path) -> None:
        self._mirror, self._commit, self._into = mirror, commit, into
        (scratch / "objects").mkdir()
        quoted = str(mirror.path / "objects").replace("\\", "\\\\").replace('"', '\\"')
        self._env = {
            "GIT_INDEX_FILE": str(scratch / "index"),
            "GIT_WORK_TREE": str(into),
            "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"',
        }

    def write(self, subdir: str | None, patch: bytes) -> list[_Submodule]:
        """Write the files, and return the submodules that belong between them."""
        self._git("read-tree", self._commit)
        if patch:
            self._apply(patch)
        entries = [_entry(line) for line in self._git("ls-files", "--stage", "-z").text.split("\0") if line]
        if subdir:
            entries = [entry for entry in entries if _touches(entry, subdir)]
            if not entries:
                raise self._no_folder(subdir)
        paths = [path for mode, _, path in entries if mode != "160000"]
        large = bool(paths) and self._has_large()
        if large and has_lfs():
            self._mirror.fetch_lfs(self._commit, self._lfs_url(), subdir)
        listed = b"".join(os.fsencode(path) + b"\0" for path in paths)
        self._git("checkout-index", "--force", "-z", "--stdin", feed=listed, settings=_LFS if has_lfs() else {})
        if large:
            self._check_large(paths)
        return self._submodules([(path, commit) for mode, commit, path in entries if mode == "160000"])

    def _git(self, *arguments: str, feed: bytes | None = None, settings: dict[str, str] | None = None) -> Ended:
        ended = self._try(*arguments, feed=feed, settings=settings)
        if ended.code:
            doing = f"Commit {self._commit} of {self._mirror.url} cannot be written out"
            raise self._mirror.about.error(ended.err, doing, mirrored=True)
        return ended

    def _try(self, *arguments: str, feed: bytes | None = None, settings: dict[str, str] | None = None) -> Ended:
        env = local_environment(settings) | self._env
        return self._mirror.local(*arguments, env=env, cwd=self._into, feed=feed)

    def _apply(self, patch: bytes) -> None:
        ended = self._try("apply", "--cached", "--binary", "--whitespace=nowarn", "-", feed=patch)
        if ended.code:
            raise InvalidInput(
                f"The changes do not fit commit {self._commit} of {self._mirror.url}: "
                f"{self._mirror.about.words(ended.err)}",
                mend="Submit the job again.",
            )

    def _no_folder(self, subdir: str) -> NotFound:
        tree = self._try("ls-tree", "-d", "--name-only", "-z", self._commit).text.split("\0")
        folders = ", ".join(sorted(filter(None, tree))[:10])
        return NotFound(
            f"There is no folder {subdir} in commit {self._commit[:12]} of {self._mirror.url}.",
            mend=f"Folders at its top are: {folders}." if folders else "It has no folders.",
        )

    def _has_large(self) -> bool:
        asked = ("grep", "--cached", "--quiet", "--fixed-strings", "-e", "filter=lfs", "--", ":(glob)**/.gitattributes")
        return self._try(*asked).code == 0

    def _lfs_url(self) -> str | None:
        url = self._config(".lfsconfig").get("lfs.url")
        return checked(url, what=f"The address of large files in .lfsconfig of {self._mirror.url}") if url else None

    def _check_large(self, paths: list[str]) -> None:
        left = [path for path in paths if _is_pointer(self._into / path)]
        if not left:
            return
        names = ", ".join(left[:_SHOWN]) + (", …" if len(left) > _SHOWN else "")
        if has_lfs():
            raise NotFound(
                f"{len(left)} large files (LFS) of {self._mirror.url} are not on its server: {names}.",
                mend="Push them with git lfs push.",
            )
        self._mirror.log(
            f"{len(left)} large files (LFS) are pointers only, as git-lfs is not installed on this machine: {names}. "
            "Install it; on Debian: apt-get install git-lfs."
        )

    def _submodules(self, links: list[tuple[str, str]]) -> list[_Submodule]:
        if not links:
            return []
        config = self._config(".gitmodules")
        names = {
            path.rstrip("/"): key.removeprefix("submodule.").removesuffix(".path")
            for key, path in config.items()
            if key.startswith("submodule.") and key.endswith(".path")
        }
        found = []
        for path, commit in links:
            name = names.get(path, "")
            url = config.get(f"submodule.{name}.url")
            if url is None:
                self._mirror.log(f"The submodule {path} has no address in .gitmodules; its folder stays empty.")
            elif config.get(f"submodule.{name}.update") != "none":
                found.append(_Submodule(path, commit, name, url))
        return found

    def _config(self, file: str) -> dict[str, str]:
        """A file in git's own syntax, out of the index; empty where there is none."""
        listed = self._try("config", "--blob", f":{file}", "--no-includes", "--null", "--list")
        pairs = (pair.partition("\n") for pair in listed.text.split("\0") if pair) if listed.code == 0 else ()
        return {key: value for key, _, value in pairs}


def check_links(root: Path) -> None:
    """No symbolic link may leave the folder: it has to mean the same wherever the files are.

    Raises:
        InvalidInput: One does.
    """
    links = {path: os.readlink(root / path) for path in all_files(root) if (root / path).is_symlink()}  # noqa: PTH115
    for path, target in links.items():
        if leads_outside(path, links):
            raise InvalidInput(
                f"The link {path} leads to {target}, outside the job's folder, or in a circle.",
                mend="Make it relative and lead to a file inside; or name no subdir, so that the whole repository is "
                "the job's folder.",
            )


def _entry(line: str) -> tuple[str, str, str]:
    """Mode, object and path of a line of `git ls-files --stage`."""
    about, _, path = line.partition("\t")
    mode, digest, _ = about.split(" ")
    return mode, digest, path


def _touches(entry: tuple[str, str, str], subdir: str) -> bool:
    """Whether an entry is in a folder, or is the submodule that the folder is in."""
    mode, _, path = entry
    return path.startswith(f"{subdir}/") or (mode == "160000" and f"{subdir}/".startswith(f"{path}/"))


def _is_pointer(file: Path) -> bool:
    if file.is_symlink() or not file.is_file() or file.stat().st_size > _LONGEST_POINTER:
        return False
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def _inside(path: str) -> str:
    try:
        return check_inside(path)
    except ValueError as error:
        raise InvalidInput(f"The path {path!r} of a submodule is not accepted: {error}.") from None
