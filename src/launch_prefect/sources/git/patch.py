"""Changes that were not committed, in the code store."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from launch_prefect.errors import InvalidInput
from launch_prefect.sources.disk import needing_space
from launch_prefect.sources.secrets import named_secret
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore

_FILE = "changes.patch"
_CHANGED_FILE = re.compile(rb'(?:diff --git .* "?b/(?P<path>.*?)"?)$')
_PRIVATE_KEY = re.compile(rb"[-+ ]-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")


def keep_patch(patch: bytes, store: CodeStore) -> str:
    """Keep changes in the code store.

    Args:
        patch: What `work_tree` found.
        store: Where it is kept.

    Returns:
        Digest of the snapshot that holds it, for `GitSource.patch`.

    Raises:
        InvalidInput: It holds a private key, or changes a file that holds secrets.
        DiskFull: No space is left.
        Unreachable: The store does not answer.
    """
    _check(patch)
    with needing_space(tempfile.gettempdir()), tempfile.TemporaryDirectory(prefix="launch-patch-") as folder:
        (Path(folder) / _FILE).write_bytes(patch)
        return take(Path(folder), store).digest


def read_patch(digest: str, store: CodeStore, scratch: Path) -> bytes:
    """Changes that `keep_patch` has kept.

    Args:
        digest: Digest of their snapshot.
        store: Where they are kept.
        scratch: A folder to unpack them in.

    Raises:
        NotFound, InvalidInput, DiskFull, Unreachable: See `CodeStore.unpack`.
    """
    folder = scratch / "patch"
    store.unpack(digest, folder)
    file = folder / _FILE
    if not file.is_file():
        raise InvalidInput(f"The snapshot {digest} holds no changes to a commit.", mend="Submit the job again.")
    return file.read_bytes()


def _check(patch: bytes) -> None:
    """A snapshot would leave such a file out; of a patch nothing may be missing."""
    changed = ""
    for line in patch.split(b"\n"):
        if match := _CHANGED_FILE.match(line):
            changed = match["path"].decode(errors="replace")
            for above in (Path(changed), *Path(changed).parents):
                if why := named_secret(above):
                    raise _refused(changed, f"may hold {why}")
        elif _PRIVATE_KEY.match(line):
            raise _refused(changed, "hold a private key")


def _refused(path: str, reason: str) -> InvalidInput:
    return InvalidInput(
        f"The changes to {path} {reason}, and would be kept in the code store.",
        mend="Take them out of git (git rm --cached), and hand secrets to the job as blocks.",
    )
