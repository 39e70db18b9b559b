"""The Prefect server: a child of ours on 127.0.0.1, its settings and its readiness."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from launch_prefect.errors import LaunchError, Unreachable
from launch_prefect.server.process import Child, explain_log, private_folder, ready_or_dead, spawn, tail, until

NAME = "Prefect server"
DEFAULT_PORT = 4200
_HOST = "127.0.0.1"
_SECONDS_TO_START = 240  # a first start migrates the database; machines differ

# Settings of the operator's own that would point our server at something else.
_NOT_INHERITED = (
    "PREFECT_API_KEY",
    "PREFECT_API_DATABASE_CONNECTION_URL",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "PREFECT_SERVER_API_BASE_PATH",
    "PREFECT_UI_API_URL",
    "PREFECT_SERVER_UI_API_URL",
)


@dataclass(frozen=True)
class ServerPlan:
    """A Prefect server that is to run.

    Attributes:
        home: The state folder; the server's own is `prefect` in it.
        port: Its port on 127.0.0.1.
        database_url: SQLAlchemy's address of its database.
        log: File of its log.
    """

    home: Path
    port: int
    database_url: str
    log: Path

    @property
    def ui_url(self) -> str:
        """Address of the web page."""
        return f"http://{_HOST}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return api_address(self.port)


def api_address(port: int) -> str:
    """Address of the API of a server of ours on a port."""
    return f"http://{_HOST}:{port}/api"


def without_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a proxy is not asked for what is on this machine."""
    named = next((environ[name] for name in ("no_proxy", "NO_PROXY") if environ.get(name)), "")
    hosts = ",".join(dict.fromkeys([*filter(None, named.split(",")), "127.0.0.1", "localhost"]))
    return dict(environ) | {"NO_PROXY": hosts, "no_proxy": hosts}


def environment(plan: ServerPlan, environ: Mapping[str, str]) -> dict[str, str]:
    """The server's environment.

    Args:
        plan: The server.
        environ: The operator's environment; their `PREFECT_SERVER_…` tuning is kept.

    Returns:
        All variables.
    """
    kept = {k: v for k, v in environ.items() if k not in _NOT_INHERITED and not k.startswith("PG")}
    defaults = {
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_LOGGING_COLORS": "false",
        # Leases in memory leak their slots when the server restarts.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Agents, the UI and submissions in bulk at once; PostgreSQL takes 80.
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_POOL_SIZE": "20",
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_MAX_OVERFLOW": "20",
    }
    if not _ui_folder_writable():
        defaults["PREFECT_UI_STATIC_DIRECTORY"] = str(plan.home / "ui")
    if plan.database_url.startswith("sqlite"):
        # On SQLite the marker of late runs competes for the one write lock with every agent.
        defaults["PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED"] = "false"
    ours = {
        "PREFECT_HOME": str(plan.home / "prefect"),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": plan.database_url,
        "PREFECT_SERVER_API_HOST": _HOST,
        "PREFECT_SERVER_API_PORT": str(plan.port),
        "PREFECT_API_URL": plan.api_url,
        "PREFECT_UI_API_URL": plan.api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "PYTHONUNBUFFERED": "1",
    }
    return without_proxy(defaults | kept | ours)


def _ui_folder_writable() -> bool:
    """Whether the server can unpack its web page beside its code, as it does by default."""
    prefect = importlib.util.find_spec("prefect")
    folders = prefect.submodule_search_locations or () if prefect else ()
    return all(os.access(Path(folder) / "server", os.W_OK) for folder in folders)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port of 127.0.0.1."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except PermissionError:
            raise LaunchError(
                f"Port {port} may not be used by this user.", mend="Choose one above 1023 with --port."
            ) from None
        except OSError:
            return False
    return True


def port_taken(port: int) -> LaunchError:
    """The error of a port that something else listens on."""
    return LaunchError(
        f"Port {port} is taken by something that is not a Prefect server.",
        mend="Choose another with --port, such as --port 4201, or end what listens there.",
    )


async def answers(api_url: str, *, timeout: float = 3) -> bool:
    """Whether a Prefect API on this machine answers."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=timeout) as client:
            response = await client.get(f"{api_url}/health")
            return response.status_code == 200 and response.json() is True
    except (httpx.HTTPError, ValueError):
        return False


async def start(plan: ServerPlan, spawned: Callable[[Child], None]) -> Child:
    """Start a Prefect server and wait until it answers.

    Args:
        plan: The server.
        spawned: Told of the process as soon as there is one, so that it is ended whatever happens next.

    Returns:
        The process.

    Raises:
        LaunchError: It cannot be started; the message has its last words.
    """
    home = private_folder(plan.home / "prefect")
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", _HOST, "--port", str(plan.port)]
    # In its own folder, so that no prefect.toml, pyproject.toml or .env of the user's project configures it.
    # When `up` is killed, PostgreSQL ends too, and a server asked to end would wait for it: it is not asked.
    child = await spawn(
        NAME,
        command,
        env=environment(plan, os.environ),
        log=plan.log,
        cwd=home,
        death_signal=signal.SIGKILL,
    )
    spawned(child)
    await _wait_ready(plan, child)
    return child


async def _wait_ready(plan: ServerPlan, child: Child) -> None:
    ready = until(lambda: answers(plan.api_url), every=0.1)
    match await ready_or_dead(child, ready, timeout=_SECONDS_TO_START):
        case "dead":
            raise _explain(plan, child, f"The {NAME} {child.ended()} while starting")
        case "late":
            raise _explain(plan, child, f"The {NAME} did not answer within {_SECONDS_TO_START} seconds")


def _explain(plan: ServerPlan, child: Child, what: str) -> LaunchError:
    text = "\n".join(tail(plan.log, count=60, start=child.log_start))
    if f"Port {plan.port} is already in use" in text or "address already in use" in text:
        return port_taken(plan.port)
    known = explain_log(text, plan.home)
    if known is not None:
        return known
    return Unreachable(f"{what}. It says:\n{child.last_lines() or '  nothing'}\n", mend=f"Its log is {plan.log}.")
