"""Starting commands under a supervisor, and the check that none of them leaves a process behind."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.supervision.watching import Starter, processes_with


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of jobs, with a mark by which this fixture checks that no process is left behind."""
    mark = f"LAUNCH_TEST_MARK={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    yield {"PATH": os.environ["PATH"], name: value}
    assert processes_with(mark, str(tmp_path)) == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "attempt"


@pytest.fixture
async def start(folder: Path, env: dict[str, str], tmp_path: Path) -> AsyncIterator[Starter]:
    starter = Starter(folder, env, tmp_path)
    yield starter
    for process in starter.started:
        await process.stop(0)
