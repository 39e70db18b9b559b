"""The signals that end `up`."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_ONE_KEYSTROKE = 0.5  # seconds: a terminal and a wrapper such as make or uv may both pass on one Ctrl-C


@dataclass
class Ending:
    """What the person at the terminal, or the system, has asked for.

    Attributes:
        asked: Everything is to end.
        hurry: Everything is to end at once.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _first: float = 0.0

    def signalled(self, number: int) -> None:
        """Take note of a signal: the first ends, a later one hurries."""
        if not self.asked.is_set():
            self._first = time.monotonic()
            self.asked.set()
        elif number != signal.SIGHUP and time.monotonic() - self._first > _ONE_KEYSTROKE:
            self.hurry.set()


@contextmanager
def listening() -> Iterator[Ending]:
    """Take SIGINT, SIGTERM and SIGHUP as wishes to end, inside."""
    ending = Ending()
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # under nohup it is to stay ignored
        numbers.append(signal.SIGHUP)
    for number in numbers:
        loop.add_signal_handler(number, ending.signalled, number)
    try:
        yield ending
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
