"""A run's log, line by line."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort

_PAGE = 200  # the most that Prefect's API gives at once


@dataclasses.dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a run's log.

    Attributes:
        text: The line.
        at: When it was written.
        stream: `stdout`, `stderr`, or `launch` for the agent's own lines.
        level: Level as in the `logging` module; the standard error's lines have WARNING.
    """

    text: str
    at: datetime
    stream: str
    level: int


class LogCursor:
    """Where reading a run's log has come to."""

    def __init__(self, run_id: UUID) -> None:
        self._run_id = run_id
        self._last: datetime | None = None
        self._seen: set[UUID] = set()  # records of the very time the last page ended with

    async def read(self, client: PrefectClient) -> AsyncIterator[LogLine]:
        """The lines that have come since the last reading."""
        while True:
            page = await client.read_logs(self._filter(), limit=_PAGE, offset=0, sort=LogSort.TIMESTAMP_ASC)
            new = [entry for entry in page if entry.id not in self._seen]
            for entry in new:
                for text in entry.message.split("\n"):
                    yield LogLine(text, entry.timestamp, entry.name, entry.level)
            if new:
                self._last = new[-1].timestamp
                self._seen = {entry.id for entry in page if entry.timestamp == self._last}
            if len(page) < _PAGE or not new:
                return

    def _filter(self) -> LogFilter:
        return LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self._run_id]),
            # Prefect includes the moment itself
            timestamp=LogFilterTimestamp(after_=self._last) if self._last else None,
        )
