"""What Docker leaves out of a build's context."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator


class DockerIgnore:
    """The lines of a `.dockerignore`, which mean what they mean to Docker.

    They differ from git's: each starts at the top of the tree, and what they exclude can be taken in again from
    inside an excluded folder.

    Args:
        lines: The lines.

    Raises:
        ValueError: One of them means nothing.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = list(_patterns(lines))
        self.can_return = any(back for back, _ in self._patterns)
        """Whether a line takes something in again."""

    def leaves_out(self, path: str) -> bool:
        """Whether a file or folder below the top is left out.

        Args:
            path: Its path, with `/`.
        """
        parts = path.strip("/").split("/")
        paths = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        for back, pattern in reversed(self._patterns):  # the last line that says anything decides
            if any(pattern.fullmatch(each) for each in paths):
                return not back
        return False


def _patterns(lines: Iterable[str]) -> Iterator[tuple[bool, re.Pattern[str]]]:
    for line in lines:
        if line.startswith("#") or not (text := line.strip()):
            continue
        back = text.startswith("!")
        text = text.removeprefix("!").strip()
        if not text:
            raise ValueError("a line `!` takes in nothing")
        text = posixpath.normpath(f"/{text}").lstrip("/")
        if not text:
            continue
        try:
            yield back, re.compile(_expression(text), re.DOTALL)
        except re.error:
            raise ValueError(f"the pattern {line.strip()!r} means nothing") from None


def _expression(pattern: str) -> str:
    """The regular expression of a pattern."""
    expression, rest = "", pattern
    while rest:
        if rest.startswith("**"):
            rest = rest[2:].removeprefix("/")
            expression += "(?:.*/)?" if rest else ".*"
            continue
        letter, rest = rest[0], rest[1:]
        if letter in "*?":
            expression += "[^/]*" if letter == "*" else "[^/]"
        elif letter == "\\":
            expression += re.escape(rest[:1] or letter)
            rest = rest[1:]
        elif letter == "[":
            inside, end, rest = rest.partition("]")
            if not end or not inside:
                raise re.error("unfinished set")
            expression += f"[{inside.replace('[', re.escape('['))}]"
        else:
            expression += re.escape(letter)
    return expression
