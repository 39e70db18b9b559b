"""Archives made to do harm: each is refused, and nothing is left of it."""

from __future__ import annotations

import gzip
import io
import os
import resource
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch_prefect.errors import InvalidInput
from launch_prefect.sources import archive
from launch_prefect.sources.content import Entry, all_files, digest_of
from launch_prefect.sources.links import leads_outside
from launch_prefect.sources.store import CodeStore

pytestmark = pytest.mark.unit

DIGEST = "sha256:" + "1" * 64
Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, content: bytes = b"evil", **fields: object) -> Member:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    return member, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return file(name, b"", type=kind, linkname=target)


def tarred(*members: Member, form: int = tarfile.PAX_FORMAT, **options: object) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form, **options) as tar:  # type: ignore[call-overload]
        for member, content in members:
            tar.addfile(member, io.BytesIO(content))
    return made.getvalue()


def header(name: str, size: int, kind: bytes) -> bytes:
    """A header block whose size may be what none has: base-256 holds negative ones, too."""
    member = tarfile.TarInfo(name)
    member.type = kind
    block = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = (size if size >= 0 else 256**12 + size).to_bytes(12, "big")
    if size >= 0:
        block[124] = 0x80
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def pax(name: str, **records: str) -> Member:
    return file(name, pax_headers={key.replace("_", "."): value for key, value in records.items()})


def global_headers() -> bytes:
    return tarred(file("x"), pax_headers={"comment": "x"})


REFUSED: dict[str, Callable[[Path], bytes]] = {
    "parent": lambda top: tarred(file("../evil")),
    "parent inside": lambda top: tarred(file("a/../../evil")),
    "absolute": lambda top: tarred(file(str(top / "evil"))),
    "dot": lambda top: tarred(file("./x")),
    "empty part": lambda top: tarred(file("a//b")),
    "no name": lambda top: tarred(file("")),
    "link out, then through it": lambda top: tarred(link("x", str(top)), file("x/evil")),
    "relative link, then through it": lambda top: tarred(link("x", ".."), file("x/evil")),
    "link inside, then through it": lambda top: tarred(file("d/a"), link("x", "d"), file("x/evil")),
    "file through a file": lambda top: tarred(file("x"), file("x/evil")),
    "absolute link": lambda top: tarred(link("x", "/etc/passwd")),
    "link out": lambda top: tarred(link("a/x", "../../evil")),
    "link out by another": lambda top: tarred(file("a/b/c/f"), link("s", "a/b"), link("x", "s/../../../evil")),
    "link out by a later one": lambda top: tarred(link("x", "s/../../evil"), link("s", "."), file("f")),
    "link to nothing": lambda top: tarred(link("x", "")),
    "circle": lambda top: tarred(link("x", "y"), link("y", "x")),
    "hard link": lambda top: tarred(file("a"), link("x", "a", tarfile.LNKTYPE)),
    "hard link out": lambda top: tarred(link("x", "/etc/passwd", tarfile.LNKTYPE)),
    "device": lambda top: tarred(link("x", "", tarfile.CHRTYPE)),
    "block device": lambda top: tarred(link("x", "", tarfile.BLKTYPE)),
    "pipe": lambda top: tarred(link("x", "", tarfile.FIFOTYPE)),
    "folder": lambda top: tarred(link("x", "", tarfile.DIRTYPE)),
    "unknown kind": lambda top: tarred(link("x", "", b"Z")) + b"",
    "twice": lambda top: tarred(file("x", b"1"), file("x", b"2")),
    "file, then link": lambda top: tarred(file("x"), link("x", "y")),
    "link, then file": lambda top: tarred(link("x", "y"), file("x")),
    "folder, then file": lambda top: tarred(file("x/y"), file("x")),
    "folder, then link": lambda top: tarred(file("x/y"), link("x", "z")),
    "too large": lambda top: tarred(*(file(str(number), b"0" * 300_000) for number in range(4))),
    "says it is too large": lambda top: header("x", 2**60, tarfile.REGTYPE),
    "negative size": lambda top: tarred(file("a"))[:1024] + header("x", -1024, tarfile.REGTYPE) + b"\0" * 1024,
    "negative long name": lambda top: tarred(file("a"))[:1024] + header("x", -2048, tarfile.GNUTYPE_LONGNAME),
    "negative pax size": lambda top: tarred(pax("x", size="-1024")),
    "enormous pax size": lambda top: tarred(pax("x", size=str(2**62))),
    "enormous long name": lambda top: header("x", 2**40, tarfile.GNUTYPE_LONGNAME) + b"n" * 100_000,
    "enormous pax header": lambda top: header("x", 2**40, tarfile.XHDTYPE) + b"n" * 100_000,
    "long pax header": lambda top: tarred(pax("x", comment="c" * 200_000)),
    "pax parent": lambda top: tarred(pax("x", path="../evil")),
    "pax with a zero in the name": lambda top: tarred(pax("x", path="a\0b")),
    "pax link out": lambda top: tarred(
        file("x", b"", type=tarfile.SYMTYPE, linkname="y", pax_headers={"linkpath": "../evil"})
    ),
    "pax sparse": lambda top: tarred(
        pax("x", GNU_sparse_major="1", GNU_sparse_minor="0", GNU_sparse_name="y", GNU_sparse_realsize=str(2**50))
    ),
    "pax sparse of old": lambda top: tarred(pax("x", GNU_sparse_map="0,1", GNU_sparse_size="1000000000000")),
    "GNU sparse": lambda top: header("x", 512, tarfile.GNUTYPE_SPARSE) + b"\0" * 1024,
    "pax headers for all": lambda top: global_headers(),
    "a chain of headers": lambda top: header("x", 0, tarfile.XHDTYPE) * 20_000,
    "long part": lambda top: tarred(file("n" * 256)),
    "long path": lambda top: tarred(file("/".join(["n" * 200] * 20))),
    "deep path": lambda top: tarred(file("n/" * 1500 + "x")),
    "long target": lambda top: tarred(link("x", "n/" * 3000)),
    "name that is not UTF-8": lambda top: tarred(file(os.fsdecode(b"caf\xe9")), encoding="utf-8"),
    "no tar": lambda top: b"hello" * 1000,
    "nothing": lambda top: b"",
    "cut": lambda top: tarred(file("x", b"0" * 5000))[:2000],
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CodeStore]:
    (tmp_path / "store").mkdir()
    yield CodeStore((tmp_path / "store").as_uri())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"], "something is left"


