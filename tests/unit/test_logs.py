"""The log shipper: in order, each record exactly once, however the server behaves."""

import asyncio
import contextlib
import itertools
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID

import httpx
import pytest
from tenacity import wait_none

from launch_prefect.workers import logs, reporting
from launch_prefect.workers.logs import LogShipper

ONE, TWO = UUID(int=1), UUID(int=2)
START = datetime(2026, 1, 1, tzinfo=UTC)
REQUEST = httpx.Request("POST", "http://api/logs/")


def answer(status):
    return httpx.HTTPStatusError(str(status), request=REQUEST, response=httpx.Response(status, request=REQUEST))


class Server:
    """The part of Prefect's client that the shipper uses, on a list.

    `script` holds, for the next requests, a status to answer with, "before" or "after" (the connection is lost before
    or after the batch is stored), "broken" (an answer that is none), or None; afterwards everything is stored.
    """

    def __init__(self):
        self.stored = []
        self.script = []
        self.requests = 0
        self.poison = None
        self.open = asyncio.Event()
        self.open.set()

    async def create_logs(self, payloads):
        self.requests += 1
        await self.open.wait()
        await asyncio.sleep(0)
        # what httpx does with a body: JSON has no NaN and UTF-8 no lone surrogates
        json.dumps(payloads, ensure_ascii=False, allow_nan=False).encode()
        step = self.script.pop(0) if self.script else None
        if isinstance(step, int):
            raise answer(step)
        if step == "broken":
            raise ValueError("an answer that is none")
        if step == "before":
            raise httpx.ConnectError("refused")
        if self.poison is not None and any(self.poison in payload["message"] for payload in payloads):
            raise answer(422)
        if any("\x00" in payload["message"] for payload in payloads):
            raise answer(500)  # PostgreSQL
        self.stored += payloads
        if step == "after":
            raise httpx.ReadError("reset")

    async def read_logs(self, log_filter, limit, offset, sort):
        if self.script and self.script[0] == "unreadable":
            self.script.pop(0)
            raise answer(503)
        times = log_filter.timestamp
        return [
            SimpleNamespace(timestamp=datetime.fromisoformat(payload["timestamp"]))
            for payload in self.stored
            if UUID(payload["flow_run_id"]) in log_filter.flow_run_id.any_
            and times.after_ <= datetime.fromisoformat(payload["timestamp"]) <= times.before_
        ][:limit]

    def messages(self, run=ONE):
        return [payload["message"] for payload in self.of(run)]

    def of(self, run=ONE):
        return [payload for payload in self.stored if payload["flow_run_id"] == str(run)]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(reporting, "wait_exponential_jitter", lambda **_: wait_none())


@contextlib.asynccontextmanager
async def shipping():
    server = Server()
    shipper = LogShipper(server)
    task = asyncio.create_task(shipper.run())
    try:
        yield server, shipper
        if task.done():
            task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def texts(count, start=0):
    return [(f"line {number}", START) for number in range(start, start + count)]


async def flushed(shipper, run=ONE):
    await asyncio.wait_for(shipper.flush(run), 5)


def assert_strictly_rising(payloads):
    times = [datetime.fromisoformat(payload["timestamp"]) for payload in payloads]
    assert all(one < other for one, other in itertools.pairwise(times))


async def test_records_arrive_as_they_were_given():
    async with shipping() as (server, shipper):
        await shipper.add(ONE, "stderr", 30, [("größe 模型\n", START)])
        await flushed(shipper)
        assert server.stored == [
            {
                "name": "stderr",
                "level": 30,
                "message": "größe 模型\n",
                "timestamp": START.isoformat(),
                "flow_run_id": str(ONE),
            }
        ]


async def test_order_is_kept_with_strictly_rising_times_whatever_the_clock_says():
    async with shipping() as (server, shipper):
        seconds = [0, 0, 5, 3, 3, 5, 4, 6, 6, 0]
        for number, second in enumerate(seconds):
            at = START + timedelta(seconds=second)
            await shipper.add(ONE, "stdout" if number % 2 else "stderr", 20, [(str(number), at)])
            await shipper.add(TWO, "stdout", 20, [(str(number), START)])
            if number == 5:
                await asyncio.sleep(0.01)  # some are sent, others wait
        await flushed(shipper)
        await flushed(shipper, TWO)
        for run in (ONE, TWO):
            assert server.messages(run) == [str(number) for number in range(len(seconds))]
            assert_strictly_rising(server.of(run))
        assert server.of(ONE)[2]["timestamp"] == (START + timedelta(seconds=5)).isoformat()  # a true time is kept


