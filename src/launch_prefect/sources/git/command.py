"""Run git by GitPython: in an environment made from nothing, and ended with its children when nobody waits for it."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launch_prefect.errors import LaunchError
from launch_prefect.settings import LaunchSettings
from launch_prefect.sources.git.credentials import GitCredentials
from launch_prefect.sources.git.urls import server_of

if TYPE_CHECKING:  # it cannot be imported where there is no git
    from git.cmd import Git

STALLED_AFTER = 30
"""Seconds after which a server that sends nothing is given up."""
SILENT_AFTER = 30.0
"""Seconds without a word of git itself after which it is ended: curl's limit begins only when a connection stands."""
TOLD_AFTER = 10.0
"""Seconds without a word of git after which whoever waits is told."""

_OLDEST = (2, 31)  # the first that takes its configuration from the environment
_PASSED = frozenset({"PATH", "HOME", "TMPDIR", "USER", "LOGNAME"})
_PASSED_TO_REMOTE = frozenset(
    {"XDG_CONFIG_HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH"}
)
_PROXIES = frozenset({"http_proxy", "https_proxy", "no_proxy", "all_proxy"})
_LOOK, _GRACE = 0.1, 0.5

# Without hooks, and without a process that goes on when git has ended. Objects are checked as they arrive; what old
# tools wrote wrong and does no harm is let through.
_ALWAYS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.quotePath": "false",
    "gc.autoDetach": "false",
    "maintenance.autoDetach": "false",
    "protocol.version": "2",
    "submodule.recurse": "false",
    "fetch.fsckObjects": "true",
} | {
    f"fetch.fsck.{harmless}": "ignore"
    for harmless in (
        "zeroPaddedFilemode", "badTimezone", "badDate", "badDateOverflow", "zeroPaddedDate", "missingSpaceBeforeDate",
        "missingSpaceBeforeEmail", "missingNameBeforeEmail", "missingEmail", "badEmail", "missingTaggerEntry",
        "badFilemode", "nullSha1",
    )
}  # fmt: skip

# Asked by git only for the server that its setting names. The shell reads both from its environment.
_HELPER = (
    '!f() { if test "$1" = get; then '
    'printf \'username=%s\\npassword=%s\\n\' "$LAUNCH_GIT_USERNAME" "$LAUNCH_GIT_TOKEN"; fi; }; f'
)


class GivenUp(LaunchError):
    """Git was stopped because nobody waits for it any more."""

    exit_code = 1


class Silent(Exception):
    """Git was ended because it had said nothing for `SILENT_AFTER`."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How git ended.

    Attributes:
        code: Exit code.
        out: Its output.
        err: What it said on standard error.
    """

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Its output as text, without the last line's end. Names of files that are no UTF-8 survive."""
        return os.fsdecode(self.out).rstrip("\n")


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    feed: bytes | None = None,
    stop: threading.Event | None = None,
    silent: Callable[[], None] | None = None,
) -> Ended:
    """Run git to its end.

    Args:
        arguments: Its arguments; no secret may be among them.
        env: Its whole environment, but for the language, which is English.
        cwd: Its working folder.
        feed: Its standard input.
        stop: Set by another thread to end it and its children.
        silent: For a git that is to be ended where it says nothing: called once after `TOLD_AFTER` of that.

    Raises:
        GivenUp: `stop` was set.
        Silent: It said nothing for `SILENT_AFTER`, and `silent` was given.
        LaunchError: This machine has no git, or one too old.
    """
    _check_git()
    from git.cmd import Git

    # GitPython adds to this process's environment; env(1) takes away all that is not to be seen.
    hidden = [part for name in os.environ if name not in env for part in ("-u", name)]
    process = Git(cwd).execute(
        ["env", *hidden, "git", *arguments],
        subprocess.PIPE if feed is not None else None,
        as_process=True,
        env=env,
        start_new_session=True,
    )
    try:
        out, err = _wait(process, feed, stop, silent)
    except BaseException:
        _end(process)
        raise
    return Ended(process.returncode, out, err.decode(errors="replace"))


def _wait(
    process: Git.AutoInterrupt, feed: bytes | None, stop: threading.Event | None, silent: Callable[[], None] | None
) -> tuple[bytes, bytes]:
    said, last, told = 0, time.monotonic(), False
    while True:
        if stop is not None and stop.is_set():
            raise GivenUp("Git was stopped, as nobody waits for it any more.")
        try:
            out, err = process.communicate(feed, timeout=_LOOK)
            return out, err
        except subprocess.TimeoutExpired as so_far:
            feed = None  # it is being written already
            length = len(so_far.output or b"") + len(so_far.stderr or b"")
        if length > said:
            said, last = length, time.monotonic()
        silence = time.monotonic() - last
        if silent is None:
            continue
        if silence >= TOLD_AFTER and not told:
            told = True
            silent()
        if silence >= SILENT_AFTER:
            raise Silent