def keep(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "store" / f"{DIGEST[7:]}.tar.gz").write_bytes(packed)


@pytest.mark.parametrize("kind", REFUSED)
def test_it_is_refused_and_nothing_is_left(tmp_path: Path, store: CodeStore, kind: str) -> None:
    keep(tmp_path, gzip.compress(REFUSED[kind](tmp_path)))
    began = time.monotonic()
    with pytest.raises(InvalidInput, match="is damaged: ") as refused:
        store.unpack(DIGEST, tmp_path / "out", max_size=1_000_000)
    assert time.monotonic() - began < 5
    if kind not in ("no tar", "nothing"):
        assert "what its digest says" not in refused.value.message, "it was unpacked"
    refused.value.message.encode()


def test_a_bomb_stops_at_the_limit_and_takes_no_memory(tmp_path: Path, store: CodeStore) -> None:
    # 3 GB in 3 MB, as the name of a file.
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as file:
        file.write(header("x", 3 * 10**8, tarfile.GNUTYPE_LONGNAME))
        for _ in range(300):
            file.write(b"n" * 10**6)
    keep(tmp_path, packed.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidInput, match="no sensible length"):
        store.unpack(DIGEST, tmp_path / "out")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_more_files_than_allowed(tmp_path: Path, store: CodeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_FILES", 3)
    keep(tmp_path, gzip.compress(tarred(*(file(str(number)) for number in range(4)))))
    with pytest.raises(InvalidInput, match="more than 3 files"):
        store.unpack(DIGEST, tmp_path / "out")


@pytest.mark.parametrize("damage", ["cut", "cut in the header", "bit", "no gzip", "empty", "second member is none"])
def test_a_broken_gzip(tmp_path: Path, store: CodeStore, damage: str) -> None:
    whole = gzip.compress(tarred(file("x", os.urandom(5000)), file("y", os.urandom(5000))))
    keep(
        tmp_path,
        {
            "cut": whole[: len(whole) // 2],
            "cut in the header": whole[:5],
            "bit": whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:],
            "no gzip": b"PK\3\4" + whole,
            "empty": b"",
            "second member is none": gzip.compress(tarred(file("x", b"0" * 5000))[:1000]) + b"garbage",
        }[damage],
    )
    with pytest.raises(InvalidInput, match="is damaged: "):
        store.unpack(DIGEST, tmp_path / "out")


def test_what_is_harmless_is_unpacked(tmp_path: Path) -> None:
    # Several gzip members, names that differ in case alone, links within, old formats; bits beyond x are dropped.
    members = [
        file("a/Run", b"r", mode=0o7777, uid=12345, gname="root", mtime=1),
        file("a/run", b"s", mode=0o600),
        link("a/up", "../a/./run"),
        link("later", "a/up"),
        link("nowhere", "x/y"),
        file("n" * 150, b""),
    ]
    expected = {
        Entry("a/Run", "program", "454349e422f05297191ead13e21d3db520e5abef52055e4964b82fb213f593a1", 1),
        Entry("a/run", "file", "043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89", 1),
        Entry("a/up", "link", "../a/./run", 0),
        Entry("later", "link", "a/up", 0),
        Entry("nowhere", "link", "x/y", 0),
        Entry("n" * 150, "file", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0),
    }
    digest = digest_of(expected)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        made = tarred(*members, form=form)
        (tmp_path / "store").mkdir(exist_ok=True)
        packed = gzip.compress(made[:700]) + gzip.compress(made[700:])
        (tmp_path / "store" / f"{digest[7:]}.tar.gz").write_bytes(packed)
        out = tmp_path / f"out-{form}"
        CodeStore((tmp_path / "store").as_uri()).unpack(digest, out)
        assert set(all_files(out)) == {entry.path for entry in expected}
        assert (out / "a/Run").stat().st_mode & 0o7777 == 0o755
        assert (out / "a/run").stat().st_mode & 0o7777 == 0o644
        assert (out / "later").read_text() == "s"


@pytest.mark.parametrize(
    ("links", "outside"),
    [
        ({"a/l": "../b"}, False),
        ({"a/l": "../../b"}, True),
        ({"l": "a/b/../../c"}, False),
        ({"l": "s/../c", "s": "x/y"}, False),
        ({"l": "s/../../../c", "s": "x/y"}, True),
        ({"x/l": "s/../../..", "x/s": "."}, True),
        ({"l": "l"}, True),
        ({f"l{number}": f"l{number + 1}" for number in range(40)} | {"l": "l0"}, False),
        ({f"l{number}": f"l{number + 1}" for number in range(41)} | {"l": "l0"}, True),
        ({"l": "a/./b//c/"}, False),
        ({"l": "s", "s": "/etc"}, True),
    ],
)
def test_where_links_lead(links: dict[str, str], outside: bool) -> None:
    assert leads_outside(next(name for name in links if name.endswith("l")), links) is outside
