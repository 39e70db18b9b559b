"""What builds meet on their way: a door that stays closed, an index of packages, and folders of code to build."""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
import threading
import uuid
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from docker import DockerClient

_LOOK = 0.05


def address_for_builds(engine: DockerClient) -> str:
    """This machine's address as steps of builds see it: that of the engine's own network."""
    [config] = engine.networks.get("bridge").attrs["IPAM"]["Config"]
    return str(config.get("Gateway") or config["Subnet"].replace(".0/16", ".1"))


class Server:
    """A small web server; what is asked of it for a name that is closed waits.

    Args:
        host: Address that it listens on.
    """

    def __init__(self, host: str) -> None:
        self._changed = threading.Condition()
        self._closed: set[str] = set()
        self._waiting: list[str] = []
        self.arrived: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            do_HEAD = do_GET  # noqa: N815 - the name that the base class calls

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.host = f"{host}:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(_LOOK,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed.clear()
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def close(self, name: str) -> None:
        """Let nobody through who asks for a name."""
        self._closed.add(name)

    def open(self, name: str) -> None:
        """Let them through."""
        with self._changed:
            self._closed.discard(name)
            self._changed.notify_all()

    def waiting(self, name: str) -> int:
        """How many stand before a name now."""
        return self._waiting.count(name)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request, when it may be."""
        name = request.path.strip("/").rpartition("/")[2]
        with self._changed:
            self.arrived.append(name)
            self._waiting.append(name)
            while name in self._closed and not _has_gone(request):
                self._changed.wait(_LOOK)
            self._waiting.remove(name)
        if not _has_gone(request):
            self.respond(request, name)

    def respond(self, request: BaseHTTPRequestHandler, name: str) -> None:
        """Answer what may be answered."""
        _send(request, b"Go on.")


class Door(Server):
    """Steps of builds ask it whether they may go on."""

    def step(self, name: str) -> str:
        """A step of a Dockerfile that waits there; the name is closed from now on."""
        self.close(name)
        return f"RUN python -c \"import urllib.request as r; r.urlopen('http://{self.host}/{name}')\"\n"


class PackageIndex(Server):
    """An index of one package, `e2e-private`, for who says the password in its address."""

    def __init__(self, host: str) -> None:
        super().__init__(host)
        self.password = secrets.token_urlsafe(16)
        self.url = f"http://robot:{self.password}@{self.host}/simple"

    def respond(self, request: BaseHTTPRequestHandler, name: str) -> None:
        """A page of links, the package, or nothing without the password."""
        said = request.headers.get("Authorization", "").removeprefix("Basic ")
        if base64.b64decode(said).decode().partition(":")[2] != self.password:
            _send(request, b"Who are you?", 401)
        elif name.endswith(".whl"):
            _send(request, _wheel())
        else:
            file = "e2e_private-1.0-py3-none-any.whl"
            _send(request, f'<a href="/files/{file}#sha256={hashlib.sha256(_wheel()).hexdigest()}">{file}</a>'.encode())


def _has_gone(request: BaseHTTPRequestHandler) -> bool:
    """Whether who asks has closed the connection."""
    import select

    poll = select.poll()
    poll.register(request.connection, select.POLLRDHUP | select.POLLHUP)
    return bool(poll.poll(0))


def _send(request: BaseHTTPRequestHandler, body: bytes, status: int = 200) -> None:
    request.send_response(status)
    if status == 401:
        request.send_header("WWW-Authenticate", 'Basic realm="packages"')
    request.send_header("Content-Type", "text/html")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


def _wheel() -> bytes:
    info = "e2e_private-1.0.dist-info"
    files = {
        "e2e_private.py": "NAME = 'the private package'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: e2e-private\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # which has a time of its own: the same bytes each time
    return made.getvalue()


def code(folder: Path, files: dict[str, str]) -> Path:
    """A folder of code for which nothing was ever built.

    Args:
        folder: It; its name is the job's.
        files: Content by name.
    """
    folder.mkdir(exist_ok=True)
    for name, text in {"anew.txt": uuid.uuid4().hex, **files}.items():
        (folder / name).write_text(text)
    return folder
