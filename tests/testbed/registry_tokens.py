"""A token server for registries with token authentication: it signs what the registry trusts."""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NAME = "launch-prefect-test"


class TokenServer:
    """Gives its user tokens for everything, and everyone else tokens to pull what is below `public/`.

    Args:
        folder: Where the certificate goes that a registry has to trust.
        user: Name of the user.
        password: The user's password.
        identity: The identity token that leads to tokens as the password does.

    Attributes:
        asked: The scopes that tokens were asked for.
    """

    def __init__(self, folder: Path, user: str, password: str, identity: str) -> None:
        self.asked: list[str] = []
        self._basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        self._identity = identity
        self._key = ec.generate_private_key(ec.SECP256R1())
        certificate = make_certificate(self._key)
        self._chain = [base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()]
        self.certificate = folder / "token.pem"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.realm = f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def __enter__(self) -> TokenServer:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qs(urlsplit(self.path).query)
                who = self.headers.get("Authorization")
                self._answer(query, refused=who not in (None, tokens._basic), known=who is not None)

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                fits = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == [tokens._identity]
                self._answer(form, refused=not fits, known=fits)

            def _answer(self, wanted: dict[str, list[str]], *, refused: bool, known: bool) -> None:
                scopes = " ".join(wanted.get("scope", [])).split()
                tokens.asked += scopes
                token = "" if refused else tokens._token(scopes, known)
                body = json.dumps({} if refused else {"token": token, "access_token": token}).encode()
                self.send_response(401 if refused else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def _token(self, scopes: list[str], known: bool) -> str:
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            allowed = actions.split(",") if known else ["pull"] if name.startswith("public/") else []
            access.append({"type": kind, "name": name, "actions": allowed})
        now = int(time.time())
        claims = {"iss": NAME, "aud": NAME, "sub": "", "exp": now + 60, "nbf": now - 5, "iat": now, "access": access}
        return jwt.encode(
            claims | {"jti": uuid.uuid4().hex}, self._key, algorithm="ES256", headers={"x5c": self._chain}
        )


def make_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """A certificate of this machine's loopback address, signed by itself, for a day."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
