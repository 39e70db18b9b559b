"""Becomes a command that does not outlive the process that started it.

Run as a script, `python -I -S child.py PARENT SIGNAL UID GID COMMAND...`, with nothing but the standard library: what
has to be set between fork and exec is set here, in a fresh process, rather than in a `preexec_fn` that could deadlock
in a program with threads. The process id stays the same.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS = 28
_SECBIT_NO_SETUID_FIXUP = 1 << 2
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Set the signal for the parent's death and the user, then become the command."""
    parent, death_signal, uid, gid = (int(text) for text in arguments[:4])
    command = arguments[4:]
    # Ignored signals stay ignored across exec; Python ignores two, a shell's `&` and nohup two more.
    for name in ("SIGPIPE", "SIGXFSZ", "SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    if uid >= 0:
        become(uid, gid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit("The process that started this one has ended.")
    try:
        os.execvp(command[0], command)  # noqa: S606
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


def become(uid: int, gid: int) -> None:
    """Change from root to another user who may still pass through root's private folders.

    PostgreSQL refuses to run as root, and a virtual environment or a state folder below `/root` or a private
    temporary folder cannot be reached by another user. Rather than open those folders to everybody, the process keeps
    root's right to pass them (CAP_DAC_OVERRIDE), where root has it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux":
        # PostgreSQL asks access(2) whether it may run its own programs; without this it answers for the bare user.
        libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP, 0, 0, 0)
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        if _keep_only(libc, 1 << _CAP_DAC_OVERRIDE):
            libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)
        elif not _keep_only(libc, 0):
            sys.exit("The rights of root cannot be given up.")


def _keep_only(libc: ctypes.CDLL, rights: int) -> bool:
    """Give up every capability but these; false where root itself lacks one of them."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(rights, rights, rights, 0, 0, 0)  # effective, permitted, inheritable
    return bool(libc.capset(header, sets) == 0)


if __name__ == "__main__":
    main(sys.argv[1:])
