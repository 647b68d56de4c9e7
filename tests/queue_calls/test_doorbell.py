"""The doorbell: no push is unheard, whenever it comes. Nothing but the push ends these waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.queue.doorbell import Bell, Doorbell
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, wait_until

KEY = "test:doorbell"
FOR_EVER = 10 * PATIENCE


@pytest.fixture
async def bell(server: EmbeddedServer, redis: Redis) -> AsyncIterator[Bell]:
    """A bell of a doorbell whose connection is up."""
    doorbell = Doorbell(address_of(server.url))
    running = asyncio.create_task(doorbell.run())
    await wait_until(lambda: tracking(redis), "the connection")
    # It rings when the connection is up, and a wait without one is a short one.
    await wait_until(lambda: heard(doorbell, "test:other", redis), "it to be ready")
    yield doorbell.bell(KEY)
    running.cancel()
    await asyncio.wait({running})
    await redis.delete(KEY, "test:other")


async def tracking(redis: Redis) -> set[str]:
    """The connections that are told of changes."""
    return {client["id"] for client in await redis.client_list() if "t" in client["flags"]}


async def heard(doorbell: Doorbell, key: str, redis: Redis) -> bool:
    await redis.rpush(key, 1)
    with doorbell.bell(key) as bell:
        return await bell.wait(1.0)


async def test_a_push_between_the_look_and_the_wait_is_heard(bell: Bell, redis: Redis) -> None:
    """The list was empty, then somebody pushed, and the server did not track the key yet."""
    assert not await redis.exists(KEY)
    await redis.rpush(KEY, 1)
    async with asyncio.timeout(PATIENCE):
        await bell.wait(FOR_EVER)


async def test_each_push_is_heard(bell: Bell, redis: Redis) -> None:
    """Only a push ends each of these waits."""
    async with asyncio.timeout(PATIENCE):
        for _ in range(20):
            waiting = asyncio.create_task(bell.wait(FOR_EVER))
            await asyncio.sleep(0)
            await redis.rpush(KEY, 1)
            await waiting


async def until_it_sleeps(bell: Bell) -> asyncio.Task[None]:
    """Wait until nothing is left to be heard: then the key is tracked, and only a change ends the wait returned."""
    for _ in range(20):
        waiting = asyncio.create_task(bell.wait(FOR_EVER))
        if not (await asyncio.wait({waiting}, timeout=1.0))[0]:
            return waiting
    raise AssertionError("it rings without a reason")


async def test_a_push_is_heard_after_a_lost_connection(bell: Bell, redis: Redis) -> None:
    """The end of the connection wakes all who wait, and the next push does too."""
    waiting = await until_it_sleeps(bell)
    before = await tracking(redis)
    for client in before:
        await redis.client_kill_filter(_id=client)
    async with asyncio.timeout(PATIENCE):
        await waiting  # it may have missed a change
        await wait_until(lambda: _other(redis, before), "another connection")
        waiting = await until_it_sleeps(bell)
        await redis.rpush(KEY, 1)
        await waiting


async def _other(redis: Redis, before: set[str]) -> bool:
    return bool(await tracking(redis) - before)


async def test_a_push_is_heard_after_a_flush(bell: Bell, redis: Redis) -> None:
    """A flush ends all tracking: it wakes all who wait, and the next push does too."""
    waiting = await until_it_sleeps(bell)
    async with asyncio.timeout(PATIENCE):
        await redis.flushall()
        await waiting
        waiting = await until_it_sleeps(bell)
        await redis.rpush(KEY, 1)
        await waiting


async def test_a_key_that_the_user_may_not_read_is_polled(server: EmbeddedServer, redis: Redis) -> None:
    """The other keys ring."""
    await redis.acl_setuser("idle", enabled=True, nopass=True, commands=["+@all"], keys=[KEY])
    doorbell = Doorbell(address_of(server.url.replace("redis://", "redis://idle:any@")))
    running = asyncio.create_task(doorbell.run())
    try:
        with doorbell.bell(KEY) as allowed, doorbell.bell("test:other") as refused:
            async with asyncio.timeout(PATIENCE):
                while await refused.wait(FOR_EVER):
                    pass
                waiting = await until_it_sleeps(allowed)
                await redis.rpush(KEY, 1)
                await waiting
    finally:
        running.cancel()
        await asyncio.wait({running})
        await redis.delete(KEY)
        await redis.acl_deluser("idle")
