"""The code store on a real S3 server, on servers that fail, and what Docker itself leaves out of a context."""

from __future__ import annotations

import asyncio
import io
import os
import random
import re
import subprocess
import tarfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import s3fs

from launch_prefect.errors import InvalidInput, LaunchError, NotFound, Unreachable
from launch_prefect.images.builders.docker import find_client
from launch_prefect.sources.content import all_files
from launch_prefect.sources.finding import find
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore
from tests.unit.test_snapshot_trees import grow

SIZE = 8_000_000
"""More than one part of an upload."""


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    s3fs.S3FileSystem.clear_instance_cache()  # each remembers its endpoint


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def bucket(moto: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    at(moto, monkeypatch)
    name = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text("print('x')")
    (code / "model.bin").write_bytes(os.urandom(SIZE))
    return code


def test_round_trip_in_s3(bucket: str, folder: Path, tmp_path: Path) -> None:
    store = CodeStore(f"s3://{bucket}/team/code")
    digest = take(folder, store).digest
    keys = fsspec.filesystem("s3").find(bucket)
    assert keys == [f"{bucket}/team/code/{digest[7:]}.tar.gz"]
    assert store.has(digest)
    assert not store.has("sha256:" + "0" * 64)
    store.unpack(digest, tmp_path / "out")
    assert sorted(all_files(tmp_path / "out")) == ["model.bin", "train.py"]
    assert (tmp_path / "out" / "model.bin").read_bytes() == (folder / "model.bin").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["code", "out"]


def test_it_is_uploaded_once(bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CodeStore(f"s3://{bucket}/code")
    take(folder, store)
    monkeypatch.setattr(store, "put", lambda *args: pytest.fail("uploaded again"))
    take(folder, store)


@pytest.mark.parametrize("kind", ["s3", "file", "memory"])
def test_two_at_once(kind: str, bucket: str, folder: Path, tmp_path: Path) -> None:
    url = {"s3": f"s3://{bucket}/code", "file": (tmp_path / "store").as_uri(), "memory": f"memory://{bucket}"}[kind]
    with ThreadPoolExecutor(4) as pool:
        digests = {taken.digest for taken in pool.map(lambda _: take(folder, CodeStore(url)), range(4))}
    (digest,) = digests
    CodeStore(url).unpack(digest, tmp_path / "out")
    if kind == "file":
        assert [path.name for path in (tmp_path / "store").iterdir()] == [f"{digest[7:]}.tar.gz"]


def test_what_is_not_there_is_said(bucket: str, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(NotFound, match="does not hold"):
        CodeStore(f"s3://{bucket}/code").unpack("sha256:" + "0" * 64, tmp_path / "out")
    with pytest.raises(Unreachable, match="no-such-bucket-here"):
        take(folder, CodeStore("s3://no-such-bucket-here/code"))
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


class Proxy:
    """Passes requests on to a server, and does to some of them what networks do.

    Args:
        server: Its address.
        harm: Gets each request's method and number; `500`, `gone` (no answer) or `cut` (half of it) does that to it.
    """

    def __init__(self, server: str, harm: Callable[[str, int], str | None]) -> None:
        import httpx

        seen: list[str] = []
        self.requests = seen

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                seen.append(self.command)
                what = harm(self.command, len(seen))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if what == "500":
                    self.answer(500, {}, b"<Error><Code>InternalError</Code></Error>")
                    return
                if what == "gone":
                    self.close_connection = True
                    self.connection.close()
                    return
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                passed = httpx.request(
                    self.command, server + self.path, headers=headers, content=body, trust_env=False, timeout=30
                )
                self.answer(passed.status_code, dict(passed.headers), passed.content, cut=what == "cut")

            def answer(self, status: int, headers: dict[str, str], body: bytes, *, cut: bool = False) -> None:
                self.send_response(status)
                length = headers.get("content-length", str(len(body)))
                for name, value in headers.items():
                    if name not in ("content-length", "connection", "transfer-encoding", "content-encoding"):
                        self.send_header(name, value)
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body[: len(body) // 2] if cut else body)
                if cut:
                    self.wfile.flush()
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def proxied(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Callable[[str, int], str | None]], Proxy]]:
    made: list[Proxy] = []

    def make(harm: Callable[[str, int], str | None]) -> Proxy:
        made.append(Proxy(moto, harm))
        at(made[-1].url, monkeypatch)
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.mark.parametrize("what", ["500", "gone", "cut"])
def test_a_moment_of_trouble_is_survived(
    bucket: str, folder: Path, tmp_path: Path, proxied: Callable[..., Proxy], what: str
) -> None:
    # The first request of each kind fails.
    met: set[str] = set()

    def harm(method: str, number: int) -> str | None:
        if method in met:
            return None
        met.add(method)
        return what if what != "cut" or method == "GET" else None

    proxied(harm)
    store = CodeStore(f"s3://{bucket}/code")
    digest = take(folder, store).digest
    met.clear()
    store.unpack(digest, tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").stat().st_size == SIZE


@pytest.mark.parametrize("what", ["500", "gone", "cut"])
def test_a_store_that_stays_broken_leaves_nothing(
    bucket: str, folder: Path, tmp_path: Path, proxied: Callable[..., Proxy], what: str
) -> None:
    digest = take(folder, CodeStore(f"s3://{bucket}/code")).digest
    proxied(lambda method, number: what if method in ("GET", "PUT") else None)
    began = time.monotonic()
    with pytest.raises(Unreachable) as broken:
        CodeStore(f"s3://{bucket}/code").unpack(digest, tmp_path / "out")
    assert time.monotonic() - began < 60
    assert "hunter2" not in str(broken.value)
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


@pytest.mark.parametrize("what", ["500", "gone"])
def test_an_upload_that_breaks_off_is_not_there(
    bucket: str, folder: Path, proxied: Callable[..., Proxy], what: str, moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxied(lambda method, number: what if method in ("PUT", "POST") else None)
    with pytest.raises(Unreachable):
        take(folder, CodeStore(f"s3://{bucket}/code"))
    at(moto, monkeypatch)
    assert fsspec.filesystem("s3").find(bucket) == []
    assert take(folder, CodeStore(f"s3://{bucket}/code")).files == 2


def test_no_server_is_unreachable_within_seconds(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    at("http://127.0.0.1:9", monkeypatch)
    began = time.monotonic()
    with pytest.raises(Unreachable, match="s3://bucket/code") as failed:
        take(folder, CodeStore("s3://bucket/code"))
    assert time.monotonic() - began < 60
    assert "hunter2" not in str(failed.value)


def test_credentials_in_an_address_are_in_no_message(folder: Path) -> None:
    with pytest.raises(LaunchError) as failed:
        take(folder, CodeStore("http://user:hunter2@127.0.0.1:9/code"))
    assert "hunter2" not in str(failed.value)
    assert "user" not in failed.value.message.replace("cannot be used", "")


@pytest.mark.parametrize(
    ("url", "mend"),
    [("s3://b/c", r"launch-prefect\[s3\]"), ("gs://b/c", "pip install gcsfs"), ("sftp://h/c", "paramiko")],
)
def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, url: str, mend: str) -> None:
    from fsspec.registry import _registry

    for module in ("s3fs", "gcsfs", "paramiko", "fsspec.implementations.sftp"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    protocol = url.partition(":")[0]
    monkeypatch.delitem(_registry, protocol, raising=False)
    with pytest.raises(InvalidInput, match="driver is not installed") as refused:
        CodeStore(url)
    assert re.search(mend, str(refused.value))


LINES = (
    "*.log", "/out/", "out/", "!out/a", "out/*", "a/b", "a/**", "**/b", "a/**/x.py", "ab", "*", "[ab]", "?", "a*/",
    "/a/*.log", "\\#z", "#z", "!/out/x.py", "sp ace ", "**", "**/", "!b", "b/", "naïve", "a**", "a**b", "*.[lp]*",
    "/*", "!/a", "!a/b", "a/../b", "./out", "**/*.log", "*/*", "[^a]", " #z",
)  # fmt: skip


@pytest.mark.docker
def test_what_docker_would_take(docker_engine: object, tmp_path: Path) -> None:
    """Exceptions with wildcards in their folders are left aside: older Dockers do not look into excluded folders."""
    client = asyncio.run(find_client())
    for seed in range(12):
        luck = random.Random(seed)
        tree = tmp_path / str(seed)
        grow(tree, luck)
        for file in tree.rglob(".gitignore"):
            file.unlink()
        lines = luck.sample(LINES, luck.randint(1, 6))
        (tree / ".dockerignore").write_text("\n".join(lines) + "\n")
        (tree / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        built = subprocess.run(
            [*(word for word in client.command if word != "--load"), "-o", "type=tar,dest=-", str(tree)],
            env=os.environ | client.env,
            capture_output=True,
            check=True,
        )
        with tarfile.open(fileobj=io.BytesIO(built.stdout)) as tar:
            docker_takes = {member.name for member in tar if not member.isdir()}
        # The Dockerfile is there for Docker to read in any case.
        assert set(find(tree).sizes) - {"Dockerfile"} == docker_takes - {"Dockerfile"}, lines
