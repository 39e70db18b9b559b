"""Log records to the Prefect API: batched, in order, each exactly once, however long the server is away."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort
from prefect.logging import get_logger

from launch_prefect.workers.lines import storable
from launch_prefect.workers.reporting import until_answered

BATCH_RECORDS = 1000
"""Below 4,000 records, a request is one transaction of Prefect's server: stored whole or not at all."""
BATCH_BYTES = 2 * 1024 * 1024
LINGER_SECONDS = 0.1
"""Lines wait so long for company, unless their run has ended and waits for them."""
BUFFER_BYTES = 8 * 1024 * 1024
"""With more than this waiting, whoever adds waits: a chatty job is slowed rather than memory filled."""
PACK_FROM = 500
"""With more records than this waiting, neighbouring lines share a record: the server takes 2,000 records a second,
but 25 MB of them."""
PACK_BYTES = 128 * 1024

log = get_logger("launch.logs")


@dataclasses.dataclass(slots=True)
class Record:
    """One log record, not yet sent."""

    run_id: UUID
    name: str
    level: int
    message: str
    at: datetime
    size: int

    def payload(self) -> dict[str, Any]:
        """As the API takes it."""
        return {
            "name": self.name,
            "level": self.level,
            "message": self.message,
            "timestamp": self.at.isoformat(),
            "flow_run_id": str(self.run_id),
        }


class LogShipper:
    """Sends the log records of all runs of one worker.

    Within a run the records' times rise strictly, so that the order in which the UI shows them is the order in which
    they were added, and so that a record can be recognised on the server.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._waiting: deque[Record] = deque()
        self._waiting_bytes = 0
        self._last_at: dict[UUID, datetime] = {}
        self._unsent: dict[UUID, int] = {}
        self._added = asyncio.Event()
        self._sent = asyncio.Condition()
        self._flushing = 0
        self._urgent = asyncio.Event()

    async def add(self, run_id: UUID, name: str, level: int, messages: Iterable[tuple[str, datetime]]) -> None:
        """Queue messages of a run; waits while too much is waiting.

        Args:
            run_id: The run.
            name: Logger name shown with the records.
            level: Level as in the `logging` module.
            messages: Texts with the times they were written.
        """
        if self._waiting_bytes >= BUFFER_BYTES:
            async with self._sent:
                await self._sent.wait_for(lambda: self._waiting_bytes < BUFFER_BYTES)
        self.add_now(run_id, name, level, messages)

    def add_now(self, run_id: UUID, name: str, level: int, messages: Iterable[tuple[str, datetime]]) -> None:
        """Queue messages without waiting, however much is waiting; for what is little."""
        for message, at in messages:
            self._append(run_id, name, level, message, at)
        self._added.set()

    def _append(self, run_id: UUID, name: str, level: int, message: str, at: datetime) -> None:
        message = storable(message)
        last = self._waiting[-1] if self._waiting else None
        size = len(message) * 2 + 200
        if (
            last
            and len(self._waiting) > PACK_FROM
            and (last.run_id, last.name, last.level) == (run_id, name, level)
            and last.size + size < PACK_BYTES
        ):
            last.message += "\n" + message
            last.size += size
        else:
            before = self._last_at.get(run_id)
            if before is not None and at <= before:
                at = before + timedelta(microseconds=1)
            self._last_at[run_id] = at
            self._waiting.append(Record(run_id, name, level, message, at, size))
            self._unsent[run_id] = self._unsent.get(run_id, 0) + 1
        self._waiting_bytes += size

    async def flush(self, run_id: UUID) -> None:
        """Return when every record of the run that was added is on the server, and forget the run."""
        self._flushing += 1
        self._urgent.set()
        try:
            async with self._sent:
                await self._sent.wait_for(lambda: not self._unsent.get(run_id))
        finally:
            self._flushing -= 1
            if not self._flushing:
                self._urgent.clear()
        self._unsent.pop(run_id, None)
        self._last_at.pop(run_id, None)

    async def run(self) -> None:
        """Send for ever."""
        while True:
            await self._added.wait()
            if self._waiting_bytes < min(BATCH_BYTES, BUFFER_BYTES // 2):
                with suppress(TimeoutError):  # one request for what several runs say at nearly the same time
                    await asyncio.wait_for(self._urgent.wait(), LINGER_SECONDS)
            self._added.clear()
            while batch := self._next_batch():
                try:
                    await self._send(batch)
                except Exception:  # a bug must not stop the log of every run
                    log.exception("%s log records could not be sent", len(batch))
                async with self._sent:
                    for record in batch:
                        if record.run_id in self._unsent:
                            self._unsent[record.run_id] -= 1
                    self._sent.notify_all()

    def _next_batch(self) -> list[Record]:
        batch: list[Record] = []
        size = 0
        while self._waiting and len(batch) < BATCH_RECORDS and size < BATCH_BYTES:
            record = self._waiting.popleft()
            batch.append(record)
            size += record.size
        self._waiting_bytes -= size
        return batch

    async def _send(self, batch: list[Record]) -> None:
        in_doubt = False

        async def attempt() -> None:
            nonlocal in_doubt
            if in_doubt and await self._stored(batch[0]):
                return
            in_doubt = True
            await self._client.create_logs([record.payload() for record in batch])

        try:
            await until_answered(attempt)
        except httpx.HTTPStatusError as error:
            await self._send_singly(batch, error)

    async def _send_singly(self, batch: list[Record], error: httpx.HTTPStatusError) -> None:
        """The server refuses a batch for what is in it: find the record, so that the others are not lost with it."""
        if len(batch) > 1:
            middle = len(batch) // 2
            await self._send(batch[:middle])
            await self._send(batch[middle:])
            return
        log.warning("The server refused a log record of run %s: %s", batch[0].run_id, error)
        notice = f"[a log record of {len(batch[0].message)} characters was refused by the Prefect server]"
        if batch[0].message != notice:
            batch[0].message = notice
            await self._send(batch)

    async def _stored(self, record: Record) -> bool:
        """Whether a record whose request got no answer has been stored all the same."""
        around = timedelta(microseconds=1)
        found = await self._client.read_logs(
            LogFilter(
                flow_run_id=LogFilterFlowRunId(any_=[record.run_id]),
                timestamp=LogFilterTimestamp(after_=record.at - around, before_=record.at + around),
            ),
            limit=5,
            offset=0,
            sort=LogSort.TIMESTAMP_ASC,
        )
        return any(entry.timestamp == record.at for entry in found)


def now() -> datetime:
    """The time, as log records carry it."""
    return datetime.now(UTC)
