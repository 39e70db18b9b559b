"""States and labels of runs to the Prefect API, through every outage of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, ObjectNotFound, PrefectHTTPStatusError
from prefect.logging import get_logger
from prefect.utilities.engine import propose_state
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from launch_prefect.workers.lines import storable

log = get_logger("launch.reporting")
T = TypeVar("T")


def is_passing(error: BaseException) -> bool:
    """Whether an API error is the server being away or overloaded rather than an answer.

    Refused credentials count: what has been run must be reported once they are mended.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (401, 403, 408, 429)
    return isinstance(error, httpx.TransportError)


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """Call until the server answers, for as long as it is away.

    Args:
        call: One request; it may be made many times.

    Returns:
        What it returns.

    Raises:
        httpx.HTTPStatusError: The server answered with a refusal.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception(is_passing),
        wait=wait_exponential_jitter(initial=0.1, max=5, jitter=0.5),
        before_sleep=lambda state: log.debug("Prefect API: attempt %s failed", state.attempt_number),
        reraise=True,
    ):
        with attempt:
            return await call()
    raise AssertionError("unreachable")


class Reporter:
    """Reports the states of one run."""

    def __init__(self, client: PrefectClient, run_id: UUID) -> None:
        self._client = client
        self._run_id = run_id

    async def propose(self, state: State[Any], *, force: bool = False) -> State[Any] | None:
        """Propose a state until the server answers.

        Args:
            state: The state.
            force: Pass by Prefect's rules on what may follow what.

        Returns:
            The state the run is now in, which is another one where the proposal was rejected (a cancelled run); None
            where the run has been deleted.
        """
        in_doubt = False
        state = state.model_copy(update={"message": storable(state.message)}) if state.message else state

        async def attempt() -> State[Any] | None:
            nonlocal in_doubt
            if in_doubt:  # the last request may have been carried out although its answer was lost
                current = await self._current()
                if current is None or _same(current, state):
                    return current
            in_doubt = True
            try:
                return await propose_state(self._client, state.model_copy(), flow_run_id=self._run_id, force=force)
            except Abort:
                return await self._current()

        try:
            return await until_answered(attempt)
        except (ObjectNotFound, PrefectHTTPStatusError) as error:
            if isinstance(error, PrefectHTTPStatusError) and error.response.status_code != 404:
                raise
            return None

    async def label(self, labels: dict[str, Any]) -> None:
        """Put facts about the attempt on the run, for people and for `run show`."""

        async def attempt() -> None:
            await self._client.update_flow_run_labels(self._run_id, labels)

        try:
            await until_answered(attempt)
        except (ObjectNotFound, httpx.HTTPStatusError) as error:
            log.warning("Run %s: its labels could not be set: %s", self._run_id, error)

    async def _current(self) -> State[Any] | None:
        try:
            return (await self._client.read_flow_run(self._run_id)).state
        except ObjectNotFound:
            return None


def _same(one: State[Any], other: State[Any]) -> bool:
    return (one.type, one.name, one.message) == (other.type, other.name, other.message)
