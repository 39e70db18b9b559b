"""Git servers on this machine: git's own http-backend behind TLS, with tokens, large files and faults; and an sshd.

Both serve the bare repositories of one folder. Nothing here stands in for git: its clients speak to its server code.
"""

from __future__ import annotations

import base64
import getpass
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

HTTP_BACKEND = Path("/usr/lib/git-core/git-http-backend")
SSHD = Path("/usr/sbin/sshd")
_IDENTITY = {
    "GIT_AUTHOR_NAME": "Tester", "GIT_AUTHOR_EMAIL": "tester@example.com",
    "GIT_COMMITTER_NAME": "Tester", "GIT_COMMITTER_EMAIL": "tester@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
}  # fmt: skip


def git(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Run git as its user does; its output without the last line's end."""
    done = subprocess.run(
        ["git", *arguments], cwd=cwd, env=os.environ | _IDENTITY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {' '.join(map(str, arguments))}: {done.stderr}"
    return done.stdout.rstrip("\n")


class Repository:
    """A bare repository on the servers, and a work tree that pushes to it.

    Args:
        root: Folder that the servers serve.
        work: Folder for work trees.
        path: Path of the repository on the servers, such as `team/app.git`.
    """

    def __init__(self, root: Path, work: Path, path: str) -> None:
        self.path = path
        self.bare = root / path
        self.folder = work / path.removesuffix(".git")
        git("init", "--bare", "--quiet", "--initial-branch=main", self.bare)
        git("-C", self.bare, "config", "http.receivepack", "false")
        git("init", "--quiet", "--initial-branch=main", self.folder)
        git("remote", "add", "origin", self.bare, cwd=self.folder)

    def commit(self, files: dict[str, str | bytes], *, push: str | None = "main") -> str:
        """Write files, commit everything, push; the commit's SHA."""
        for name, content in files.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "Work")
        if push:
            self.git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{push}")
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str | Path) -> str:
        """Run git in the work tree."""
        return git(*arguments, cwd=self.folder)


@dataclass
class Faults:
    """What goes wrong at the https server from now on.

    Attributes:
        cut_after: Bytes of a pack after which the connection is cut; None to send all of it.
        cuts: How many more packs are cut.
        stall: The server takes a request for a pack and sends nothing.
        slow: Seconds that it rests before each eighth of a pack.
        status: It answers everything with this.
        redirect: It sends everybody there; `{path}` takes the path.
    """

    cut_after: int | None = None
    cuts: int = 0
    stall: bool = False
    slow: float = 0
    status: int | None = None
    redirect: str | None = None


@dataclass
class Request:
    """One request that the https server was sent."""

    path: str
    authorization: str
    sent: int = 0


