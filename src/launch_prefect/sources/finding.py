"""Which files of a folder a snapshot takes. None of them is read but for the beginnings that tell a secret."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from launch_prefect.errors import InvalidInput
from launch_prefect.sources.ignore import IgnoreRules, is_never_code
from launch_prefect.sources.secrets import named_secret, secret_inside


@dataclass
class Found:
    """What is in a folder.

    Attributes:
        sizes: Bytes of each file to take by its path; 0 for a link.
        left_out: Why each path that is reported as left out is not taken.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of all files to take."""
        return sum(self.sizes.values())

    def largest(self, count: int) -> tuple[tuple[str, int], ...]:
        """What takes the most space: a folder (with a `/` at the end), or what is in it where one thing is most of it.

        Args:
            count: How many to return.

        Returns:
            Paths and bytes, largest first.
        """
        children: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for path, size in self.sizes.items():
            parts = path.split("/")
            for depth in range(len(parts)):
                name = "/".join(parts[: depth + 1]) + "/" * (depth + 1 < len(parts))
                children["/".join(parts[:depth]) + "/" * (depth > 0)][name] += size
        shown = []
        for path, size in children[""].items():
            while path in children:
                name, most = max(children[path].items(), key=lambda item: item[1])
                if most < 0.9 * size:
                    break
                path, size = name, most
            shown.append((path, size))
        return tuple(sorted(shown, key=lambda item: (-item[1], item[0]))[:count])


def find(root: Path, dockerfile: str | None = None) -> Found:
    """What a snapshot of a folder takes, and what it reports as left out.

    Args:
        root: The folder, its real path.
        dockerfile: See `IgnoreRules.of`.

    Raises:
        InvalidInput: An ignore file is not valid, or a link leaves the folder.
        OSError: A folder or file cannot be read.
    """
    found = Found()
    ahead = [(root, "", IgnoreRules.of(root, dockerfile))]
    while ahead:
        folder, prefix, rules = ahead.pop()
        for item in folder.iterdir():
            path = prefix + item.name
            mode = item.lstat().st_mode
            if stat.S_ISDIR(mode):
                if _enters(root, item, path, rules, found):
                    ahead.append((item, path + "/", rules.within(item, path + "/")))
            elif not is_never_code(item):
                _add(root, item, path, rules, found)
    return found


def _enters(root: Path, folder: Path, path: str, rules: IgnoreRules, found: Found) -> bool:
    if is_never_code(folder):
        return False
    secret = named_secret(Path(path))
    if secret and not rules.wants_secret(path + "/"):
        found.left_out[path] = f"it may hold {secret}"
        return False
    return rules.can_return or not rules.leave_out(path + "/")


def _add(root: Path, file: Path, path: str, rules: IgnoreRules, found: Found) -> None:
    status = file.lstat()
    secret = named_secret(Path(path))
    if not secret and rules.leave_out(path):
        return
    secret = secret or secret_inside(file)
    if secret and not rules.wants_secret(path):
        found.left_out[path] = f"it may hold {secret}"
    elif rules.leave_out(path):
        return
    elif stat.S_ISLNK(status.st_mode):
        _check_link(root, file, path)
        found.sizes[path] = 0
    elif stat.S_ISREG(status.st_mode):
        found.sizes[path] = status.st_size
    else:
        found.left_out[path] = f"it is {_kind(status.st_mode)}"


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}
    return kinds.get(stat.S_IFMT(mode), "no file")


def _check_link(root: Path, link: Path, path: str) -> None:
    """On this disk it must not leave the folder either, by way of something that is not taken."""
    target = os.readlink(link)  # noqa: PTH115 - as written
    written = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120 - as written
    real = Path(os.path.realpath(link))
    if os.path.isabs(target) or written.split("/")[0] == ".." or not real.is_relative_to(root):  # noqa: PTH117
        raise InvalidInput(
            f"The link {path} leads to {target}, outside the folder.",
            mend="Put what it leads to into the folder, make the link relative, or name it in .launchignore.",
        )
