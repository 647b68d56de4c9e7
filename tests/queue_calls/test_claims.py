"""Claims: in order, up to a limit, and found again when their reply is lost."""

from __future__ import annotations

import json

import pytest

from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.embedded import EmbeddedServer
from tests.queue_calls.members import (
    Join,
    dead,
    done,
    ids,
    late_pop,
    set_deaths,
    task,
    waiting,
)
from tests.support import Queue


async def test_a_claim_takes_what_it_may_from_the_head(queue: Queue, join: Join) -> None:
    member = await join()
    await late_pop(queue, member, 0)
    await late_pop(queue, member, 1)
    await queue.push(*map(task, range(2, 5)))
    assert ids(await member.claim(2)) == ["0", "1"]
    assert ids(await member.claim(1)) == ["2"]
    assert await waiting(queue) == ["3", "4"]
    assert ids(await queue.inflight()) == ["0", "1", "2"]


async def test_large_tasks_are_claimed_in_small_numbers(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*(json.dumps({"id": n, "task": "x" * 2_000_000}).encode() for n in range(12)))
    assert 1 <= len(await member.claim(12)) <= 8
    await member.queue.close()


@pytest.mark.parametrize("size", [4_000, 40_000])  # the latter are large ones
async def test_a_claim_in_pieces_is_complete_and_in_order(queue: Queue, join: Join, size: int) -> None:
    member = await join()
    await queue.push(*(json.dumps({"id": str(n), "task": "x" * size}).encode() for n in range(30)))
    assert ids(await member.claim(7)) == [str(n) for n in range(7)]
    held = await member.claim(100)
    assert ids(held) == [str(n) for n in range(7, 30)]
    assert ids(await queue.inflight()) == [str(n) for n in range(30)]
    await member.queue.close()


async def test_no_two_tasks_share_a_number(queue: Queue, join: Join) -> None:
    """Neither after a lost reply, nor after somebody has deleted the tasks in flight."""
    member = await join()
    await queue.push(*map(task, range(9)))
    held = await member.claim(2)
    await member.lose("claim", member.claim(2))
    held += await member.claim(2)
    held += await member.queue.missing(held)
    await queue.redis.delete(queue.keys.inflight(member.name))
    held += await member.claim(2)
    assert len({delivery.number for delivery in held}) == len(set(ids(held))) == 8
    assert await member.queue.settle([done(delivery) for delivery in held[:6]]) == []
    assert ids(await queue.inflight()) == ids(held[6:])


async def test_a_pause_gives_back_in_order_what_a_pop_has_brought(queue: Queue, join: Join) -> None:
    member = await join()
    await late_pop(queue, member, 0)
    await late_pop(queue, member, 1)
    await queue.push(task(2))
    await queue.redis.set(queue.keys.paused, "1")
    assert await member.claim() == []
    assert await waiting(queue) == ["0", "1", "2"]
    await queue.redis.delete(queue.keys.paused)
    assert ids(await member.claim()) == ["0", "1", "2"]


async def test_a_task_with_one_chance_left_has_no_company(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(3)))
    await set_deaths(queue, task(1), 2)
    [before] = await member.claim()
    assert ids([before]) == ["0"]
    assert await member.claim() == []
    await member.queue.settle([done(before)])
    [suspect] = await member.claim()
    assert (ids([suspect]), suspect.deaths) == (["1"], 2)
    assert await member.claim() == []
    await member.queue.settle([done(suspect)])
    assert ids(await member.claim()) == ["2"]


async def test_lost_replies_are_found_again_with_their_counts_twins_included(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*[task("twin")] * 2, task("other"))
    await set_deaths(queue, task("other"), 1)
    held = await member.claim(1)
    await member.lose("claim", member.claim())
    missing = await member.queue.missing(held)
    assert sorted(zip(ids(missing), (it.deaths for it in missing), strict=True)) == [("other", 1), ("twin", 0)]
    assert await member.queue.missing([*held, *missing]) == []


async def test_under_a_new_name_old_tasks_are_neither_held_nor_settled_nor_released(queue: Queue, join: Join) -> None:
    """A worker that was presumed dead may claim the very same task again."""
    first, second = await join(), await join()
    await queue.push(task(1))
    [old] = await first.claim()
    await second.bury(first)
    assert await first.claim() == []
    await first.lose("claim", first.claim())
    [new] = await first.queue.missing([old])
    assert new.receipt is not old.receipt
    await first.queue.release([old])
    assert await waiting(queue) == []
    outcome = done(old)
    assert await first.queue.settle([outcome]) == [outcome]
    assert ids(await queue.inflight()) == ["1"]
    assert not await queue.answered(1)
    assert await first.queue.settle([done(new)]) == []


async def test_a_task_that_is_requeued_begins_anew(queue: Queue, join: Join, server: EmbeddedServer) -> None:
    """Even if somebody has died meanwhile who held a twin of it."""
    first, second = await join(), await join()
    await queue.push(*[task(1)] * 2)
    letter, twin = await first.claim()
    await first.queue.settle([dead(letter)])
    await second.bury(first)
    assert [delivery.deaths for delivery in await second.claim()] == [twin.deaths + 1]
    async with DeadLetters(server.url, queue.keys.waiting) as letters:
        assert await letters.requeue([letter async for letter in letters.letters()]) == 1
    assert [delivery.deaths for delivery in await first.claim()] == []  # it learns that it has lost its lease
    assert [delivery.deaths for delivery in await first.claim()] == [0]
