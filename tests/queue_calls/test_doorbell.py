"""The doorbell: no push is unheard, whenever it comes. Nothing but the push ends these waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, wait_until

KEY = "test:doorbell"
FOR_EVER = 10 * PATIENCE


@pytest.fixture
async def doorbell(server: EmbeddedServer, redis: Redis) -> AsyncIterator[Doorbell]:
    """A doorbell whose connection is up."""
    doorbell = Doorbell(address_of(server.url))
    running = asyncio.create_task(doorbell.run())
    await wait_until(lambda: tracking(redis), "the connection")
    # It rings when the connection is up, and a wait without one is a short one.
    await wait_until(lambda: heard(doorbell, "test:other", redis), "it to be ready")
    yield doorbell
    running.cancel()
    await asyncio.wait({running})
    await redis.delete(KEY, "test:other")


async def tracking(redis: Redis) -> set[str]:
    """The connections that are told of changes."""
    return {client["id"] for client in await redis.client_list() if "t" in client["flags"]}


async def heard(doorbell: Doorbell, key: str, redis: Redis) -> bool:
    await redis.rpush(key, 1)
    await doorbell.wait(key, 1.0)
    return True


async def test_a_push_between_the_look_and_the_wait_is_heard(doorbell: Doorbell, redis: Redis) -> None:
    """The list was empty, then somebody pushed, and the server did not track the key yet."""
    assert not await redis.exists(KEY)
    await redis.rpush(KEY, 1)
    async with asyncio.timeout(PATIENCE):
        await doorbell.wait(KEY, FOR_EVER)


async def test_each_push_is_heard(doorbell: Doorbell, redis: Redis) -> None:
    """Only a push ends each of these waits."""
    async with asyncio.timeout(PATIENCE):
        for _ in range(20):
            waiting = asyncio.create_task(doorbell.wait(KEY, FOR_EVER))
            await asyncio.sleep(0)
            await redis.rpush(KEY, 1)
            await waiting


async def until_it_sleeps(doorbell: Doorbell) -> asyncio.Task[None]:
    """Wait until nothing is left to be heard: then the key is tracked, and only a change ends the wait returned."""
    for _ in range(20):
        waiting = asyncio.create_task(doorbell.wait(KEY, FOR_EVER))
        if not (await asyncio.wait({waiting}, timeout=1.0))[0]:
            return waiting
    raise AssertionError("it rings without a reason")


async def test_a_push_is_heard_after_a_lost_connection(doorbell: Doorbell, redis: Redis) -> None:
    """The end of the connection wakes all who wait, and the next push does too."""
    waiting = await until_it_sleeps(doorbell)
    before = await tracking(redis)
    for client in before:
        await redis.client_kill_filter(_id=client)
    async with asyncio.timeout(PATIENCE):
        await waiting  # it may have missed a change
        await wait_until(lambda: _other(redis, before), "another connection")
        waiting = await until_it_sleeps(doorbell)
        await redis.rpush(KEY, 1)
        await waiting


async def _other(redis: Redis, before: set[str]) -> bool:
    return bool(await tracking(redis) - before)


async def test_a_push_is_heard_after_a_flush(doorbell: Doorbell, redis: Redis) -> None:
    """A flush ends all tracking: it wakes all who wait, and the next push does too."""
    waiting = await until_it_sleeps(doorbell)
    async with asyncio.timeout(PATIENCE):
        await redis.flushall()
        await waiting
        waiting = await until_it_sleeps(doorbell)
        await redis.rpush(KEY, 1)
        await waiting
