"""What a snapshot leaves out: what the folder's ignore files say, what is never code, and secrets."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from pathspec import GitIgnoreSpec

from launch_prefect.errors import InvalidInput

NEVER_CODE = frozenset(
    {
        ".git", ".hg", ".svn", ".venv", "__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache",
        ".tox", ".nox", ".ipynb_checkpoints", "node_modules",
    }
)  # fmt: skip
"""Files and folders of these names are always left out."""

SECRETS = frozenset(
    {
        ".env", ".envrc", ".netrc", ".git-credentials", ".pypirc", ".npmrc", ".pgpass", ".aws", ".ssh", ".kube",
        "id_rsa", "id_ed25519", "id_ecdsa", "id_dsa",
    }
)  # fmt: skip
"""Files and folders of these names are left out unless `.launchignore` names them, and the person is told."""

_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_LOOKED_AT = 64 * 1024


def is_never_code(path: Path) -> bool:
    """Whether a file or folder is a version control's, a cache or a virtual environment."""
    return path.name in NEVER_CODE or (not path.is_symlink() and (path / "pyvenv.cfg").is_file())


def is_secret(path: Path) -> bool:
    """Whether a file or folder holds credentials, judged by its name."""
    return (
        path.name in SECRETS
        or path.name.startswith(".env.")
        or (path.name == "config.json" and path.parent.name == ".docker")
    )


def holds_private_key(path: Path) -> bool:
    """Whether a file's first 64 KiB hold the header of a private key, as Google's `service-account.json` does, too.

    A `.pem` file is read whole: the key may follow many certificates. A certificate alone is public.

    Raises:
        OSError: It cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return _PRIVATE_KEY.search(file.read(-1 if path.suffix == ".pem" else _LOOKED_AT)) is not None


@dataclasses.dataclass(frozen=True)
class IgnoreRules:
    """The ignore files that hold in one folder of the tree.

    `.launchignore` has the last word: `!data.csv` there takes in what git leaves out.
    """

    _launch: GitIgnoreSpec
    _named: Mapping[str, GitIgnoreSpec]
    _docker: GitIgnoreSpec
    _git: tuple[tuple[str, GitIgnoreSpec], ...]
    can_return: bool
    """Whether a file inside an ignored folder may be taken in again, so that such folders are looked into."""

    @classmethod
    def of(cls, root: Path) -> IgnoreRules:
        """Read the ignore files at the top of a folder.

        Raises:
            InvalidInput: One of them has a pattern that means nothing.
        """
        launch = _lines(root / ".launchignore")
        docker = [_anchored(line) for line in _lines(root / ".dockerignore")]
        rules = cls(
            _launch=_spec(launch, root / ".launchignore"),
            _named=_named(launch),
            _docker=_spec(docker, root / ".dockerignore"),
            _git=(),
            can_return=any(line.startswith("!") for line in [*launch, *docker]),
        )
        return rules.within(root, "")

    def within(self, folder: Path, prefix: str) -> IgnoreRules:
        """The rules inside a folder of the tree, which may have a `.gitignore` of its own.

        Args:
            folder: The folder.
            prefix: Its path below the top with a `/` at the end; empty for the top itself.

        Raises:
            InvalidInput: Its `.gitignore` has a pattern that means nothing.
        """
        lines = _lines(folder / ".gitignore")
        if not lines:
            return self
        return dataclasses.replace(self, _git=((prefix, _spec(lines, folder / ".gitignore")), *self._git))

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
        if self._docker.check_file(path).include:
            return True
        for prefix, spec in self._git:  # the innermost .gitignore that says anything decides
            verdict = spec.check_file(path.removeprefix(prefix)).include
            if verdict is not None:
                return verdict
        return False


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines() if file.is_file() else []


def _spec(lines: Iterable[str], file: Path) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(lines)
    except ValueError as error:
        raise InvalidInput(f"{file}: {error}") from None


def _named(lines: Iterable[str]) -> dict[str, GitIgnoreSpec]:
    """The lines `!path/name` by the name, without their `!`."""
    named: dict[str, list[str]] = {}
    for line in map(str.strip, lines):
        if line.startswith("!"):
            named.setdefault(line.rstrip("/").rpartition("/")[2].removeprefix("!"), []).append(line.removeprefix("!"))
    return {name: GitIgnoreSpec.from_lines(patterns) for name, patterns in named.items()}


def _anchored(line: str) -> str:
    """A line of `.dockerignore` in git's syntax: Docker's start at the top, git's hold at any depth."""
    line = line.strip()
    if not line or line.startswith("#"):
        return ""
    negated = line.startswith("!")
    pattern = line.removeprefix("!").strip().removeprefix("./").strip("/")
    if pattern in ("", "."):
        return ""
    return f"{'!' * negated}/{pattern}"