def _end(process: Git.AutoInterrupt) -> None:
    """End the process group: SIGTERM, upon which git removes what is half-written, then SIGKILL."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sign)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=_GRACE)


def _check_git() -> None:
    mend = "Install git {}.{} or newer on this machine; on Debian: apt-get install git.".format(*_OLDEST)
    if shutil.which("git") is None:  # GitPython cannot be imported then
        raise LaunchError("This machine has no git.", mend=mend)
    from git.cmd import Git

    version = Git().version_info
    if version < _OLDEST:
        raise LaunchError(f"This machine's git is too old: {'.'.join(map(str, version))}.", mend=mend)


def has_lfs() -> bool:
    """Whether git-lfs is installed."""
    return shutil.which("git-lfs") is not None


def configured(settings: Mapping[str, str] | Sequence[tuple[str, str]]) -> dict[str, str]:
    """Variables that give git its settings: ours, and more."""
    more = settings.items() if isinstance(settings, Mapping) else settings
    pairs = [*_ALWAYS.items(), *more]
    variables = {"GIT_CONFIG_COUNT": str(len(pairs))}
    for number, (name, value) in enumerate(pairs):
        variables |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return variables


def local_environment(settings: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a git that reaches nothing, and to which this machine's configuration means nothing.

    Args:
        settings: Settings of git beside those that always hold.
    """
    return _passed(_PASSED) | {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_TERMINAL_PROMPT": "0",
        **configured(settings or {}),
    }


def users_environment() -> dict[str, str]:
    """The environment of a git that looks at its user's own work tree, with its user's configuration."""
    return _passed(_PASSED | {"XDG_CONFIG_HOME"}) | {
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_TERMINAL_PROMPT": "0",
        **configured({}),
    }


@contextmanager
def remote_environment(
    url: str,
    launch: LaunchSettings,
    credentials: GitCredentials | None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[dict[str, str]]:
    """The environment of a git that speaks to a server, which is its remote `origin`.

    Args:
        url: Address of the repository.
        launch: Where known hosts are kept, and which certificates are trusted.
        credentials: For its server; None where this machine's own configuration serves.
        settings: Settings of git beside those that always hold.
    """
    env = _passed(_PASSED | _PASSED_TO_REMOTE)
    authority = launch.ca_bundle or env.get("GIT_SSL_CAINFO") or env.get("SSL_CERT_FILE")
    if authority:
        env["GIT_SSL_CAINFO"] = str(authority)
    pairs = {
        "remote.origin.url": url,
        "http.lowSpeedLimit": "1",
        "http.lowSpeedTime": str(STALLED_AFTER),
        "lfs.activitytimeout": str(STALLED_AFTER),
        "lfs.dialtimeout": str(STALLED_AFTER),
        "lfs.tlstimeout": str(STALLED_AFTER),
        "lfs.basictransfersonly": "true",
        **(settings or {}),
    }
    env |= {
        "GIT_ALLOW_PROTOCOL": "https:ssh",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "",
        # what the mirror is kept in may lie in a work tree of somebody's
        "GIT_CEILING_DIRECTORIES": str(launch.folder("git").parent),
    }
    if credentials is None or credentials.token is None:
        with _ssh(url, launch, credentials) as ssh:
            yield env | ssh | configured(pairs)
        return
    scheme, host, port = server_of(url)
    server = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    yield env | {
        "LAUNCH_GIT_USERNAME": credentials.username or ("x-token-auth" if "bitbucket" in host else "oauth2"),
        "LAUNCH_GIT_TOKEN": credentials.token,
        # the empty one takes away this machine's own
        **configured([*pairs.items(), *((f"credential.{server}.helper", helper) for helper in ("", _HELPER))]),
    }


def _passed(names: frozenset[str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name in names or name.lower() in _PROXIES}


@contextmanager
def _ssh(url: str, launch: LaunchSettings, credentials: GitCredentials | None) -> Iterator[dict[str, str]]:
    if server_of(url)[0] != "ssh":
        yield {}
        return
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "10",
        "ServerAliveCountMax": str(STALLED_AFTER // 10),
        "ControlMaster": "no",  # one that stays would keep our pipes open
    }
    if credentials is None or credentials.ssh_key is None:
        own = run(["config", "--get", "core.sshCommand"], env=users_environment(), cwd=launch.folder("git"))
        yield {} if own.text else {"GIT_SSH_COMMAND": _ssh_command(options)}
        return
    known = launch.folder("git") / "known_hosts"
    options |= {
        "ControlPath": "none",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": f'"{known}"',
    }
    memory = Path("/dev/shm")  # noqa: S108 - a key that is left there by a kill does not outlive the machine
    with tempfile.NamedTemporaryFile(
        "w", prefix="launch-key-", dir=memory if os.access(memory, os.W_OK) else None
    ) as file:
        file.write(credentials.ssh_key)
        file.flush()
        yield {"GIT_SSH_COMMAND": _ssh_command(options, "-i", file.name), "GIT_SSH_VARIANT": "ssh"}


def _ssh_command(options: Mapping[str, str], *more: str) -> str:
    return shlex.join(["ssh", *more, *(part for pair in options.items() for part in ("-o", "=".join(pair)))])
