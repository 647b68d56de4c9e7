"""The lease: who renews it, who loses it, and what a worker may do without one."""

from __future__ import annotations

import asyncio
import itertools

from redis_worker.broker.queue.lease import Lease, renew_lease
from redis_worker.broker.queue.settlement import Limits
from redis_worker.vocabulary.task import Delivery
from tests.queue_calls.members import (
    LEASE,
    Join,
    Member,
    done,
    ids,
    now,
    task,
    waiting,
)
from tests.support import Queue, rounds_until, wait_until


async def test_a_worker_that_is_presumed_dead_claims_nothing(queue: Queue, join: Join) -> None:
    first, second = await join(), await join()
    await second.bury(first)
    await queue.push(task(1))
    name = first.name
    assert await first.claim() == []
    assert await waiting(queue) == ["1"]
    assert first.losses.names == [name]
    [delivery] = await first.claim()  # under another name
    assert first.name != name
    assert await first.queue.settle([done(delivery)]) == []


async def test_what_was_claimed_before_a_change_of_the_name_is_fenced_too(queue: Queue, join: Join) -> None:
    """A worker that cannot use one of its lists goes on under another name; if that is presumed dead, all is lost."""
    first, second = await join(), await join()
    await queue.push(task(1))
    [delivery] = await first.claim()
    name = first.name
    await queue.redis.set(queue.keys.arrived(name), "damage")
    assert await first.claim() == []
    await queue.redis.delete(queue.keys.arrived(name))
    assert first.name != name
    assert ids(await queue.inflight()) == ["1"]
    await second.bury(first)
    [theirs] = await second.claim()
    assert await first.claim() == []  # it learns that it has lost its lease
    assert await first.claim() == []  # and takes another one
    outcome = done(delivery)
    assert await first.queue.settle([outcome]) == [outcome]
    assert await second.queue.settle([done(theirs, b"2")]) == []
    assert await queue.result(1) == {"status": "success", "result": 2}


async def test_a_lease_that_was_taken_away_is_not_renewed_and_one_that_was_deleted_is(queue: Queue, join: Join) -> None:
    first, second, third = await join(), await join(), await join()
    registries = [queue.keys.workers, queue.keys.retired, queue.keys.claimants]
    await second.bury(first)
    await queue.redis.zrem(queue.keys.workers, third.name)
    assert not await renew_lease(first.line, registries, Lease(first.name), LEASE)
    assert await renew_lease(third.line, registries, Lease(third.name), LEASE)
    names = {name.decode() for name in await queue.redis.zrange(queue.keys.workers, 0, -1)}
    assert names == {second.name, third.name}


async def test_a_lease_is_renewed_well_before_it_ends(queue: Queue, join: Join) -> None:
    """By the server's clock, two renewals in a row are less than half a lease apart, once it is not too busy."""
    member = await join(lease=1.0, kept=True)
    ends: list[float] = []

    async def renewed_soon() -> bool:
        await renewed(queue, member, ends, 1)
        # The first comes right after the entry itself.
        return any(later - earlier < 500 for earlier, later in itertools.pairwise(ends[1:]))

    await wait_until(renewed_soon, "two renewals within half a lease")
    assert ends[-1] <= await now(queue.redis) / 1000 + 1000


async def renewed(queue: Queue, member: Member, ends: list[float], count: int) -> bool:
    """Note each new end of the lease. Returns whether there are so many."""
    end = await queue.redis.zscore(queue.keys.workers, member.name)
    if end not in ends:
        ends.append(end)
    return len(ends) >= count


async def test_all_leases_of_a_process_are_renewed(queue: Queue, join: Join) -> None:
    """As of many topics, by one thread."""
    first = await join(lease=1.0, kept=True)
    for member in (first, await join(beside=first)):
        await wait_until(lambda member=member, ends=[]: renewed(queue, member, ends, 4), "its renewals")


async def test_the_lease_of_an_idle_worker_rests_until_it_gets_a_task(queue: Queue, join: Join) -> None:
    member = await join(lease=1.0, kept=True, idempotent=True, limits=Limits(dead=10, remember=60_000))
    listening = asyncio.create_task(member.doorbell.run())

    async def next_claim() -> list[Delivery]:
        while not (deliveries := await member.queue.claim(1, wait=True)):
            pass
        return deliveries

    async def left() -> float:
        """Return the ms until its lease ends."""
        return await queue.redis.zscore(queue.keys.workers, member.name) - await now(queue.redis) / 1000

    async def rests() -> bool:
        return await left() > 60_000

    for number in range(3):
        claiming = asyncio.create_task(next_claim())
        await wait_until(rests, "its lease to rest")
        await queue.push(task(number))
        deliveries = await claiming
        assert await left() <= 1000
        await wait_until(lambda ends=[]: renewed(queue, member, ends, 3), "its renewals, while it holds a task")
        assert await left() <= 1000
        await member.queue.settle([done(delivery) for delivery in deliveries])
    listening.cancel()
    await asyncio.wait({listening})


async def test_a_renewal_that_has_failed_is_repeated_soon(queue: Queue, join: Join) -> None:
    """The server hangs for longer than the thread waits; at the next round of renewals the lease would be over."""
    member = await join(lease=3.0, kept=True)
    ends: list[float] = []
    await wait_until(lambda: renewed(queue, member, ends, 3), "a renewal")

    def was_repeated() -> bool:
        """Return True if the last renewal came after the pause, and before the end of the lease."""
        return len(ends) > 3 and 1500 < ends[-1] - ends[-2] < 3000

    async for _ in rounds_until(was_repeated, "a renewal of a valid lease"):
        count = len(ends)
        await queue.redis.execute_command("CLIENT", "PAUSE", "2500", "ALL")
        await wait_until(lambda count=count: renewed(queue, member, ends, count + 1), "the next one")


async def test_a_worker_learns_that_it_was_presumed_dead(queue: Queue, join: Join) -> None:
    """From the thread that renews, without a call of its own."""
    first, second = await join(lease=0.9, kept=True), await join()
    await queue.push(task(1))
    [delivery] = await first.claim()
    await second.bury(first)
    await wait_until(lambda: delivery.receipt.lost, "it to be told")
    await wait_until(lambda: first.losses.names, "its observer to be told")
