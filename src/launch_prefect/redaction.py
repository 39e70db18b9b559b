"""Secret values out of what a run shows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote

MASK = "********"
_SHORTEST = 4  # a shorter value would mask ordinary text


class Redactor:
    """Replaces secret values in texts.

    Args:
        values: The secret values. Values of several lines are masked line by line, as output is read by lines.
    """

    def __init__(self, values: Iterable[str] = ()) -> None:
        parts = {part for value in values for part in (value, *value.splitlines()) if len(part) >= _SHORTEST}
        ordered = sorted(parts, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def __call__(self, text: str) -> str:
        """The text with every secret value masked."""
        return self._pattern.sub(MASK, text) if self._pattern else text


_USER_INFO = re.compile(r"://([^/@\s]+)@")
_NETRC_PASSWORD = re.compile(r"\bpassword\s+(\S+)")


def secret_parts(secrets: Mapping[str, str]) -> list[str]:
    """Secret values, and what is secret within them, as it is written there and as it is meant.

    Args:
        secrets: Values by name. In an address the password is secret, or the user where it has none; in a `.netrc`
            each password.
    """
    parts = list(secrets.values())
    for value in secrets.values():
        for user_info in _USER_INFO.findall(value):
            written = user_info.partition(":")[2] or user_info
            parts += [written, unquote(written)]
        parts += _NETRC_PASSWORD.findall(value)
    return parts
