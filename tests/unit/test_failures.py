"""What could not be built is not tried again unasked, and says so; what passes is."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from launch_prefect.errors import BuildFailed, Unreachable
from launch_prefect.images.failures import REMEMBERED_SECONDS, Failures

KEY = ("sha256:1", "python:3")


class Work:
    def __init__(self, error: Exception | None) -> None:
        self.error, self.done = error, 0

    async def __call__(self) -> str:
        self.done += 1
        if self.error:
            raise self.error
        return "image"


@pytest.fixture
def failures(tmp_path: Path) -> Failures:
    return Failures(tmp_path)


async def test_the_same_content_is_not_tried_again_and_says_so(failures: Failures, tmp_path: Path) -> None:
    work = Work(BuildFailed("It stopped at RUN pip install: no such package six==999"))
    again = "The same content could not be built 0 seconds ago (for this run or another), and was not tried again. It"
    for start in ("It stopped at", again):
        with pytest.raises(BuildFailed) as caught:
            await Failures(tmp_path).unless_failed(KEY, work, secrets={})
        assert caught.value.message.startswith(start)
    assert "--rebuild" in caught.value.mend
    assert work.done == 1
    other = Work(None)
    assert await failures.unless_failed(("sha256:2",), other, secrets={}) == "image"


async def test_rebuild_tries_it_again_and_forgets_it_when_it_succeeds(failures: Failures) -> None:
    broken, whole = Work(BuildFailed("no")), Work(None)
    with pytest.raises(BuildFailed):
        await failures.unless_failed(KEY, broken, secrets={})
    assert await failures.unless_failed(KEY, whole, anyway=True, secrets={}) == "image"
    assert await failures.unless_failed(KEY, whole, secrets={}) == "image"
    assert whole.done == 2


@pytest.mark.parametrize(
    "message",
    [
        "pip: Temporary failure in name resolution",
        "error: Connection reset by peer",
        "ReadTimeoutError: HTTPSConnectionPool: Read timed out.",
        "HTTP Error 503: Service Unavailable",
    ],
)
async def test_what_passes_is_tried_again(failures: Failures, message: str) -> None:
    work = Work(BuildFailed(message))
    for _ in range(2):
        with pytest.raises(BuildFailed, match=message[:10]):
            await failures.unless_failed(KEY, work, secrets={})
    assert work.done == 2


@pytest.mark.parametrize(
    "message",
    [
        "main.c:503: error: expected ';'",
        "No matching distribution found for foo==0.502",
        "launch-prefect/env:ca503b cannot be made",
        "No matching distribution found for pytest-timeout==99",
        "Failed to fetch: HTTP status client error (401 Unauthorized)",
    ],
)
async def test_what_only_looks_as_if_it_passed_is_remembered(failures: Failures, message: str) -> None:
    work = Work(BuildFailed(message))
    for _ in range(2):
        with pytest.raises(BuildFailed):
            await failures.unless_failed(KEY, work, secrets={})
    assert work.done == 1


async def test_a_time_out_is_not_remembered_whatever_it_says(failures: Failures) -> None:
    work = Work(BuildFailed("not built within 3 s", passing=True))
    for _ in range(2):
        with pytest.raises(BuildFailed):
            await failures.unless_failed(KEY, work, secrets={})
    assert work.done == 2


async def test_another_secret_is_another_try_and_no_secret_is_kept_or_told(failures: Failures, tmp_path: Path) -> None:
    first = {"TOKEN": "hunter2-one", "PIP_INDEX_URL": "https://me:p%40ss-word@index.test/simple"}
    work = Work(BuildFailed("the token is hunter2-one, the password p@ss-word"))
    with pytest.raises(BuildFailed) as caught:
        await failures.unless_failed(KEY, work, secrets=first)
    for text in (caught.value.message, *(file.read_text() for file in tmp_path.iterdir())):
        assert "hunter2" not in text
        assert "ss-word" not in text
    (record,) = tmp_path.iterdir()
    assert record.stat().st_mode & 0o077 == 0
    assert await failures.unless_failed(KEY, Work(None), secrets={**first, "TOKEN": "hunter2-two"}) == "image"


async def test_other_errors_are_not_remembered(failures: Failures) -> None:
    work = Work(Unreachable("The registry does not answer."))
    for _ in range(2):
        with pytest.raises(Unreachable):
            await failures.unless_failed(KEY, work, secrets={})
    assert work.done == 2


async def test_old_and_damaged_records_count_for_nothing(failures: Failures, tmp_path: Path) -> None:
    with pytest.raises(BuildFailed):
        await failures.unless_failed(KEY, Work(BuildFailed("no")), secrets={})
    (record,) = tmp_path.iterdir()
    for content in (json.dumps({"at": time.time() - REMEMBERED_SECONDS - 1, "message": "no"}), "{", "[]", "{}"):
        record.write_text(content)
        assert await failures.unless_failed(KEY, Work(None), secrets={}) == "image"
