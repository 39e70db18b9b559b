"""What could not be built, so that the same content is not tried again unasked."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from launch_prefect.errors import BuildFailed
from launch_prefect.redaction import Redactor, secret_parts

Result = TypeVar("Result")

REMEMBERED_SECONDS = 3600
"""After so long it is tried again all the same: what was missing in a package index may be there by then."""

# What passes: the same content may well be built the next time.
_PASSING = re.compile(
    r"temporary failure in name resolution|could not resolve host|connection (?:reset|refused|timed out|aborted|broken)"
    r"|network is unreachable|no route to host|\btimed[ -]out\b|tls handshake|unexpected eof|incompleteread"
    r"|\b50[0234]:? (?:internal )?(?:server error|bad gateway|service (?:temporarily )?unavailable|gateway time)"
    r"|too many requests|newconnectionerror|error sending request|dns error|i/o timeout",
    re.IGNORECASE,
)


def digest_of(secrets: Mapping[str, str]) -> str:
    """What tells one set of secrets from another; only digests of it, with much else, are ever kept."""
    return hashlib.sha256(json.dumps(dict(secrets), sort_keys=True).encode()).hexdigest()


class Failures:
    """Failed builds of this machine, one small file each.

    Args:
        folder: Where the files are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def unless_failed(
        self,
        key: tuple[str, ...],
        work: Callable[[], Awaitable[Result]],
        *,
        secrets: Mapping[str, str],
        anyway: bool = False,
    ) -> Result:
        """Do something, unless the same has failed not long ago.

        Args:
            key: What it is done with.
            work: Does it.
            secrets: What it is done with, too: with another secret it may succeed. None is kept.
            anyway: Do it all the same.

        Raises:
            BuildFailed: It failed, now or before; the message says which.
        """
        key, redact = (*key, digest_of(secrets)), Redactor(secret_parts(secrets))
        if not anyway:
            self._refuse(key)
        try:
            result = await work()
        except BuildFailed as error:
            error = BuildFailed(redact(error.message), mend=redact(error.mend), passing=error.passing)
            if not error.passing and not _PASSING.search(error.message):
                self._remember(key, error)
            raise error from None
        self._file(key).unlink(missing_ok=True)
        return result

    def _refuse(self, key: tuple[str, ...]) -> None:
        try:
            record = json.loads(self._file(key).read_text())
            ago, message = time.time() - float(record["at"]), str(record["message"])
        except (OSError, ValueError, KeyError, TypeError):
            return
        if not 0 <= ago < REMEMBERED_SECONDS:
            return
        when = f"{ago:.0f} seconds" if ago < 120 else f"{ago / 60:.0f} minutes"
        raise BuildFailed(
            f"The same content could not be built {when} ago (for this run or another), and was not tried again. "
            f"{message}",
            mend="Correct what the lines above name, or submit with --rebuild to try it again.",
        )

    def _remember(self, key: tuple[str, ...], error: BuildFailed) -> None:
        with suppress(OSError):  # a disk that is full must not hide why the build failed
            file = self._file(key)
            part = file.with_suffix(f".{time.monotonic_ns()}.part")
            part.touch(mode=0o600)
            part.write_text(json.dumps({"at": time.time(), "message": error.message}))
            part.replace(file)

    def _file(self, key: tuple[str, ...]) -> Path:
        return self._folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"
