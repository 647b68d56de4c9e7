"""The death of a worker: what returns, to whom it is charged, and who is not to be buried."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from redis_worker.broker.queue.registration import reclaim
from redis_worker.vocabulary.errors import Disconnected
from tests.queue_calls.members import (
    DAY_MS,
    Join,
    done,
    expire,
    late_pop,
    task,
    waiting,
)
from tests.support import Queue, hold, wait_until


async def test_tasks_of_a_dead_worker_return_in_order_and_only_what_was_claimed_is_charged(
    queue: Queue, join: Join
) -> None:
    first, second = await join(), await join()
    await queue.push(*map(task, range(3)))
    await first.claim()
    await late_pop(queue, first, 3)
    await queue.push(task(4))
    await second.bury(first)
    assert await waiting(queue) == ["0", "1", "2", "3", "4"]
    assert 6 * DAY_MS < await queue.redis.pttl(queue.keys.attempts) <= 7 * DAY_MS
    found = await second.claim()
    assert [(delivery.deaths, delivery.attempt) for delivery in found] == [(1, 2)] * 3 + [(0, 1)] * 2
    assert await second.queue.settle([done(delivery) for delivery in found]) == []
    assert not await queue.redis.exists(queue.keys.attempts)  # what is settled needs no counts


async def test_many_tasks_return_in_the_order_of_their_claims(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await queue.push(*map(task, range(120)))
    held = [*await first.claim(50), *await first.claim(100)]
    await first.queue.settle([done(delivery) for delivery in held[::2]])
    await second.bury(first)
    assert await waiting(queue) == [str(number) for number in range(1, 120, 2)]
    assert not await queue.redis.exists(queue.keys.inflight(first.name))


@pytest.mark.parametrize("retired", [False, True])
async def test_tasks_of_a_worker_of_the_version_before_return(queue: Queue, join: Join, retired: bool) -> None:
    """It held them in a list. One that is buried by such a version is retired, with tasks that it has not seen."""
    member, keys, redis = await join(), queue.keys, queue.redis
    if retired:
        await redis.zadd(keys.retired, {"old": 2**53})
        await hold(redis, keys, "old", *map(task, range(3)))
    else:
        await redis.zadd(keys.workers, {"old": 1})
        await redis.rpush(keys.listed("old"), *map(task, range(3)))
    await redis.rpush(keys.arrived("old"), task(3))
    await queue.push(task(4))
    assert await reclaim(member.line, keys, "old") == 4
    assert await waiting(queue) == ["0", "1", "2", "3", "4"]
    assert [delivery.deaths for delivery in await member.claim()] == [1, 1, 1, 0, 0]
    await redis.zrem(keys.retired, "old")


async def test_no_heartbeat_is_left_behind(queue: Queue, join: Join) -> None:
    """A dead worker's goes with it, and one that comes late is not stored."""
    first, second = await join(), await join()
    keys = queue.keys
    beat = ("present", [keys.workers, keys.presence], [first.name, b'{"a":1}'])
    assert await first.line.run(*beat) == 1
    await second.bury(first)
    assert await first.line.run(*beat) == 0
    assert not await queue.redis.exists(keys.presence)


async def test_a_living_worker_keeps_its_tasks(queue: Queue, join: Join) -> None:
    """Between the look for the dead and the return of their tasks, a worker may renew its lease."""
    first, second = await join(), await join()
    await queue.push(task(1))
    held = await first.claim()
    assert await reclaim(second.line, queue.keys, first.name) == -1
    assert await waiting(queue) == []
    assert await first.queue.settle([done(delivery) for delivery in held]) == []
    assert await queue.result(1) == {"status": "success", "result": 1}


