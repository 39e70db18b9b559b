"""Packages made on the spot, and a server of them: wheels behind a password, a channel of conda."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str = "1.0") -> None:
    """Put a wheel of one module, and the pages that lead to it, into the folder of a package index.

    Args:
        folder: The index; pip is given its subfolder `simple`.
        name: Name of the package and of its module, which has `__version__`.
        version: Its version.
    """
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    (page := folder / "simple" / name).mkdir(parents=True, exist_ok=True)
    wheel = f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(page / wheel, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    (page / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')


def make_channel(folder: Path, packages: Mapping[str, Mapping[str, bytes | Path]]) -> None:
    """A channel of conda with packages for every platform.

    Args:
        folder: The channel.
        packages: `name-version` → path in the environment → content, or where a link leads.
    """
    (noarch := folder / "noarch").mkdir(parents=True)
    records = {}
    for package, files in packages.items():
        name, _, version = package.rpartition("-")
        record = {"name": name, "version": version, "build": "0", "build_number": 0, "depends": [], "subdir": "noarch"}
        record["noarch"] = "generic"
        content = _conda_package(record, files)
        (noarch / f"{package}-0.tar.bz2").write_bytes(content)
        records[f"{package}-0.tar.bz2"] = record | {
            "sha256": hashlib.sha256(content).hexdigest(),
            "md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            "size": len(content),
        }
    repodata = {"info": {"subdir": "noarch"}, "packages": records, "packages.conda": {}, "repodata_version": 1}
    (noarch / "repodata.json").write_text(json.dumps(repodata))


def python_package(interpreter: str) -> dict[str, bytes | Path]:
    """Content of a package `python` for a channel: a virtual environment of an interpreter that is there already.

    Args:
        interpreter: Path of the interpreter.
    """
    home = str(Path(interpreter).parent)
    config = f"home = {home}\ninclude-system-site-packages = false\n"
    return {"pyvenv.cfg": config.encode(), "bin/python": Path(interpreter)}


@contextmanager
def served(folder: Path, address: str, password: str | None = None) -> Iterator[str]:
    """Serve a folder over HTTP.

    Args:
        folder: What is served.
        address: Address to listen on.
        password: Asked of the user `reader`; None for nobody.

    Yields:
        `ADDRESS:PORT`.
    """
    handler = functools.partial(_Handler, directory=str(folder))
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    server.expected = f"Basic {base64.b64encode(f'reader:{password}'.encode()).decode()}" if password else None  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"{address}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        expected = self.server.expected  # type: ignore[attr-defined]
        if expected is not None and self.headers.get("Authorization") != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="packages"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test shows what it needs."""


def _conda_package(record: Mapping[str, object], files: Mapping[str, bytes | Path]) -> bytes:
    paths = []
    for path, content in files.items():
        data = b"" if isinstance(content, Path) else content
        kind = "softlink" if isinstance(content, Path) else "hardlink"
        digest = hashlib.sha256(data).hexdigest()
        paths.append({"_path": path, "path_type": kind, "sha256": digest, "size_in_bytes": len(data)})
    info = {
        "info/index.json": json.dumps(record).encode(),
        "info/paths.json": json.dumps({"paths_version": 1, "paths": paths}).encode(),
        "info/files": "\n".join(files).encode(),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:bz2") as archive:
        for path, content in {**info, **files}.items():
            member = tarfile.TarInfo(path)
            if isinstance(content, Path):
                member.type, member.linkname = tarfile.SYMTYPE, str(content)
                archive.addfile(member)
                continue
            member.size = len(content)
            member.mode = 0o755 if path.startswith("bin/") else 0o644
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()
