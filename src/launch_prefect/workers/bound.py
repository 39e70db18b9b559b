"""A worker and one run's configuration, as what the lifecycle drives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from launch_prefect.workers.attempt import Attempt
from launch_prefect.workers.configuration import with_macros
from launch_prefect.workers.lifecycle import Say
from launch_prefect.workers.running import Running


class Worker(Protocol):
    """What a target implements."""

    async def prepare(
        self, attempt: Attempt, configuration: Any, say: Say, on_build: Callable[[], Awaitable[None]]
    ) -> Any:
        """Get ready what the attempt runs in."""

    async def start_attempt(self, attempt: Attempt, configuration: Any, prepared: Any) -> Running:
        """Start it."""

    def facts(self, attempt: Attempt, prepared: Any) -> dict[str, Any]:
        """What exactly ran, for the run's labels."""

    async def clean(self, attempt: Attempt) -> None:
        """Remove what was made for this attempt alone."""


class Bound:
    """A worker and one run's configuration, as the lifecycle's target."""

    def __init__(self, worker: Worker, configuration: Any) -> None:
        self._worker = worker
        self._configuration = configuration

    async def prepare(self, attempt: Attempt, say: Say, on_build: Callable[[], Awaitable[None]]) -> Any:
        """See `lifecycle.Target`."""
        return await self._worker.prepare(attempt, self._configuration, say, on_build)

    async def start(self, attempt: Attempt, prepared: Any) -> Running:
        """See `lifecycle.Target`."""
        image = str(self._worker.facts(attempt, prepared).get("launch.image", ""))
        configuration = with_macros(self._configuration, attempt.macro_values(image))
        return await self._worker.start_attempt(attempt, configuration, prepared)

    def facts(self, attempt: Attempt, prepared: Any) -> dict[str, Any]:
        """See `lifecycle.Target`."""
        return self._worker.facts(attempt, prepared)

    async def clean(self, attempt: Attempt) -> None:
        """See `lifecycle.Target`."""
        await self._worker.clean(attempt)