@dataclass
class HttpsServer:
    """`git http-backend` behind TLS.

    Attributes:
        root: Folder of bare repositories.
        folder: Folder for its certificate.
        token: What the password of a request has to be; None to let everybody in.
    """

    root: Path
    folder: Path
    token: str | None = None
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.certificate = self.folder / "certificate.pem"
        key = self.folder / "key.pem"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout", key, "-out", self.certificate,
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self.ending = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._server.context = context
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reset(self) -> None:
        """Forget requests and faults."""
        self.faults = Faults()
        self.requests.clear()

    @property
    def sent(self) -> int:
        """Bytes of all answers."""
        return sum(request.sent for request in self.requests)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    owner: HttpsServer
    context: ssl.SSLContext

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        self.request.settimeout(60)
        self.request = self.server.context.wrap_socket(self.request, server_side=True)
        super().setup()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        owner, faults = self.server.owner, self.server.owner.faults
        self.log = Request(self.path, self.headers.get("Authorization", ""))
        owner.requests.append(self.log)
        body = self._body()
        if faults.redirect:
            self._send(302, [("Location", faults.redirect.format(path=self.path))], b"")
        elif faults.status:
            self._send(faults.status, [], b"The server has other things to do.")
        elif owner.token is not None and not self._knows(owner.token):
            self._send(401, [("WWW-Authenticate", 'Basic realm="git"')], b"Who are you?")
        elif "/info/lfs/objects/" in self.path:
            self._large_files(body)
        else:
            self._backend(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _knows(self, token: str) -> bool:
        kind, _, value = self.headers.get("Authorization", "").partition(" ")
        return kind == "Basic" and base64.b64decode(value).decode().partition(":")[2] == token

    def _large_files(self, body: bytes) -> None:
        """git-lfs's batch protocol, and the objects themselves."""
        owner = self.server.owner
        repository, _, rest = self.path.lstrip("/").partition("/info/lfs/objects/")
        objects = owner.root / repository / "lfs" / "objects"
        if rest != "batch":
            self._send(200, [], (objects / rest[:2] / rest[2:4] / rest).read_bytes())
            return
        answers = []
        for wanted in json.loads(body)["objects"]:
            oid = wanted["oid"]
            if (objects / oid[:2] / oid[2:4] / oid).is_file():
                href = f"{owner.url}/{repository}/info/lfs/objects/{oid}"
                header = {"Authorization": self.headers.get("Authorization", "")}
                answers.append(wanted | {"actions": {"download": {"href": href, "header": header}}})
            else:
                answers.append(wanted | {"error": {"code": 404, "message": "Object does not exist on the server"}})
        answer = json.dumps({"transfer": "basic", "objects": answers}).encode()
        self._send(200, [("Content-Type", "application/vnd.git-lfs+json")], answer)

    def _backend(self, body: bytes) -> None:
        faults = self.server.owner.faults
        path, _, query = self.path.partition("?")
        env = {
            "PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(self.server.owner.root), "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path, "QUERY_STRING": query, "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""), "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        done = subprocess.run([HTTP_BACKEND], input=body, env=env, capture_output=True, check=False)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        is_pack = b"packfile" in answer[:4096] or b"PACK" in answer[:4096]
        if is_pack and faults.stall:
            self._start(status, headers, len(answer))
            self.server.owner.ending.wait(60)
            self.close_connection = True
        elif is_pack and faults.cut_after is not None and faults.cuts > 0:
            faults.cuts -= 1
            self._start(status, headers, len(answer))
            self._write(answer[: faults.cut_after])
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif is_pack and faults.slow:
            self._start(status, headers, len(answer))
            size = len(answer) // 8 + 1
            for start in range(0, len(answer), size):
                self.server.owner.ending.wait(faults.slow)
                self._write(answer[start : start + size])
        else:
            self._send(status, headers, answer)

    def _send(self, status: int, headers: list[tuple[str, ...]], body: bytes) -> None:
        self._start(status, headers, len(body))
        self._write(body)

    def _start(self, status: int, headers: list[tuple[str, ...]], length: int) -> None:
        self.send_response(status)
        for name, value in headers:
            if name not in ("Status", "Content-Length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _write(self, body: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(body)
            self.wfile.flush()
            self.log.sent += len(body)


@dataclass
class SshServer:
    """OpenSSH's sshd as this user, which lets one key in.

    Attributes:
        root: Folder of bare repositories.
        folder: Folder for its keys and settings.
    """

    root: Path
    folder: Path

    def __enter__(self) -> Self:
        for name in ("host_key", "key", "other_key"):
            made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.folder / name]
            subprocess.run(made, check=True)
        shutil.copy(self.folder / "key.pub", self.folder / "authorized_keys")
        self.folder.chmod(0o700)
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd of root confines those not yet let in
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPasswordAuthentication no\nUsePAM no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nStrictModes no\nLogLevel ERROR\n"
            "SetEnv GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*\n"
        )
        self._process = subprocess.Popen([SSHD, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
        self.url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.root}"
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "sshd has ended"
            assert time.monotonic() < deadline, "sshd does not answer"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(10)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    @property
    def key(self) -> str:
        """The private key that is let in."""
        return (self.folder / "key").read_text()

    @property
    def other_key(self) -> str:
        """A private key that is not."""
        return (self.folder / "other_key").read_text()


class GitServers:
    """A folder of repositories, served by https and by ssh where these are installed."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="launch-git-servers-"))
        self.root = self.folder / "served"
        self._names = 0

    def repository(self, name: str | None = None) -> Repository:
        """A new, empty repository."""
        self._names += 1
        path = name or f"team/repository-{self._names}.git"
        return Repository(self.root, self.folder / "work", path)

    def part(self, name: str) -> Path:
        """A folder for a server of its own."""
        folder = self.folder / name
        folder.mkdir()
        return folder

    def __enter__(self) -> Self:
        self.root.mkdir()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder)
