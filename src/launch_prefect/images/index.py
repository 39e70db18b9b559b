"""Remember which image a snapshot of code led to, so that finding it again needs no unpacking."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from launch_prefect.sources.disk import needing_space


@dataclass(frozen=True, slots=True)
class Entry:
    """What code, a base image and a platform led to.

    Attributes:
        image_key: Key of the image.
        base: Reference of the base image.
        base_id: Its id at that time.
        reason: What its environment was made from, for the log.
    """

    image_key: str
    base: str
    base_id: str
    reason: str = ""


class ImageIndex:
    """One small JSON file per entry, so that processes need no lock to share it.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, *key: str) -> Entry | None:
        """The entry of a key, or None where there is none that can be read. It is kept for longer then."""
        file = self._file(key)
        try:
            entry = Entry(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        with suppress(OSError):
            os.utime(file)
        return entry

    def put(self, entry: Entry, *key: str) -> None:
        """Keep the entry of a key.

        Raises:
            DiskFull: No space is left.
        """
        with needing_space(self._folder):
            handle, part = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(handle, "w") as file:
                    json.dump(asdict(entry), file)
                Path(part).replace(self._file(key))
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise

    def _file(self, key: tuple[str, ...]) -> Path:
        return self._folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
