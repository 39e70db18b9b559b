"""What a snapshot leaves out: what is never code, and what the ignore files say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from pathspec import GitIgnoreSpec

from launch_prefect.errors import InvalidInput
from launch_prefect.sources.dockerignore import DockerIgnore
from launch_prefect.sources.gitignore import GitIgnore

NEVER_CODE = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache",
        ".tox", ".nox", ".ipynb_checkpoints", "node_modules",
    }
)  # fmt: skip
"""Files and folders of these names are always left out."""


def is_never_code(path: Path) -> bool:
    """Whether a file or folder is a version control's, a cache or a virtual environment."""
    return path.name in NEVER_CODE or (not path.is_symlink() and (path / "pyvenv.cfg").is_file())


@dataclasses.dataclass(frozen=True, slots=True)
class _GitFile:
    """A `.gitignore`, and how paths below the top are written for it."""

    lines: GitIgnore
    within: str = ""
    above: str = ""

    def verdict(self, path: str) -> bool | None:
        return self.lines.verdict(self.above + path.removeprefix(self.within))


@dataclasses.dataclass(frozen=True)
class IgnoreRules:
    """The ignore files that hold in one folder of the tree.

    `.launchignore` has the last word: `!data.csv` there takes in what git and Docker leave out.
    """

    _launch: GitIgnoreSpec
    _named: Mapping[str, GitIgnoreSpec]
    _docker: DockerIgnore
    _kept: frozenset[str]
    _git: tuple[_GitFile, ...]
    _git_has_left_it_out: bool
    can_return: bool
    """Whether a file inside an ignored folder may be taken in again, so that such folders are looked into."""

    @classmethod
    def of(cls, root: Path, dockerfile: str | None = None) -> IgnoreRules:
        """Read the ignore files at the top of a folder, and those of the git repository that it is in.

        Args:
            root: The folder, its real path.
            dockerfile: Path below it of the Dockerfile that its image is made by. As for Docker, an ignore file of
                its own (`NAME.dockerignore`) stands in for `.dockerignore`, and neither can leave the Dockerfile out.

        Raises:
            InvalidInput: One of them has a pattern that means nothing.
        """
        launch = _lines(root / ".launchignore")
        own = f"{dockerfile}.dockerignore"
        docker_file = root / (own if dockerfile and (root / own).is_file() else ".dockerignore")
        try:
            docker = DockerIgnore(_lines(docker_file))
        except ValueError as error:
            raise _bad(docker_file, error) from None
        # Docker reads these itself, whatever they say of themselves.
        kept = {dockerfile, own} if dockerfile else {"Dockerfile"}
        rules = cls(
            _launch=_spec(launch, root / ".launchignore"),
            _named=_named(launch),
            _docker=docker,
            _kept=frozenset(str(PurePosixPath(path)) for path in kept),
            _git=_above(root),
            _git_has_left_it_out=False,
            can_return=docker.can_return or bool(dockerfile) or any(line.startswith("!") for line in launch),
        )
        return rules._with(root, "")

    def within(self, folder: Path, prefix: str) -> IgnoreRules:
        """The rules inside a folder of the tree, which may have a `.gitignore` of its own.

        Args:
            folder: The folder.
            prefix: Its path below the top with a `/` at the end.

        Raises:
            OSError: Its `.gitignore` cannot be read.
        """
        if self._git_leaves_out(prefix):  # git does not look into it, so nothing in there can take anything in again
            return self if self._git_has_left_it_out else dataclasses.replace(self, _git_has_left_it_out=True)
        return self._with(folder, prefix)

    def _with(self, folder: Path, prefix: str) -> IgnoreRules:
        lines = _lines(folder / ".gitignore")
        if not lines:
            return self
        found = _GitFile(GitIgnore(lines), within=prefix)
        return dataclasses.replace(self, _git=(found, *self._git))

    def wants_secret(self, path: str) -> bool:
        """Whether `.launchignore` takes in a secret by its own name; `!*` or `!its-folder` does not.

        Args:
            path: Its path below the top; a folder's ends with `/`.
        """
        named = self._named.get(path.rstrip("/").rpartition("/")[2])
        return named is not None and named.match_file(path) and self._launch.check_file(path).include is False

    def leave_out(self, path: str) -> bool:
        """Whether a path below the top is ignored; a folder's path ends with `/`."""
        verdict = self._launch.check_file(path).include
        if verdict is not None:
            return verdict
        if self._docker.leaves_out(path) and path not in self._kept:
            return True
        return self._git_leaves_out(path)

    def _git_leaves_out(self, path: str) -> bool:
        if self._git_has_left_it_out:
            return True
        for file in self._git:  # the innermost .gitignore that says anything decides
            verdict = file.verdict(path)
            if verdict is not None:
                return verdict
        return False


def _above(root: Path) -> tuple[_GitFile, ...]:
    """The `.gitignore` files above a folder of a git repository, innermost first.

    None, if they leave the folder itself out: who names it wants what is in it.
    """
    top = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
    parts = root.relative_to(top).parts
    files: list[_GitFile] = []
    for count in range(len(parts)):
        lines = GitIgnore(_lines(top.joinpath(*parts[:count], ".gitignore")))
        files.insert(0, _GitFile(lines, above="".join(f"{part}/" for part in parts[count:])))
        # What each of them says of the next folder on the way down.
        ahead = "".join(f"{part}/" for part in parts[count + 1 :])
        verdicts = (file.lines.verdict(file.above.removesuffix(ahead)) for file in files)
        if next((verdict for verdict in verdicts if verdict is not None), False):
            return ()
    return tuple(files)


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        return []
    # No other character ends a line for git; bytes that are no UTF-8 stay what they are in names, too.
    text = file.read_bytes().decode(errors="surrogateescape").removeprefix("\ufeff")
    return [line.removesuffix("\r") for line in text.split("\n")]


def _spec(lines: Iterable[str], file: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise _bad(file, error) from None


def _bad(file: Path, error: ValueError) -> InvalidInput:
    return InvalidInput(f"{file}: {error}", mend="Correct the line; `man gitignore` has the syntax.")


def _named(lines: Iterable[str]) -> dict[str, GitIgnoreSpec]:
    """The lines `!path/name` by the name, without their `!`."""
    named: dict[str, list[str]] = {}
    for line in map(str.strip, lines):
        if line.startswith("!"):
            named.setdefault(line.rstrip("/").rpartition("/")[2].removeprefix("!"), []).append(line.removeprefix("!"))
    return {name: GitIgnoreSpec.from_lines(patterns) for name, patterns in named.items()}