async def test_what_comes_late_to_a_dead_worker_is_returned_by_the_next_sweep(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await second.bury(first)
    await late_pop(queue, first, 1)
    await second.recoverer().sweep()
    assert await waiting(queue) == ["1"]


async def test_what_comes_late_to_a_worker_that_has_left_is_returned(queue: Queue, join: Join) -> None:
    """A claim whose reply never came may still be under way."""
    first, second = await join(), await join()
    await first.lose("claim", first.claim())
    await first.queue.close()
    await late_pop(queue, first, 1)
    await second.recoverer().sweep()
    assert await waiting(queue) == ["1"]


async def test_names_of_retired_workers_are_kept_for_an_hour(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await second.bury(first)
    seconds, _ = await queue.redis.time()
    assert await queue.redis.zscore(queue.keys.retired, first.name) == pytest.approx((seconds + 3600) * 1000, abs=1e5)
    await second.recoverer().sweep()
    assert await queue.redis.zcard(queue.keys.retired) == 1
    assert await queue.redis.zscore(queue.keys.claimants, first.name) is not None
    await queue.redis.zadd(queue.keys.retired, {first.name: 1})
    await second.recoverer().sweep()
    for key in (queue.keys.retired, queue.keys.claimants):
        assert await queue.redis.zscore(key, first.name) is None


async def test_a_dead_worker_without_an_entry_gets_one_and_is_buried_later(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await queue.push(task(1))
    await first.claim()
    await queue.redis.zrem(queue.keys.workers, first.name)
    await second.recoverer().sweep()
    assert await waiting(queue) == []  # it may live
    assert await queue.redis.zscore(queue.keys.workers, first.name) is not None
    await second.bury(first)
    assert await waiting(queue) == ["1"]


async def test_a_worker_does_not_bury_itself(queue: Queue, join: Join) -> None:
    """After a stall its own lease is over too: it works, so it renews."""
    only = await join()
    await queue.push(task(1))
    held = await only.claim()
    await expire(only.line, only)
    await only.recoverer().sweep()
    assert await only.queue.settle([done(delivery) for delivery in held]) == []
    assert await queue.answered(1)


async def test_nobody_is_buried_after_a_stall_of_the_server(
    queue: Queue, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stood still has heard of no renewals."""
    first, second = await join(), await join()
    await queue.push(task(1))
    await first.claim()
    await expire(second.line, first)
    recoverer = second.recoverer(lease=0.6)  # of which a third is a stall
    run = second.line.run

    async def late(name: str, *arguments: Any, **options: Any) -> Any:
        reply = await run(name, *arguments, **options)
        await asyncio.sleep(0.25 if name == "overdue" else 0)
        return reply

    monkeypatch.setattr(second.line, "run", late)
    await recoverer.sweep()
    assert await waiting(queue) == []
    monkeypatch.setattr(second.line, "run", run)

    async def returned() -> bool:
        await recoverer.sweep()
        return await waiting(queue) == ["1"]

    await wait_until(returned, "the task, once the server is quick again")


async def test_the_dead_are_looked_for_several_times_a_lease(queue: Queue, join: Join) -> None:
    """Two looks in a row are less than half a lease apart, once it is not too busy."""
    member = await join()
    times: list[float] = []

    def looked_soon() -> bool:
        if member.line.scripts.count("overdue") > len(times):
            times.append(asyncio.get_running_loop().time())
        return any(later - earlier < 0.5 for earlier, later in itertools.pairwise(times))

    sweeping = asyncio.create_task(member.recoverer(lease=1.0).run())
    await wait_until(looked_soon, "two looks within half a lease")
    sweeping.cancel()
    await asyncio.wait({sweeping})


async def test_nobody_is_buried_within_a_lease_after_an_outage(
    queue: Queue, join: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The living have this time to renew."""
    member = await join()
    times: list[float] = []
    clock = asyncio.get_running_loop().time
    run = member.line.run

    async def note(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "overdue":
            times.append(clock())
            if len(times) == 1:
                raise Disconnected("away")
        return await run(name, *arguments, **options)

    monkeypatch.setattr(member.line, "run", note)
    sweeping = asyncio.create_task(member.recoverer(lease=1.0).run())
    await wait_until(lambda: len(times) >= 2, "the next look")
    sweeping.cancel()
    await asyncio.wait({sweeping})
    assert times[1] - times[0] >= 0.99  # the step of the loop's clock
