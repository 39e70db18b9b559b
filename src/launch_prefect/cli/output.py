"""What commands print: tables and facts for people, JSON for programs, errors and notes on standard error."""

from __future__ import annotations

import json
import math
import sys
import textwrap
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

_UNBROKEN = 100_000  # columns where no terminal shows the output: a program reads it, and lines stay whole

Json = Annotated[bool, Parameter(name="--json", negative="")]


class _Console(Console):
    """A console that prints what it is given: users' texts are never markup."""

    def __init__(self, *, stderr: bool) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False)

    @property
    def size(self) -> ConsoleDimensions:
        size = super().size
        return size if self.is_terminal else ConsoleDimensions(_UNBROKEN, size.height)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self._width, self._height = size


out = _Console(stderr=False)
err = _Console(stderr=True)

_STYLES = {
    "Completed": "green", "Running": "cyan", "Failed": "red", "Crashed": "red", "TimedOut": "red",
    "Cancelled": "yellow", "Cancelling": "yellow", "ok": "green", "warning": "yellow", "problem": "red",
    "unreachable": "red",
}  # fmt: skip


def show_error(message: str, mend: str = "") -> None:
    """An error on standard error: what is wrong, and on a line of its own what to do."""
    text = Text("Error: ", style="bold red").append(message.rstrip(), style="not bold default")
    err.print(text, soft_wrap=True)
    if mend:
        err.print(Text(mend), soft_wrap=True)


def note(message: str) -> None:
    """A remark on standard error, where it is in no program's way."""
    err.print(Text("Note: ", style="yellow").append(message, style="default"), soft_wrap=True)


def say(message: str) -> None:
    """A line for people on standard output."""
    out.print(Text(message), soft_wrap=True)


def working(message: str) -> AbstractContextManager[Any]:
    """A spinner while something takes its time, where standard error is a terminal."""
    return err.status(Text(f"{message} …"))


def coloured(word: str) -> Text:
    """A state or a level in its colour."""
    return Text(word, style=_STYLES.get(word, ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, empty: str = "There are none.") -> None:
    """A table on standard output.

    Args:
        columns: Headings.
        rows: Cells.
        empty: What to say, on standard error, where there are no rows.
    """
    listing = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for n, column in enumerate(columns):
        listing.add_column(column, overflow="fold", no_wrap=n == 0)
    for row in rows:
        listing.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    if listing.row_count:
        out.print(listing)
    else:
        err.print(empty)


def facts(rows: Iterable[tuple[str, str | Text | None]], *, title: str | Text = "") -> None:
    """Named values, one a line; those without a value are left out."""
    shown = [(name, value if isinstance(value, Text) else Text(value)) for name, value in rows if value]
    if title:
        out.print(Text(title, style="bold") if isinstance(title, str) else title, soft_wrap=True)
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        for n, line in enumerate(value.split("\n", allow_blank=True)):
            out.print(Text.assemble((f"  {name if n == 0 else '':{width}}  ", "dim"), line), soft_wrap=True)


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """A value as JSON on standard output."""
    sys.stdout.write(json.dumps(_plain(value), indent=indent, ensure_ascii=False) + "\n")


async def print_json_list(values: AsyncIterable[Any]) -> None:
    """Values as a JSON list on standard output, each as it comes: they may be too many to hold."""
    before = "["
    async for value in values:
        text = json.dumps(_plain(value), indent=2, ensure_ascii=False)
        sys.stdout.write(f"{before}\n{textwrap.indent(text, '  ')}")
        before = ","
    sys.stdout.write("[]\n" if before == "[" else "\n]\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"  # JSON has no such numbers
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Iterable):
        return [_plain(inner) for inner in value]
    return str(value)


def moment(at: datetime | None) -> str:
    """A time as the clock on the wall shows it."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def ago(at: datetime | None) -> str:
    """How long ago a time was."""
    return f"{duration(datetime.now(UTC) - at)} ago" if at else "never"


def duration(length: timedelta | None) -> str:
    """A length of time: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if length is None:
        return ""
    seconds = max(0.0, length.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(n for n, (_, size) in enumerate(units) if whole >= size)
    words: list[str] = []
    for unit, size in units[first : first + 2]:
        count, whole = divmod(whole, size)
        if count or not words:
            words.append(f"{count} {unit}")
    return " ".join(words)


def number(value: float) -> str:
    """A metric's value, short and without losing what matters."""
    return str(value) if isinstance(value, int) else f"{value:.6g}"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
