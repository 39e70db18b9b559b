"""Secret values out of what a run shows."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
