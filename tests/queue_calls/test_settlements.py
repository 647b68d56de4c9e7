"""Settlements and releases: fenced, repeatable, and of any size."""

from __future__ import annotations

import json
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_worker import Observer
from redis_worker.broker.operator.control import count_in_flight
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.settlement import Limits
from redis_worker.embedded import EmbeddedServer
from tests.queue_calls.members import (
    Join,
    Line,
    again,
    dead,
    done,
    ids,
    set_deaths,
    task,
    waiting,
)
from tests.support import Queue, wait_until


async def test_a_worker_that_was_presumed_dead_writes_and_returns_nothing(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await queue.push(*map(task, range(3)))
    held = await first.claim()
    await second.bury(first)
    await first.queue.release(held)
    assert await waiting(queue) == ["0", "1", "2"]
    outcomes = [done(held[0]), again(held[1]), dead(held[2])]
    assert set(await first.queue.settle(outcomes)) == set(outcomes)
    assert await queue.results() == {}
    assert await queue.dead() == []
    assert await waiting(queue) == ["0", "1", "2"]
    assert not await queue.redis.exists(queue.keys.delayed)


async def test_the_refused_are_those_that_others_have(queue: Queue, join: Join) -> None:
    """One of each kind, in a settlement of all kinds in no order."""
    member = await join()
    await queue.push(*map(task, range(9)))
    kinds = (dead, done, again)
    outcomes = [kinds[number % 3](delivery) for number, delivery in enumerate(await member.claim())]
    taken = [outcomes[index] for index in (3, 7, 8)]
    await queue.redis.zrem(queue.keys.workers, member.name)
    for outcome in taken:
        await queue.redis.hdel(queue.keys.inflight(member.name), outcome.delivery.number)
    assert set(await member.queue.settle(outcomes)) == set(taken)
    assert set(await queue.results()) == {"0", "6", "1", "4"}
    assert [letter["id"] for letter in await queue.dead()] == ["0", "6"]


async def test_a_settlement_is_repeated_after_a_lost_reply(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(6)))
    held = await member.claim()
    outcomes = [*map(done, held[:2]), *map(again, held[2:4]), *map(dead, held[4:])]
    await member.lose("settle", member.queue.settle(outcomes))
    assert await member.queue.settle(outcomes) == []
    assert await queue.redis.zcard(queue.keys.delayed) == 2
    assert len(await queue.dead()) == 2


async def test_a_release_is_repeated_after_a_lost_reply(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(3)))
    held = await member.claim()
    await member.lose("release", member.queue.release(held[1:]))
    await member.queue.release(held[1:])
    assert await waiting(queue) == ["1", "2"]
    assert ids(await queue.inflight()) == ["0"]


async def test_tasks_of_a_hash_that_somebody_deleted_are_answered_or_returned(queue: Queue, join: Join) -> None:
    """While the worker has its lease, nobody else has them."""
    member = await join()
    await queue.push(*map(task, range(4)))
    held = await member.claim()
    await queue.redis.delete(queue.keys.inflight(member.name))
    assert await member.queue.settle([done(held[0]), dead(held[1])]) == []
    await member.queue.release(held[2:])
    assert set(await queue.results()) == {"0", "1"}
    assert await waiting(queue) == ["2", "3"]


async def test_only_what_is_settled_leaves_the_tasks_in_flight(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(5)))
    held = await member.claim()
    await member.queue.settle([done(held[index]) for index in (0, 1, 4, 2)])
    assert ids(await queue.inflight()) == ["3"]
    assert set(await queue.results()) == {"0", "1", "2", "4"}


async def test_results_are_announced_and_the_dead_are_answered(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(4)))
    held = await member.claim()
    subscription = queue.redis.pubsub()
    await subscription.subscribe(queue.keys.channel)

    async def announced() -> Any:
        message = await subscription.get_message(ignore_subscribe_messages=True)
        return message and json.loads(message["data"])

    await member.queue.settle([done(held[0]), dead(held[1])])
    assert await wait_until(announced, "the announcement") == ["0", "1"]
    await member.queue.settle([done(held[2], b"[5]")])
    assert await wait_until(announced, "that of one") == {"2": {"status": "success", "result": [5]}}
    await member.queue.settle([done(held[3], b'"%b"' % (b"x" * 5_000))])
    assert await wait_until(announced, "that of a long one") == ["3"]
    await subscription.aclose()
    assert await queue.result(1) == {"status": "error", "error": "no"}
    assert [letter["id"] for letter in await queue.dead()] == ["1"]


async def test_one_settlement_has_a_bound_in_bytes(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(3)))
    value = b'"' + b"x" * 7_000_000 + b'"'
    await member.queue.settle([done(delivery, value) for delivery in await member.claim()])
    assert member.line.scripts.count("settle") == 2
    assert await queue.redis.hlen(queue.keys.output) == 3


async def test_thousands_of_tasks_go_through_each_call(queue: Queue, join: Join) -> None:
    """More than one command of a script takes."""
    can_expire = await fields_expire(queue.redis)
    member = await join(limits=Limits(result_ttl=1000 if can_expire else 0, dead=20_000))
    count = 9_001
    await queue.push(*map(task, range(count)))
    await set_deaths(queue, task("another"), 1)  # the longer way through the script
    held = await member.claim(count // 2)
    await queue.redis.delete(queue.keys.attempts)
    while len(held) < count:  # a claim of many takes whole bundles
        held += await member.claim(count)
    assert ids(held) == [str(number) for number in range(count)]
    assert await count_in_flight(member.line, queue.keys, member.name) == count
    await member.queue.release(held)
    assert await waiting(queue) == [str(number) for number in range(count)]
    held = []
    while len(held) < count:
        held += await member.claim(count)
    outcomes = [(dead if number % 3 == 1 else done)(delivery) for number, delivery in enumerate(held)]
    assert await member.queue.settle(outcomes) == []
    assert await queue.inflight() == []
    assert set(await queue.results()) == {str(number) for number in range(count)}
    assert len(await queue.dead()) == count // 3
    if can_expire:
        left = await queue.redis.execute_command("HTTL", queue.keys.output, "FIELDS", count, *range(count))
        assert all(0 < seconds <= 1000 for seconds in left)


async def fields_expire(redis: Redis) -> bool:
    """Whether the server has HEXPIRE."""
    try:
        await redis.execute_command("HTTL", "nothing", "FIELDS", 1, "field")
    except ResponseError:
        return False
    return True


async def test_a_stop_returns_what_is_in_flight_in_order_and_uncharged(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(4)))
    held = await member.claim()
    await member.queue.release(held[2:])
    assert await waiting(queue) == ["2", "3"]
    await member.queue.close()
    assert await waiting(queue) == ["0", "1", "2", "3"]
    assert not await queue.redis.exists(queue.keys.attempts)


async def test_at_most_once_returns_in_order_too(queue: Queue, server: EmbeddedServer) -> None:
    line = Line(server.url)
    taking = AtMostOnceQueue(line, line, queue.keys, Observer(), Limits(dead=10_000))
    await queue.push(*map(task, range(3)))
    await taking.release(await taking.claim(3, wait=False))
    assert await waiting(queue) == ["0", "1", "2"]
    await line.close()
