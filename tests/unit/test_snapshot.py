"""Snapshots: the same content gives the same digest, and what must not travel does not."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from launch_prefect.errors import DiskFull, InvalidInput, NotFound
from launch_prefect.sources.content import all_files
from launch_prefect.sources.snapshot import take
from launch_prefect.sources.store import CodeStore

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> CodeStore:
    return CodeStore((tmp_path / "store").as_uri())


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def unpacked(store: CodeStore, digest: str, into: Path) -> dict[str, str]:
    store.unpack(digest, into)
    return {path: (into / path).read_text() for path in all_files(into)}


def test_same_content_same_digest_and_archive(tmp_path: Path, store: CodeStore) -> None:
    first = write(tmp_path / "a", {"train.py": "x = 1", "lib/util.py": "y"})
    second = write(tmp_path / "b", {"lib/util.py": "y", "train.py": "x = 1"})
    os.utime(second / "train.py", (1, 1))
    (second / "lib").chmod(0o700)
    other_store = CodeStore((tmp_path / "other").as_uri())
    assert take(first, store) == take(second, other_store)
    archives = [next((tmp_path / name).glob("*.tar.gz")).read_bytes() for name in ("store", "other")]
    assert archives[0] == archives[1]


@pytest.mark.parametrize("change", ["content", "name", "executable", "link"])
def test_any_change_changes_the_digest(tmp_path: Path, store: CodeStore, change: str) -> None:
    folder = write(tmp_path / "a", {"train.py": "x = 1", "other.py": "x = 1"})
    (folder / "link").symlink_to("train.py")
    before = take(folder, store).digest
    if change == "content":
        (folder / "train.py").write_text("x = 2")
    elif change == "name":
        (folder / "train.py").rename(folder / "main.py")
    elif change == "executable":
        (folder / "train.py").chmod(0o755)
    else:
        (folder / "link").unlink()
        (folder / "link").symlink_to("other.py")
    assert take(folder, store).digest != before


def test_round_trip_keeps_bits_links_and_odd_names(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"run.py": "#!/bin/sh", "sub/deep/x.txt": "x"})
    (folder / "run.py").chmod(0o755)
    (folder / "sub" / "back").symlink_to("../run.py")
    (folder / "here").symlink_to("sub")
    (folder / "naïve name\nwith newline").write_text("odd")
    snapshot = take(folder, store)
    assert (snapshot.files, snapshot.left_out) == (5, ())
    into = tmp_path / "out"
    store.unpack(snapshot.digest, into)
    assert os.access(into / "run.py", os.X_OK)
    assert not os.access(into / "sub/deep/x.txt", os.X_OK)
    assert (into / "sub" / "back").read_text() == "#!/bin/sh"
    assert (into / "here").readlink() == Path("sub")
    assert (into / "naïve name\nwith newline").read_text() == "odd"


def test_ignore_files(tmp_path: Path, store: CodeStore) -> None:
    folder = write(
        tmp_path / "a",
        {
            ".gitignore": "*.log\n/data/\nout/*\n!out/keep.txt\nwanted.bin\n",
            ".dockerignore": "# docs\nnotes\n**/*.tmp\n",
            ".launchignore": "!wanted.bin\nsecret-plan.txt\n",
            "sub/.gitignore": "local.txt\n!keep.log\n",
            "train.py": "x",
            "a.txt": "a",
            "data/big.txt": "1",
            "out/keep.txt": "kept",
            "out/drop.txt": "d",
            "notes/a.txt": "n",
            "sub/notes/b.txt": "stays: Docker's patterns start at the top",
            "sub/local.txt": "l",
        },
    )
    for name in ("x.log", "sub/x.log", "sub/keep.log", "sub/y.tmp", "wanted.bin", "secret-plan.txt"):
        (folder / name).write_text(name)
    found = set(unpacked(store, take(folder, store).digest, tmp_path / "out"))
    assert found == {
        ".gitignore",
        ".dockerignore",
        ".launchignore",
        "sub/.gitignore",
        "train.py",
        "a.txt",
        "out/keep.txt",
        "sub/notes/b.txt",
        "sub/keep.log",
        "wanted.bin",
    }


def test_docker_exceptions_inside_what_is_ignored(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {".dockerignore": "*\n!src\n", "src/train.py": "x", "other/y.py": "y"})
    assert set(unpacked(store, take(folder, store).digest, tmp_path / "out")) == {"src/train.py"}


def test_never_code_is_left_out_and_secrets_are_told(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {"train.py": "x", ".git/HEAD": "h", "/pycache/x.py": "c"})
    for name in ("__pycache__/a.pyc", "node_modules/m/i.js", "env3/pyvenv.cfg", "env3/bin/python", ".venv/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in (".env", ".env.local", "sub/id_rsa", ".netrc", ".aws/credentials", ".ssh/config"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("hunter2")
    (folder / "key.pem").write_text("-----BEGIN RSA PRIVATE KEY-----")
    (folder / "ca.pem").write_text("-----BEGIN CERTIFICATE-----")
    os.mkfifo(folder / "pipe")
    snapshot = take(folder, store)
    files = unpacked(store, snapshot.digest, tmp_path / "out")
    assert {"train.py", "ca.pem"} <= set(files)
    assert not any("hunter2" in text or "PRIVATE" in text for text in files.values())
    assert not any(name.startswith((".git/", "node_modules", "env3", ".venv")) for name in files)
    assert snapshot.left_out == (
        ".aws", ".env", ".env.local", ".netrc", ".ssh", "key.pem", "pipe", "sub/id_rsa",
    )  # fmt: skip


KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *((name, "hunter2") for name in (".git-credentials", ".pypirc", ".npmrc", ".pgpass", ".envrc", ".kube")),
        ("sub/.docker/config.json", "{}"),
        ("deploy_key", KEY),
        ("notes.txt", "x" * 60_000 + KEY),
        ("chain.pem", "x" * 70_000 + KEY),
        ("openssh", "-----BEGIN OPENSSH PRIVATE KEY-----"),
        ("pgp.asc", "-----BEGIN PGP PRIVATE KEY BLOCK-----"),
        ("service-account-1.json", json.dumps({"type": "service_account", "private_key": KEY})),
    ],
)
def test_secrets_are_taken_in_only_where_their_name_is_written(
    tmp_path: Path, store: CodeStore, name: str, text: str
) -> None:
    folder = write(tmp_path / "a", {"train.py": "x", name: text})
    assert take(folder, store).left_out == (name,)
    for line in ("!*", "!sub/", f"!{name}\n{name}", "!other/" + name):
        write(folder, {".launchignore": line})
        assert name not in unpacked(store, take(folder, store).digest, tmp_path / "out"), line
        shutil.rmtree(tmp_path / "out")
    for line in (f"!{name}", f"!/{name}", f"!**/{Path(name).name}"):
        write(folder, {".launchignore": line})
        snapshot = take(folder, store)
        assert (snapshot.files, snapshot.left_out) == (3, ()), line


def test_a_secret_folder_that_is_named_is_taken_in_but_for_keys(tmp_path: Path, store: CodeStore) -> None:
    folder = write(tmp_path / "a", {".launchignore": "!.kube/\n", ".kube/config": "x", ".kube/key": KEY})
    assert take(folder, store).left_out == (".kube/key",)


def test_what_is_no_secret_stays(tmp_path: Path, store: CodeStore) -> None:
    files = {
        "config.json": "{}",
        "credentials.json": '{"installed": {}}',
        "public.txt": "-----BEGIN PUBLIC KEY-----",
        "crypto.py": 'PATTERN = "BEGIN .* PRIVATE KEY"',
    }
    snapshot = take(write(tmp_path / "a", files), store)
    assert (snapshot.files, snapshot.left_out) == (4, ())


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside.txt", "sub/../../outside.txt", "../a/train.py"])
def test_links_that_leave_the_folder_are_refused(tmp_path: Path, store: CodeStore, target: str) -> None:
    folder = write(tmp_path / "a", {"train.py": "x", "sub/y.py": "y"})
    (tmp_path / "outside.txt").write_text("no")
    (folder / "bad-link").symlink_to(target)
    with pytest.raises(InvalidInput, match="bad-link"):
        take(folder, store)
    (folder / ".launchignore").write_text("bad-link\n")
    assert take(folder, store).files == 3


def test_what_is_no_folder_of_code_is_refused(tmp_path: Path, store: CodeStore) -> None:
    with pytest.raises(NotFound, match="no folder"):
        take(tmp_path / "nowhere", store)
    file = tmp_path / "file.py"
    file.write_text("x")
    with pytest.raises(InvalidInput, match="is a file"):
        take(file, store)
    empty = tmp_path / "empty"
    (empty / "sub").mkdir(parents=True)
    with pytest.raises(InvalidInput, match="empty"):
        take(empty, store)
    bad = write(tmp_path / "bad", {"train.py": "x", ".launchignore": "!"})
    with pytest.raises(InvalidInput, match="launchignore"):
        take(bad, store)


def test_it_is_stored_once_and_progress_ends_at_the_total(
    tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path / "a", {"train.py": "x" * 1000})
    seen: list[tuple[int, int]] = []
    take(folder, store, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2000, 2000)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    monkeypatch.setattr(store, "put", lambda *args: pytest.fail("stored twice"))
    take(folder, store)


@pytest.mark.parametrize("text", ["y" * 100, "y"])
def test_a_file_that_changes_meanwhile_is_refused(tmp_path: Path, store: CodeStore, text: str) -> None:
    folder = write(tmp_path / "a", {"train.py": "x" * 100})
    with pytest.raises(InvalidInput, match=r"train\.py changed"):
        take(folder, store, progress=lambda done, total: write(folder, {"train.py": text}) and None)
    assert not (tmp_path / "store").exists()


def test_full_disk(tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "a", {"train.py": "x"})

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store._storage._fs, "mv", full)
    with pytest.raises(DiskFull, match="No space"):
        take(folder, store)
    assert not list((tmp_path / "store").iterdir())


def test_missing_and_damaged_snapshots(tmp_path: Path, store: CodeStore) -> None:
    with pytest.raises(NotFound, match="does not hold"):
        store.unpack("sha256:" + "0" * 64, tmp_path / "out")
    digest = take(write(tmp_path / "a", {"train.py": "x" * 5000, "b.py": os.urandom(4000).hex()}), store).digest
    archive = next((tmp_path / "store").glob("*.tar.gz"))
    whole = archive.read_bytes()
    other = take(write(tmp_path / "c", {"train.py": "other"}), store).digest
    for damaged in (whole[: len(whole) // 2], b"no archive", whole[:300] + b"\0" * 50 + whole[350:], b""):
        archive.write_bytes(damaged)
        with pytest.raises(InvalidInput, match="damaged"):
            store.unpack(digest, tmp_path / "out")
    shutil.copy(tmp_path / "store" / f"{other[7:]}.tar.gz", archive)
    with pytest.raises(InvalidInput, match="what its digest says"):
        store.unpack(digest, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "store"]


@pytest.mark.parametrize("kind", ["parent", "absolute", "through-link", "hard-link", "device"])
def test_archives_that_would_escape_are_refused(tmp_path: Path, store: CodeStore, kind: str) -> None:
    digest = "sha256:" + "1" * 64
    (tmp_path / "store").mkdir()
    with tarfile.open(tmp_path / "store" / f"{digest[7:]}.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo({"parent": "../evil", "absolute": str(tmp_path / "evil")}.get(kind, "x/evil"))
        member.size = 4
        if kind == "through-link":
            link = tarfile.TarInfo("x")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            tar.addfile(link)
        if kind in ("hard-link", "device"):
            member.type = tarfile.LNKTYPE if kind == "hard-link" else tarfile.CHRTYPE
            member.linkname, member.size = "/etc/passwd", 0
        tar.addfile(member, io.BytesIO(b"evil"))
    with pytest.raises(InvalidInput, match="damaged"):
        store.unpack(digest, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_unpacking_into_an_empty_folder_only(tmp_path: Path, store: CodeStore) -> None:
    digest = take(write(tmp_path / "a", {"train.py": "x"}), store).digest
    (tmp_path / "out").mkdir()
    store.unpack(digest, tmp_path / "out")
    with pytest.raises(InvalidInput, match="not empty"):
        store.unpack(digest, tmp_path / "out")


def test_credentials_of_a_store_are_not_shown() -> None:
    assert "hunter2" not in CodeStore("memory://user:hunter2@place/code").url
    with pytest.raises(InvalidInput, match="LAUNCH_CODE_STORE"):
        CodeStore("nosuchprotocol://x")