@pytest.mark.parametrize(
    "script",
    [
        [503],
        [503] * 20,
        [500, 502, 504, 429, 408],
        ["before"],
        ["before", 503, "before"],
        ["after"],
        ["after", "unreadable"],
        ["after", "unreadable", "unreadable", None, "after"],
        [None, "after", None, "before", "after", 503, "after"],
        ["before", "after"],
        [503, "after"],
    ],
)
async def test_each_record_is_stored_exactly_once(script):
    async with shipping() as (server, shipper):
        server.script = list(script)
        for batch in range(5):
            await shipper.add(ONE, "stdout", 20, texts(3, start=batch * 3))
            await shipper.add(TWO, "stdout", 20, texts(1, start=batch))
            await asyncio.sleep(0.002)
        await flushed(shipper)
        await flushed(shipper, TWO)
        assert server.messages(ONE) == [text for text, _ in texts(15)]
        assert server.messages(TWO) == [text for text, _ in texts(5)]


async def test_equal_lines_are_told_apart():
    async with shipping() as (server, shipper):
        server.script = ["after", "before", "after"]
        for _ in range(4):
            await shipper.add(ONE, "stdout", 20, [("same", START)])
            await asyncio.sleep(0.002)
        await flushed(shipper)
        assert server.messages() == ["same"] * 4


@pytest.mark.parametrize("position", [0, 1, 6, 49])
async def test_a_record_that_the_server_refuses_takes_no_other_with_it(position):
    async with shipping() as (server, shipper):
        server.poison = "poison"
        lines = texts(50)
        lines[position] = ("a poisonous line", START)
        server.script = ["before"]
        await shipper.add(ONE, "stdout", 20, lines)
        await shipper.add(TWO, "stdout", 20, texts(3))
        await flushed(shipper)
        await flushed(shipper, TWO)
        found = server.messages()
        assert "a log record of 16 characters was refused" in found[position]
        found[position] = lines[position][0]
        assert found == [text for text, _ in lines]
        assert_strictly_rising(server.of(ONE))
        assert server.messages(TWO) == ["line 0", "line 1", "line 2"]


async def test_a_run_whose_every_record_is_refused_ends_all_the_same():
    async with shipping() as (server, shipper):
        server.poison = ""
        await shipper.add(ONE, "stdout", 20, texts(5))
        await flushed(shipper)
        server.poison = None
        await shipper.add(TWO, "stdout", 20, texts(1))
        await flushed(shipper, TWO)
        assert server.messages(TWO) == ["line 0"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [("a\x00b", "a\u2400b"), ("name \udcff", "name ?"), ("\ud83d", "?"), ("\ud83d\ude80", "??")],
)
async def test_what_no_database_holds_does_not_stop_the_logs_of_all_runs(message, expected):
    """A build tool may print a NUL, and a file's name may be no UTF-8."""
    async with shipping() as (server, shipper):
        shipper.add_now(ONE, "launch", 20, [(message, START)])
        await shipper.add(TWO, "stdout", 20, texts(1))
        await flushed(shipper)
        await flushed(shipper, TWO)
        assert server.messages() == [expected]
        assert server.messages(TWO) == ["line 0"]


async def test_many_waiting_lines_share_records_and_none_is_lost():
    async with shipping() as (server, shipper):
        server.open.clear()
        lines = texts(20_000)
        await shipper.add(ONE, "stdout", 20, lines[:10_000])
        await shipper.add(TWO, "stdout", 20, texts(3))
        await shipper.add(ONE, "stderr", 30, [("error", START)])
        await shipper.add(ONE, "stdout", 20, lines[10_000:])
        server.open.set()
        await flushed(shipper)
        await flushed(shipper, TWO)
        assert len(server.stored) < 2000
        read = [(payload["name"], line) for payload in server.of(ONE) for line in payload["message"].split("\n")]
        assert read == [
            *(("stdout", text) for text, _ in lines[:10_000]),
            ("stderr", "error"),
            *(("stdout", text) for text, _ in lines[10_000:]),
        ]
        assert "\n".join(server.messages(TWO)) == "line 0\nline 1\nline 2"
        assert all(len(payload["message"].encode()) < 1_000_000 for payload in server.stored)
        assert_strictly_rising(server.of(ONE))
        assert {(payload["name"], payload["level"]) for payload in server.of(ONE)} == {("stdout", 20), ("stderr", 30)}


