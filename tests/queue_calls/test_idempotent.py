"""Idempotent messages: one of an id at a time, and none again that was completed."""

from __future__ import annotations

import json

import pytest

from redis_worker.broker.queue.settlement import Limits
from tests.queue_calls.members import (
    DAY_MS,
    Join,
    Member,
    dead,
    done,
    now,
    promote_all,
)
from tests.support import PATIENCE, Queue


def message(id: str, data: int = 0) -> bytes:
    return json.dumps({"id": id, "data": data}).encode()


@pytest.fixture
def join_idempotent(join: Join) -> Join:
    return lambda: join(idempotent=True, limits=Limits(dead=10_000, remember=DAY_MS))


async def delayed(queue: Queue) -> list[bytes]:
    return [member.partition(b":")[2] for member in await queue.redis.zrange(queue.keys.delayed, 0, -1)]


async def test_one_message_of_an_id_at_a_time(queue: Queue, join_idempotent: Join) -> None:
    first, second = await join_idempotent(), await join_idempotent()
    await queue.push(message("x", 1), message("x", 2))
    before = await now(queue.redis)
    [running] = await first.claim()
    assert running.raw == message("x", 1)
    assert await delayed(queue) == [message("x", 2)]
    [(_, due)] = await queue.redis.zrange(queue.keys.delayed, 0, -1, withscores=True)
    assert due > before / 1000 + 400  # or it would be claimed and put off without a rest
    await queue.push(message("x", 3))
    assert await second.claim() == []
    assert await delayed(queue) == [message("x", 2), message("x", 3)]
    await first.queue.settle([done(running)])
    await promote_all_now(queue, second)
    assert [delivery.done for delivery in await second.claim()] == [True, True]


async def test_a_worker_of_the_version_before_that_runs_an_id_is_waited_for(
    queue: Queue, join_idempotent: Join
) -> None:
    """It holds messages in a list, and marks them by their bytes."""
    member, keys, redis = await join_idempotent(), queue.keys, queue.redis
    await redis.zadd(keys.workers, {"old": 2**53})
    await redis.rpush(keys.listed("old"), message("x", 1))
    await redis.hset(keys.begun, "x", b"old\n" + message("x", 1))
    await queue.push(message("x", 2))
    assert await member.claim() == []
    assert await delayed(queue) == [message("x", 2)]
    await redis.delete(keys.listed("old"))  # it has settled, and left its mark
    await promote_all_now(queue, member)
    assert [delivery.raw for delivery in await member.claim()] == [message("x", 2)]
    await redis.zrem(keys.workers, "old")


async def promote_all_now(queue: Queue, member: Member) -> None:
    found = await queue.redis.zrange(queue.keys.delayed, 0, -1)
    await queue.redis.zadd(queue.keys.delayed, {name: place for place, name in enumerate(found)})
    await promote_all(member)


async def test_what_was_put_off_is_handled_when_its_twin_has_failed(queue: Queue, join_idempotent: Join) -> None:
    first, second = await join_idempotent(), await join_idempotent()
    await queue.push(message("x", 1))
    [running] = await first.claim()
    await queue.push(message("x", 2))
    assert await second.claim() == []
    await first.queue.settle([dead(running)])
    await promote_all_now(queue, second)
    [delivery] = await second.claim()
    assert (delivery.raw, delivery.done) == (message("x", 2), False)


async def test_what_was_released_is_handled_later_by_anybody(queue: Queue, join_idempotent: Join) -> None:
    first, second = await join_idempotent(), await join_idempotent()
    await queue.push(message("x"))
    for member in (first, first, second, first):
        [delivery] = await member.claim()
        assert not delivery.done
        await member.queue.release([delivery])
    assert await delayed(queue) == []


async def test_what_is_settled_is_no_longer_begun(queue: Queue, join_idempotent: Join) -> None:
    member = await join_idempotent()
    for outcome in (dead, done):
        await queue.push(message("x"))
        [delivery] = await member.claim()
        assert not delivery.done
        await member.queue.settle([outcome(delivery)])
        assert not await queue.redis.exists(queue.keys.begun)
    await queue.push(message("x"))
    [delivery] = await member.claim()
    assert delivery.done


async def test_marks_of_completed_messages_end(queue: Queue, join_idempotent: Join) -> None:
    member = await join_idempotent()
    await queue.redis.zadd(queue.keys.done, {"x": 1, "y": 1})
    await queue.push(message("x"))
    [delivery] = await member.claim()
    assert not delivery.done
    await member.queue.settle([done(delivery)])
    marks = dict(await queue.redis.zrange(queue.keys.done, 0, -1, withscores=True))
    assert list(marks) == [b"x"]
    assert marks[b"x"] == pytest.approx(await now(queue.redis) / 1000 + DAY_MS, abs=2 * PATIENCE * 1000)


async def test_a_message_whose_beginning_lost_its_reply_is_handled(queue: Queue, join_idempotent: Join) -> None:
    member = await join_idempotent()
    await queue.push(message("x"))
    await member.lose("begin", member.claim())
    [delivery] = await member.queue.missing([])
    assert not delivery.done
    assert await delayed(queue) == []
