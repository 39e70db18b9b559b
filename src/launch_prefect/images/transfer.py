"""The engine's pulls and pushes: its stream of progress, what breaks it off, what is worth another try."""

from __future__ import annotations

import base64
import json
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import tenacity
from rich.filesize import decimal

from launch_prefect import dockerpy
from launch_prefect.images.registry import IDENTITY_TOKEN, Credentials

_TRIES = 4
_LOOK = 0.2
_SHOW = 30.0
_BROKEN = re.compile(
    r"connection refused|connection reset|broken pipe|\bEOF\b|timeout|timed out|deadline exceeded|no such host"
    r"|server misbehaving|no route to host|network is unreachable|unexpected HTTP status: 5|unexpected http code: 5"
    r"|\b50[0234] |toomanyrequests|too many requests|blob upload (unknown|invalid)|use of closed network connection"
    r"|server closed idle connection|transport connection broken",
    re.IGNORECASE,
)
# The first word of what the engine says of a layer.
_LAYER = {"Pushed": "pushed", "Layer": "there", "Mounted": "there", "Retrying": "retrying"}
_UNAUTHORIZED = re.compile(
    r"unauthorized|no basic auth credentials|authentication required|incorrect username|access forbidden|\bdenied\b",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)


class Refusal(Exception):
    """What the engine says of a pull or push that it could not do.

    Attributes:
        reason: In its words.
        stopped: Whether it was given up because that was asked for.
    """

    def __init__(self, reason: str, *, stopped: bool = False) -> None:
        self.reason = reason.strip().rstrip(".")
        self.stopped = stopped
        super().__init__(self.reason)

    @property
    def disk_full(self) -> bool:
        """Whether the engine's disk, or the registry's, is full."""
        return bool(_FULL.search(self.reason))

    @property
    def broken(self) -> bool:
        """Whether the registry was not there, or broke off: another try may do better."""
        return not self.stopped and not self.disk_full and bool(_BROKEN.search(self.reason))

    @property
    def unauthorized(self) -> bool:
        """Whether the registry wants credentials, or others. Docker Hub says so, too, of what does not exist."""
        return bool(_UNAUTHORIZED.search(self.reason)) and "does not exist" not in self.reason


def attempts(stop: threading.Event) -> tenacity.Retrying:
    """Tries of a pull or push, until one is not broken off; the last one's refusal is raised.

    Args:
        stop: Set by another thread to give up.
    """
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(lambda error: isinstance(error, Refusal) and error.broken),
        stop=tenacity.stop_after_attempt(_TRIES) | tenacity.stop_when_event_set(stop),
        wait=tenacity.wait_exponential(0.5),
        sleep=tenacity.sleep_using_event(stop),
        reraise=True,
    )


def lines(
    client: dockerpy.docker.DockerClient,
    path: str,
    query: dict[str, str],
    login: Credentials | None,
    stop: threading.Event,
) -> Iterator[dict[str, Any]]:
    """What the engine says while it pulls or pushes.

    Args:
        client: The engine.
        path: Path of its API that is posted to.
        query: Parameters of that.
        login: Credentials for the registry.
        stop: Set by another thread to give up; the engine is told by the end of the connection.

    Raises:
        Refusal: It could not be done, or was given up.
        requests.exceptions.RequestException: The engine does not answer.
    """
    arrived: queue.SimpleQueue[dict[str, Any] | Exception | None] = queue.SimpleQueue()
    given_up = threading.Event()
    # The engine says nothing at all while the registry is silent, and nothing wakes whoever waits for it.
    reader = threading.Thread(target=_read, args=(client, path, query, login, arrived, given_up), daemon=True)
    reader.start()
    try:
        while not stop.is_set():
            try:
                item = arrived.get(timeout=_LOOK)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            if "error" in item:
                raise Refusal(str(item["error"]))
            yield item
        raise Refusal("given up", stopped=True)
    finally:
        given_up.set()


def _read(
    client: dockerpy.docker.DockerClient,
    path: str,
    query: dict[str, str],
    login: Credentials | None,
    arrived: queue.SimpleQueue[dict[str, Any] | Exception | None],
    given_up: threading.Event,
) -> None:
    api = client.api
    headers = {"X-Registry-Auth": _login(login)}
    try:
        url = f"{api.base_url}/v{api.api_version}/{path}"
        with api.post(url, params=query, headers=headers, stream=True, timeout=(api.timeout, None)) as response:
            if response.status_code >= 400:
                raise Refusal(_message(response))
            _break_off_when(given_up, response)
            for line in response.iter_lines():
                if line:
                    arrived.put(json.loads(line))
        arrived.put(None)
    except Exception as error:
        arrived.put(error)


def _break_off_when(given_up: threading.Event, response: Any) -> None:
    """End the connection, on which the engine stops what it does, also while nothing comes over it."""

    def wait() -> None:
        given_up.wait()
        with suppress(OSError, ValueError, RuntimeError):  # the last: it has ended already
            response.raw.shutdown()

    threading.Thread(target=wait, daemon=True).start()


def _message(response: Any) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {response.status_code}"


def _login(credentials: Credentials | None) -> str:
    """The header that tells the engine who we are to the registry. Empty, it does not look further."""
    fields: dict[str, str] = {}
    if credentials is not None:
        address, user, password = credentials
        who = {"identitytoken": password} if user == IDENTITY_TOKEN else {"username": user, "password": password}
        fields = who | {"serveraddress": address}
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode()


class PushProgress:
    """The few lines that a push is worth, from the many that the engine says.

    Args:
        log: Takes them.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self._log = log
        self._layers: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        self._digest = ""
        self._shown = time.monotonic()

    def take(self, line: dict[str, Any]) -> None:
        """Read what the engine says.

        Args:
            line: One piece of its progress.
        """
        layer, status = line.get("id"), str(line.get("status", ""))
        self._digest = str((line.get("aux") or {}).get("Digest") or self._digest)
        if layer is None or not status or self._layers.get(layer) == "pushed":
            return
        if status.startswith("Retrying") and self._layers.get(layer) != "retrying":
            self._log(f"The push of layer {layer} broke off; the engine tries again.")
        self._layers[layer] = _LAYER.get(status.split()[0], "waiting")
        if sent := (line.get("progressDetail") or {}).get("current"):
            self._sizes[layer] = max(sent, self._sizes.get(layer, 0))
        if time.monotonic() - self._shown > _SHOW:
            self._shown = time.monotonic()
            self._log(f"Pushing: {self._count('pushed', 'there')} of {len(self._layers)} layers, {self._sent()} so far")

    def end(self) -> str:
        """Log what has been pushed.

        Returns:
            Digest of the manifest.
        """
        pushed, there = self._count("pushed"), self._count("there")
        layers = "1 layer" if pushed == 1 else f"{pushed} layers"
        size = f", {self._sent()} unpacked" if pushed else ""
        self._log(f"Pushed {layers}{size}; {there} {'was' if there == 1 else 'were'} there already")
        return self._digest

    def _count(self, *states: str) -> int:
        return sum(state in states for state in self._layers.values())

    def _sent(self) -> str:
        return decimal(sum(size for layer, size in self._sizes.items() if self._layers[layer] != "there"))