async def test_few_lines_keep_a_record_each():
    async with shipping() as (server, shipper):
        await shipper.add(ONE, "stdout", 20, texts(100))
        await flushed(shipper)
        assert server.messages() == [text for text, _ in texts(100)]


async def test_requests_stay_small():
    async with shipping() as (server, shipper):
        await shipper.add(ONE, "stdout", 20, [("x" * 400_000, START) for _ in range(20)])
        await flushed(shipper)
        assert len(server.stored) == 20
        assert server.requests >= 5


async def test_whoever_adds_waits_while_too_much_is_waiting(monkeypatch):
    monkeypatch.setattr(logs, "BUFFER_BYTES", 10_000)
    async with shipping() as (server, shipper):
        server.open.clear()
        await shipper.add(ONE, "stdout", 20, [("x", START)])
        await asyncio.sleep(0.01)  # this one is being sent and answers nothing
        await shipper.add(ONE, "stdout", 20, [("y" * 20_000, START)])
        adding = asyncio.create_task(shipper.add(ONE, "stdout", 20, [("z", START)]))
        await asyncio.sleep(0.05)
        assert not adding.done()
        shipper.add_now(ONE, "launch", 20, [("the agent's own does not wait", START)])
        server.open.set()
        await asyncio.wait_for(adding, 5)
        await flushed(shipper)
        assert server.messages() == ["x", "y" * 20_000, "the agent's own does not wait", "z"]


async def test_a_chatty_run_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(logs, "BUFFER_BYTES", 100_000)
    async with shipping() as (server, shipper):
        server.open.clear()

        async def chat():
            for _ in range(1000):
                await shipper.add(ONE, "stdout", 20, [("x" * 5000, START)])

        chatting = asyncio.create_task(chat())
        await asyncio.sleep(0.05)
        assert shipper._waiting_bytes <= 100_000 + 20_000
        server.open.set()
        await asyncio.wait_for(chatting, 10)
        await flushed(shipper)
        assert sum(message.count("x") for message in server.messages()) == 5_000_000


async def test_flush_returns_when_all_is_stored_and_not_before():
    async with shipping() as (server, shipper):
        server.open.clear()
        await shipper.add(ONE, "stdout", 20, texts(10))
        flushing = asyncio.create_task(shipper.flush(ONE))
        await asyncio.sleep(0.02)
        assert not flushing.done()
        server.script = ["after", 503, "before"]
        server.open.set()
        await asyncio.wait_for(flushing, 5)
        assert len(server.messages()) == 10


async def test_flush_of_a_run_waits_for_no_later_line_of_another():
    async with shipping() as (server, shipper):
        await shipper.add(ONE, "stdout", 20, texts(1))
        async with asyncio.timeout(5):
            while not server.stored:
                await asyncio.sleep(0)
        server.open.clear()
        await shipper.add(TWO, "stdout", 20, texts(1))
        await flushed(shipper)
        server.open.set()


async def test_flush_of_a_run_that_said_nothing_returns():
    async with shipping() as (_, shipper):
        await flushed(shipper)


async def test_what_is_kept_of_a_run_is_forgotten_when_it_is_flushed():
    async with shipping() as (_, shipper):
        for number in range(20):
            await shipper.add(UUID(int=number), "stdout", 20, texts(2))
            await flushed(shipper, UUID(int=number))
        assert not shipper._last_at
        assert not shipper._unsent
        assert shipper._waiting_bytes == 0


async def test_an_answer_that_nobody_expects_costs_no_run_its_end():
    async with shipping() as (server, shipper):
        server.script = ["broken"]
        await shipper.add(ONE, "stdout", 20, texts(1))
        await flushed(shipper)
        await shipper.add(TWO, "stdout", 20, texts(2))
        await flushed(shipper, TWO)
        assert server.messages(TWO) == ["line 0", "line 1"]


async def test_lines_of_several_runs_share_a_request():
    async with shipping() as (server, shipper):
        for run in (ONE, TWO):
            await shipper.add(run, "stdout", 20, texts(1))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            while len(server.stored) < 2:
                await asyncio.sleep(0)
        assert server.requests == 1


async def test_a_run_that_has_ended_waits_for_no_company(monkeypatch):
    monkeypatch.setattr(logs, "LINGER_SECONDS", 60)
    async with shipping() as (server, shipper):
        await shipper.add(ONE, "stdout", 20, texts(1))
        await flushed(shipper, ONE)
        assert len(server.stored) == 1
