"""Large tasks in flight: in bundles, otherwise like any other (see also tests/test_model.py)."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from redis_worker.broker.operator.control import QueueControl, count_in_flight
from tests.queue_calls.members import Join, Member, again, done, ids, set_deaths, task, waiting
from tests.support import Queue

LARGE = "x" * 20_000


def large(number: int) -> bytes:
    return json.dumps({"id": str(number), "task": LARGE}).encode()


async def bundles(queue: Queue, member: Member) -> list[list[str]]:
    """Return the ids of the tasks in each bundle, with an empty text for one that has left it."""
    names = sorted(await queue.redis.keys(f"*{queue.keys.bundles(member.name)}:*"), key=lambda name: (len(name), name))
    found = [await queue.redis.lrange(name, 0, -1) for name in names]
    return [[json.loads(raw)["id"] if raw else "" for raw in raws] for raws in found]


async def test_a_large_task_leaves_its_bundle_as_it_is_settled_released_or_retried(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(large, range(4)))
    held = await member.claim(4)
    assert ids(held) == ["0", "1", "2", "3"]
    assert await bundles(queue, member) == [["0", "1", "2", "3"]]
    assert await count_in_flight(member.line, queue.keys, member.name) == 4
    assert await QueueControl(queue.redis, queue.keys.waiting).in_flight(3) == ([large(n) for n in range(3)], 4)
    assert not await member.queue.settle([done(held[1]), again(held[2])])
    await member.queue.release([held[3]])
    assert await waiting(queue) == ["3"]
    assert await bundles(queue, member) == [["0", "", "", ""]]
    assert not await member.queue.settle([done(held[1])])  # repeated: it was settled before
    assert ids(await queue.inflight()) == ["0"]
    await member.queue.settle([done(held[0])])
    assert await bundles(queue, member) == []
    assert not await queue.redis.exists(queue.keys.bundles(member.name))
    await member.queue.close()


async def test_a_claim_of_many_large_tasks_is_complete_and_in_order(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*(large(number)[:2000] + b'"}' for number in range(70)))
    held = await member.claim(5) + await member.claim(65)
    assert ids(held) == [str(number) for number in range(70)]
    assert [len(bundle) for bundle in await bundles(queue, member)] == [5, 32, 32, 1]
    assert not await member.queue.settle([done(delivery) for delivery in held[::-2]])
    await member.queue.release(held[::2])
    assert await waiting(queue) == ids(held[::2])
    assert await bundles(queue, member) == []
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
    assert await bundles(queue, first) == []
    await second.queue.close()


async def test_large_tasks_of_a_dead_worker_of_the_version_before_return_in_order(queue: Queue, join: Join) -> None:
    """It had each of them alone in a list, and their numbers in a set."""
    first, second = await join(), await join()
    await queue.push(task(0))
    [small] = await first.claim()
    numbers = range(small.number + 1, small.number + 13)
    await queue.redis.sadd(queue.keys.large(first.name), *numbers)
    for number in numbers:
        await queue.redis.rpush(f"{queue.keys.large(first.name)}:{number}", large(number))
    await second.bury(first)
    assert await waiting(queue) == ["0", *map(str, numbers)]
    assert [delivery.deaths for delivery in await second.claim()] == [1] * 13
    assert not await queue.redis.keys(f"*{queue.keys.large(first.name)}*")
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
    name = queue.keys.bundle(member.name, held[0].number)
    await queue.redis.delete(name)
    if damage == "overwritten":
        await queue.redis.set(name, "damage")
    assert not await member.queue.settle([done(held[0]), again(held[1])])
    assert await queue.answered(1)
    assert await queue.redis.zcard(queue.keys.delayed) == 1
    assert await count_in_flight(member.line, queue.keys, member.name) == 1
    await member.queue.close()
    assert not await queue.redis.exists(queue.keys.bundles(member.name), name)


async def test_a_worker_whose_hash_of_bundles_is_overwritten_goes_on(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(large(0))
    held = await member.claim()
    damaged, orphan = queue.keys.bundles(member.name), queue.keys.bundle(member.name, held[0].number)
    await queue.redis.set(damaged, "damage")
    await queue.push(large(1))
    assert await member.claim() == []  # it takes another name
    assert ids(await member.claim()) == ["1"]
    assert not await member.queue.settle([done(held[0])])
    assert await queue.answered(1)
    await member.queue.close()
    await queue.redis.delete(damaged, orphan)


@pytest.mark.parametrize("before", [(), (0,), (100,), range(32, 64), range(10, 290), range(0, 300, 2)], ids=str)
async def test_many_small_tasks_that_are_settled_in_order_are_those_in_flight(
    queue: Queue, join: Join, before: Iterable[int]
) -> None:
    """They are in bundles, which are acknowledged as a whole: `before` was settled by a call without a reply."""
    member = await join()
    await queue.push(*map(task, range(320)))
    held = await member.claim(320)
    assert ids(held) == [str(number) for number in range(320)]
    assert sum(map(len, await bundles(queue, member))) == 320
    await member.lose("settle", member.queue.settle([done(held[number]) for number in before] or [again(held[319])]))
    await queue.redis.delete(queue.keys.output)
    settled = {str(number) for number in before} or {"319"}
    assert await member.queue.settle([done(delivery) for delivery in held]) == []
    assert set(await queue.results()) == set(ids(held)) - settled
    assert await queue.inflight() == []
    assert await bundles(queue, member) == []
    assert not await queue.redis.exists(queue.keys.bundles(member.name))


async def test_many_small_tasks_are_in_the_hash_while_tasks_end_in_another_order(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(672)))
    held = await member.claim(224)
    await member.queue.settle([done(delivery) for delivery in held[::-1]])
    held = await member.claim(224)
    assert await bundles(queue, member) == []
    await member.queue.settle([done(delivery) for delivery in held])
    assert len(await member.claim(224)) == sum(map(len, await bundles(queue, member))) == 224
    await member.queue.close()
