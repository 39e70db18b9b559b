"""One way to say that a disk is full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launch_prefect.errors import DiskFull

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_full(where: str | Path) -> DiskFull:
    """The error that says that no space is left at `where`."""
    return DiskFull(
        f"No space is left on the disk of {where}.",
        mend="Free some space there, or set LAUNCH_HOME to a folder on a larger disk.",
    )


@contextmanager
def needing_space(where: str | Path) -> Iterator[None]:
    """Do something that writes to `where`.

    Args:
        where: The folder or store that is written, for the message.

    Raises:
        DiskFull: No space is left, or the user's quota is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(where) from error
        raise
