"""A server in the place of a registry, a token server or AWS: it shows what it was sent."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ASKS = {"WWW-Authenticate": 'Basic realm="x"'}


class Recorder:
    """A server that answers as it is told and remembers what it was sent.

    Args:
        status: Its answer.
        headers: Of the answer.
        body: Of the answer.
        certificate: With its key; it then speaks https.
        asks: Whether it asks first who one is.
    """

    def __init__(
        self,
        status: int,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        certificate: Path | None = None,
        asks: bool = False,
    ) -> None:
        self.seen: list[str] = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                recorder.seen.append(f"{self.command} {self.path} {dict(self.headers)}")
                unknown = asks and "Authorization" not in self.headers
                self.send_response(401 if unknown else status)
                for name, value in (ASKS if unknown else headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815 - the names are http.server's

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def has_credentials(self) -> bool:
        return any("uthorization" in each or "c2VjcmV0" in each for each in self.seen)
