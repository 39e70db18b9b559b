"""Chunks of bytes into lines: whatever a program writes, wherever a chunk ends."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from launch_prefect.workers import lines as module
from launch_prefect.workers.lines import MAX_LINE_BYTES, LineAssembler
from launch_prefect.workers.running import Chunk

START = datetime(2026, 1, 1, tzinfo=UTC)


def chunk(data, stream="stdout", second=0):
    return Chunk(stream, data, START + timedelta(seconds=second), "")


def lines_of(*pieces, stream="stdout"):
    assembler = LineAssembler()
    found = [line for piece in pieces for line in assembler.feed(chunk(piece, stream))]
    return [line.text for line in [*found, *assembler.finish(START)]]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"one", ["one"]),
        (b"one\n", ["one"]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\n\n\ntwo", ["one", "", "", "two"]),
        (b"\n", [""]),
        (b"  kept  \n", ["  kept  "]),
        ("größe 模型 🚀\n".encode(), ["größe 模型 🚀"]),
        (b"\xff\xfe\n", ["\ufffd\ufffd"]),
        (b"a\xe6\xa8\nb", ["a\ufffd", "b"]),
        (b"a\x00b\n", ["a\u2400b"]),
        (b"windows\r\n", ["windows"]),
        (b" 10%\r 50%\r100%\n", ["100%"]),
        (b" 10%\r 50%\r100%\r\n", ["100%"]),
        (b"\x1b[31mred\x1b[0m\n", ["\x1b[31mred\x1b[0m"]),
        (b"form\x0cfeed\x0bline\xe2\x80\xa8separator\x85\n", ["form\x0cfeed\x0bline\u2028separator\ufffd"]),
    ],
)
def test_lines_end_at_line_feeds_alone(data, expected):
    assert lines_of(data) == expected


TEXT = "eins\r\n🚀zwei\x00\r\n\n".encode() + b"\xff\xf0\x9f\n\xe6" + "模\rdrei".encode()


def test_chunk_borders_anywhere_give_the_same_lines():
    expected = lines_of(TEXT)
    assert expected == ["eins", "🚀zwei\u2400", "", "\ufffd\ufffd", "drei"]
    assert lines_of(*(TEXT[at : at + 1] for at in range(len(TEXT)))) == expected
    for one, two in itertools.combinations(range(len(TEXT) + 1), 2):
        assert lines_of(TEXT[:one], TEXT[one:two], TEXT[two:]) == expected


@pytest.fixture
def short(monkeypatch):
    """Lines of up to 8 bytes, so that every case of a border can be tried."""
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 8)


@pytest.mark.parametrize("unit", ["a", "ü", "模", "🚀", "aü", "a模b🚀ü"])
@pytest.mark.usefixtures("short")
def test_a_long_line_is_split_without_loss_and_between_characters(unit):
    for count in range(30):
        text = unit * count
        pieces = lines_of(text.encode())
        assert "".join(pieces) == text
        assert all(len(piece.encode()) <= 8 for piece in pieces)
        assert "\ufffd" not in "".join(pieces)


@pytest.mark.usefixtures("short")
def test_a_long_line_is_split_alike_wherever_chunks_end():
    data = ("a模b🚀ü" * 4 + "\n").encode() + b"\x80" * 20 + b"\xff" * 9 + b"\n12345678\n123456789\nend"
    expected = lines_of(data)
    assert expected[-4:] == ["12345678", "12345678", "9", "end"]
    for one, two in itertools.combinations(range(0, len(data) + 1), 2):
        assert lines_of(data[:one], data[one:two], data[two:]) == expected


@pytest.mark.usefixtures("short")
def test_bytes_that_are_no_text_are_split_without_end_or_loss():
    assert "".join(lines_of(b"\x80" * 100)) == "\ufffd" * 100
    assert "".join(lines_of(b"\xff" * 100)) == "\ufffd" * 100


def test_a_line_of_a_million_characters_arrives_whole_in_records_that_prefect_takes():
    text = "模型🚀x" * 250_000
    data = text.encode() + b"\nnext\n"
    pieces = lines_of(*(data[at : at + 65_536] for at in range(0, len(data), 65_536)))
    assert pieces[-1] == "next"
    assert "".join(pieces[:-1]) == text
    assert all(len(piece.encode()) <= MAX_LINE_BYTES < 1_000_000 for piece in pieces)


def test_output_without_any_line_feed_is_not_held_back_for_ever():
    assembler = LineAssembler()
    found = [line for _ in range(20) for line in assembler.feed(chunk(b"x" * 100_000))]
    assert sum(len(line.text) for line in found) >= 2_000_000 - MAX_LINE_BYTES


def test_streams_do_not_mix():
    assembler = LineAssembler()
    found = [
        *assembler.feed(chunk(b"out ")),
        *assembler.feed(chunk(b"err\xe6", "stderr")),
        *assembler.feed(chunk(b"more\nrest")),
        *assembler.feed(chunk(b"\xa8\xa1\nlast", "stderr")),
        *assembler.finish(START),
    ]
    assert [(line.stream, line.text) for line in found] == [
        ("stdout", "out more"),
        ("stderr", "err模"),
        ("stdout", "rest"),
        ("stderr", "last"),
    ]


def test_a_line_has_the_time_of_its_last_piece():
    assembler = LineAssembler()
    assert assembler.feed(chunk(b"one", second=1)) == []
    (line,) = assembler.feed(chunk(b" and two\nthree", second=2))
    assert line.at == START + timedelta(seconds=2)


def test_the_end_comes_once():
    assembler = LineAssembler()
    assembler.feed(chunk(b"rest"))
    assert [line.text for line in assembler.finish(START)] == ["rest"]
    assert assembler.finish(START) == []
