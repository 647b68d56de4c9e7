"""Delays and retries: none early, each once, counted for as long as they last."""

from __future__ import annotations

import asyncio

import pytest

from redis_worker import TaskClient
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.queue.doorbell import Bell, Doorbell
from redis_worker.embedded import EmbeddedServer
from tests.queue_calls.members import (
    DAY_MS,
    Enough,
    Join,
    again,
    done,
    now,
    promote,
    promote_all,
    task,
    waiting,
)
from tests.support import PATIENCE, Queue


@pytest.mark.parametrize("days", [0, 30])
async def test_a_retry_is_counted_for_longer_than_its_delay(queue: Queue, join: Join, days: int) -> None:
    member = await join()
    await queue.push(task(1))
    [delivery] = await member.claim()
    await member.queue.settle([again(delivery, days * 86_400.0)])
    expires = await queue.redis.pttl(queue.keys.attempts)
    assert (days + 6) * DAY_MS < expires <= (days + 7) * DAY_MS
    [member_name] = await queue.redis.zrange(queue.keys.delayed, 0, -1)
    await queue.redis.zadd(queue.keys.delayed, {member_name: 1})
    await promote_all(member)
    [delivery] = await member.claim()
    assert (delivery.retries, delivery.attempt) == (1, 2)
    await member.queue.settle([again(delivery)])
    await promote_all(member)
    [delivery] = await member.claim()
    assert delivery.retries == 2
    await member.queue.settle([done(delivery)])
    assert not await queue.redis.exists(queue.keys.attempts)


async def test_a_delay_never_ends_before_its_time(queue: Queue, join: Join, server: EmbeddedServer) -> None:
    """To the microsecond: the due time in ms is rounded up."""
    member = await join()
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        for number in range(60):
            before = await now(queue.redis)
            if number % 2:
                await client.submit([number], number, delay=0.0509)
            else:
                await queue.push(task(number))
                [delivery] = await member.claim()
                before = await now(queue.redis)
                await member.queue.settle([again(delivery, 0.0509)])
            [(_, due)] = await queue.redis.zrange(queue.keys.delayed, 0, -1, withscores=True)
            await queue.redis.delete(queue.keys.delayed)
            assert due * 1000 >= before + 50_900


async def test_a_promoter_sleeps_until_the_next_task_is_due_and_moves_none_before(
    queue: Queue, join: Join, server: EmbeddedServer
) -> None:
    member = await join()
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        await client.submit([1], 1, delay=0.3)
    [(_, due)] = await queue.redis.zrange(queue.keys.delayed, 0, -1, withscores=True)
    # The server's time before a look, the sleep that follows it, and the time after it.
    looks: list[tuple[int, float, int]] = []
    before = await now(queue.redis)

    async def wait(seconds: float) -> None:
        """Look again at once, however long it would sleep."""
        nonlocal before
        looks.append((before, seconds * 1e6, after := await now(queue.redis)))
        before = after
        if await queue.redis.llen(queue.keys.waiting):
            raise Enough

    await promote(member, wait)
    *early, (_, _, moved) = looks
    assert moved >= due * 1000
    for before, sleep, after in early:  # it rounds up to a ms, and adds up to 20
        assert due * 1000 - after <= sleep <= due * 1000 - before + 21_000


async def test_what_is_due_is_appended_once_in_order_and_a_flood_without_a_rest(
    queue: Queue, join: Join, server: EmbeddedServer
) -> None:
    member = await join()
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        sent = await client.submit_many([[n] for n in range(2500)], delay=0)
    asked: list[float] = []

    async def wait(seconds: float) -> None:
        asked.append(seconds)
        if len(asked) == 3:
            raise Enough

    await promote(member, wait)
    assert asked[:2] == [0.0, 0.0]
    assert await waiting(queue) == list(sent)
    assert not await queue.redis.exists(queue.keys.delayed)


async def test_a_new_delay_wakes_promoters_out_of_a_long_sleep(
    queue: Queue, join: Join, server: EmbeddedServer
) -> None:
    """Nothing but the change ends these waits: by a delayed task, and by a retry."""
    member = await join()
    doorbell = Doorbell(address_of(server.url))
    listening = asyncio.create_task(doorbell.run())

    async def woken(bell: Bell) -> None:
        """Wait until nothing is left to be heard, then for a change."""
        while await bell.wait(1.0, poll=1.0):
            pass

    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client, asyncio.timeout(PATIENCE):
        with doorbell.bell(queue.keys.delayed) as bell:
            await woken(bell)
            await client.submit([1], 1, delay=600)
            assert await bell.wait(10 * PATIENCE, poll=10 * PATIENCE)
            await woken(bell)
            await queue.push(task(2))
            await member.queue.settle([again(delivery, 600) for delivery in await member.claim()])
            assert await bell.wait(10 * PATIENCE, poll=10 * PATIENCE)
    listening.cancel()
    await asyncio.wait({listening})
