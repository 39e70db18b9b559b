"""What git leaves out.

Not by pathspec, which takes `!out` for all that is below `out` as well: git looks at each file and folder by itself,
on the way down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


class GitIgnore:
    """The lines of one `.gitignore`.

    Args:
        lines: The lines.
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._patterns = [*_patterns(lines)][::-1]

    def verdict(self, path: str) -> bool | None:
        """Whether a file or folder itself is left out (True), taken in again (False), or not spoken of.

        Args:
            path: Its path below the folder of the `.gitignore`; a folder's ends with `/`.
        """
        is_folder = path.endswith("/")
        path = path.removesuffix("/")
        for leaves_out, folders_only, pattern in self._patterns:  # the last line that says anything decides
            if (is_folder or not folders_only) and pattern.fullmatch(path):
                return leaves_out
        return None


def _patterns(lines: Iterable[str]) -> Iterator[tuple[bool, bool, re.Pattern[str]]]:
    for line in lines:
        # A space at the end counts only behind a backslash.
        text = re.sub(r"(?<!\\) +$", "", line)
        if not text or text.startswith("#"):
            continue
        leaves_out = not text.startswith("!")
        text = text.removeprefix("!")
        folders_only = text.endswith("/")
        text = text.removesuffix("/")
        if not text:
            continue
        anywhere = "/" not in text
        try:
            expression = ("(?:.*/)?" if anywhere else "") + _expression(text.removeprefix("/"))
            yield leaves_out, folders_only, re.compile(expression, re.DOTALL)
        except re.error:
            continue  # git, too, takes it for a pattern that nothing matches


def _expression(pattern: str) -> str:
    """The regular expression of a pattern."""
    expression, at = "", 0
    while at < len(pattern):
        if match := re.compile(r"(?:(?<=/)|^)\*\*/").match(pattern, at):
            expression += "(?:.*/)?"
            at = match.end()
        elif at and pattern[at:] == "**" and pattern[at - 1] == "/":
            return expression + ".+"
        elif pattern[at] == "*":
            expression += "[^/]*"
            at = re.compile(r"\*+").match(pattern, at).end()  # type: ignore[union-attr] # there is one
        elif pattern[at] == "?":
            expression, at = expression + "[^/]", at + 1
        elif pattern[at] == "[":
            found = re.compile(r"\[([!^]?)(\]?(?:\[:\w+:\]|\\.|[^]\\])*)\]").match(pattern, at)
            if not found:
                raise re.error("unfinished set")
            inside = re.sub(r"\[:(\w+):\]", lambda match: _CLASSES.get(match[1], ""), found[2].replace("&", "\\&"))
            inside = re.sub(r"(?<!\\)\[", r"\\[", inside)
            inside = "\\" + inside if inside.startswith("]") else inside
            expression += f"(?!/)[{'^' if found[1] else ''}{inside}]"
            at = found.end()
        elif pattern[at] == "\\":
            if at + 1 == len(pattern):
                raise re.error("unfinished escape")
            expression, at = expression + re.escape(pattern[at + 1]), at + 2
        else:
            expression, at = expression + re.escape(pattern[at]), at + 1
    return expression


_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "xdigit": "0-9A-Fa-f",
    "space": r"\s", "punct": r"!-/:-@\\[-`{-~",
}  # fmt: skip
