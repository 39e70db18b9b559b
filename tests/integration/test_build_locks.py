"""Two agents that want the same image: a Prefect server lets one build."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import VariableFilter, VariableFilterTags

from launch_prefect.images.locks import BuildLock
from launch_prefect.workers import build_locks


@pytest.fixture
async def client(prefect_server: str) -> AsyncIterator[PrefectClient]:
    async with PrefectClient(prefect_server) as client:
        yield client


def lock_of(client: PrefectClient, holder: str, scope: str = "") -> BuildLock:
    async def who(name: str) -> str:
        return scope

    return build_locks.of_server(client, holder=holder, scope=who)


async def held(client: PrefectClient) -> list[object]:
    tags = VariableFilter(tags=VariableFilterTags(all_=[build_locks.TAG]))
    response = await client._client.post(
        "/variables/filter", json={"variables": tags.model_dump(mode="json"), "limit": 50, "offset": 0}
    )
    return [variable["value"] for variable in response.json()]


async def test_one_at_a_time_and_nothing_is_left(client: PrefectClient) -> None:
    inside: list[str] = []
    most = 0

    async def build(holder: str) -> None:
        nonlocal most
        async with lock_of(client, holder)("team/train:1"):
            inside.append(holder)
            most = max(most, len(inside))
            await asyncio.sleep(0.05)
            inside.remove(holder)

    await asyncio.gather(*(build(f"agent-{number}") for number in range(6)))
    assert most == 1
    assert await held(client) == []


async def test_other_images_and_other_engines_do_not_wait(client: PrefectClient) -> None:
    a, b, c = lock_of(client, "a"), lock_of(client, "b"), lock_of(client, "c", scope="another engine")
    async with asyncio.timeout(5), a("train:1"), b("train:2"), c("train:1"):
        assert len(await held(client)) == 3


async def test_people_see_who_builds(client: PrefectClient) -> None:
    async with lock_of(client, "gpu-1")("team/train:1"):
        (value,) = await held(client)
    assert isinstance(value, dict)
    assert (value["agent"], value["image"]) == ("gpu-1", "team/train:1")


async def test_a_holder_that_is_gone_is_replaced(client: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = lock_of(client, "alive")
    names: list[str] = []
    real = PrefectClient.create_variable

    async def spy(self: PrefectClient, variable: VariableCreate) -> object:
        names.append(variable.name)
        return await real(self, variable)

    monkeypatch.setattr(PrefectClient, "create_variable", spy)
    async with lock("train:1"):
        pass
    # What an agent leaves that was killed in the middle of a build.
    await real(client, VariableCreate(name=names[0], value={"agent": "dead", "token": "x"}, tags=[build_locks.TAG]))
    monkeypatch.setattr(build_locks, "LOST_SECONDS", 1.0)
    started = time.monotonic()
    async with asyncio.timeout(20), lock("train:1"):
        assert time.monotonic() - started > 1.0
    assert await held(client) == []


async def test_a_holder_that_says_that_it_is_there_is_not(
    client: PrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_locks, "LOST_SECONDS", 1.0)
    monkeypatch.setattr(build_locks, "RENEW_SECONDS", 0.2)
    order: list[str] = []

    async def second() -> None:
        async with lock_of(client, "second")("train:1"):
            order.append("second")

    async with lock_of(client, "first")("train:1"):
        waiting = asyncio.ensure_future(second())
        renewed = 0
        while renewed < 10:  # by then it has been held for twice as long as a silent one would be
            (value,) = await held(client)
            assert isinstance(value, dict)
            renewed = value.get("renewed", 0)
        order.append("first")
    await asyncio.wait_for(waiting, 10)
    assert order == ["first", "second"]
