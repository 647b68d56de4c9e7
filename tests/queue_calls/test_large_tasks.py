"""Large tasks in flight: each in a list of its own, otherwise like any other (see also tests/test_model.py)."""

from __future__ import annotations

import json

import pytest

from redis_worker.broker.operator.control import QueueControl, count_in_flight
from tests.queue_calls.members import Join, Member, again, done, ids, set_deaths, task, waiting
from tests.support import Queue

LARGE = "x" * 20_000


def large(number: int) -> bytes:
    return json.dumps({"id": str(number), "task": LARGE}).encode()


async def lists(queue: Queue, member: Member) -> list[str]:
    """Return the numbers of the tasks that have a list."""
    names = await queue.redis.keys(f"*{queue.keys.large(member.name)}:*")
    return sorted(name.decode().rpartition(":")[2] for name in names)


async def test_a_large_task_leaves_its_list_as_it_is_settled_released_or_retried(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(large, range(4)))
    held = await member.claim(4)
    assert ids(held) == ["0", "1", "2", "3"]
    assert await lists(queue, member) == [str(delivery.number) for delivery in held]
    assert await count_in_flight(member.line, queue.keys, member.name) == 4
    assert await QueueControl(queue.redis, queue.keys.waiting).in_flight(3) == ([large(n) for n in range(3)], 4)
    assert not await member.queue.settle([done(held[1]), again(held[2])])
    await member.queue.release([held[3]])
    assert await waiting(queue) == ["3"]
    assert await lists(queue, member) == [str(held[0].number)]
    assert not await member.queue.settle([done(held[1])])  # repeated: it was settled before
    assert ids(await queue.inflight()) == ["0"]
    await member.queue.settle([done(held[0])])
    assert not await queue.redis.exists(queue.keys.large(member.name))
    await member.queue.close()


async def test_large_tasks_of_a_dead_worker_return_in_order_and_are_charged(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await queue.push(large(0), large(1))
    held = await first.claim(2)
    await queue.push(task(2), task(3), large(4))
    held += await first.claim(2)
    held += await first.claim(1)
    assert ids(held) == ["0", "1", "2", "3", "4"]
    await second.bury(first)
    assert await waiting(queue) == ids(held)
    assert [delivery.deaths for delivery in await second.claim()] == [1] * 5
    assert await first.queue.settle([done(held[0])])  # fenced
    assert await lists(queue, first) == []
    await second.queue.close()


async def test_large_tasks_that_were_claimed_and_not_read_are_found(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(large, range(3)))
    await member.lose("claim", member.claim(2))
    held = await member.queue.missing([])
    assert ids(held) == ["0", "1"]
    assert ids(await member.claim()) == ["2"]
    await member.queue.close()


async def test_a_last_chance_has_no_company_of_large_tasks(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(large(0))
    held = await member.claim()
    await queue.push(large(1))
    await set_deaths(queue, large(1), 2)
    assert await member.claim() == []
    await member.queue.settle([done(held[0])])
    assert ids(await member.claim()) == ["1"]
    await member.queue.close()


@pytest.mark.parametrize("damage", ["deleted", "overwritten"])
async def test_a_list_that_somebody_damages_costs_no_outcome(queue: Queue, join: Join, damage: str) -> None:
    member = await join()
    await queue.push(*map(large, range(3)))
    held = await member.claim()
    for delivery in held:
        name = queue.keys.large_task(member.name, delivery.number)
        await queue.redis.delete(name)
        if damage == "overwritten":
            await queue.redis.set(name, "damage")
    assert not await member.queue.settle([done(held[0]), again(held[1])])
    assert await queue.answered(1)
    assert await queue.redis.zcard(queue.keys.delayed) == 1
    assert await count_in_flight(member.line, queue.keys, member.name) == 1
    await member.queue.close()
    assert not await queue.redis.exists(queue.keys.large(member.name))


async def test_a_worker_whose_set_of_large_tasks_is_overwritten_goes_on(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(large(0))
    held = await member.claim()
    await queue.redis.delete(queue.keys.large(member.name))
    damaged, orphan = queue.keys.large(member.name), queue.keys.large_task(member.name, held[0].number)
    await queue.redis.set(damaged, "damage")
    await queue.push(large(1))
    assert await member.claim() == []  # it takes another name
    assert ids(await member.claim()) == ["1"]
    assert not await member.queue.settle([done(held[0])])
    assert await queue.answered(1)
    await member.queue.close()
    await queue.redis.delete(damaged, orphan)
