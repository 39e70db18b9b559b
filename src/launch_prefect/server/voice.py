"""What `up` tells the person at the terminal; a terminal that is gone is no reason to fail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.text import Text


class Voice:
    """Lines and a spinner on a console.

    Args:
        console: The console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str, *, style: str = "") -> None:
        """One message, as it is: paths and addresses are neither marked up nor broken."""
        with suppress(OSError):
            self._console.print(Text(text, style=style), soft_wrap=True)

    def say_error(self, text: str) -> None:
        """One message that something has gone wrong."""
        self.say(text, style="red")

    def table(self, title: str, rows: Sequence[tuple[str, str]]) -> None:
        """A title and named values below it."""
        width = max(len(name) for name, _ in rows)
        self.say(title, style="bold")
        for name, value in rows:
            self.say(f"  {name:{width}}  {value}")

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """A spinner while something takes its time, where there is a terminal."""
        status = self._console.status(Text(f"{text} …"))
        with suppress(OSError):
            status.start()
        try:
            yield
        finally:
            with suppress(OSError):
                status.stop()
