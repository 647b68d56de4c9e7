"""The queue of a worker, call by call: what each call leaves in Redis, and what the next worker finds there.

No worker runs here: the test is its engine, and loses replies, leases and lives where it likes.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_worker import Observer, TaskClient
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue, reclaim
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.delayed import Promoter, WakeChannel
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import Lease, LeaseKeeper, renew_lease
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.queue.topic import IdempotentQueue
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import PATIENCE, Queue, wait_until

DAY_MS = 86_400_000
LEASE = 600.0


class Line(Connection):
    """A connection that loses replies."""

    lost: str | None = None
    """The script whose next reply is lost."""

    def __init__(self, url: str) -> None:
        super().__init__(address_of(url).open(), owned=True)
        self.scripts: list[str] = []
        """All that were run."""

    async def run(self, name: str, *arguments: Any, **options: Any) -> Any:
        self.scripts.append(name)
        reply = await super().run(name, *arguments, **options)
        if name == self.lost:
            self.lost = None
            raise Disconnected("the reply was lost")
        return reply


class Unkept(LeaseKeeper):
    """Renews nothing, so that a lease ends when the test says so."""

    def keep(self, keys: Sequence[str], lease: Lease, on_lost: Callable[[], None]) -> None: ...

    def drop(self, lease: Lease) -> None: ...


class Losses(Observer):
    """Notes the names under which a worker was presumed dead."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def lease_lost(self, worker: str) -> None:
        self.names.append(worker)


class Member:
    """A worker, as far as Redis knows it."""

    def __init__(
        self, url: str, keys: Keys, keeper: LeaseKeeper, *, idempotent: bool = False, limits: Limits | None = None
    ) -> None:
        self.keeper = keeper
        self.line = Line(url)
        self.losses = Losses()
        self.keys = keys = Keys(keys.waiting) if idempotent else keys  # messages have no results
        options: dict[str, Any] = {"max_deliveries": 3, "limits": limits or Limits()}
        if idempotent:
            doorbell = Doorbell(address_of(url))
            self.queue: AtLeastOnceQueue = IdempotentQueue(self.line, doorbell, keys, keeper, self.losses, **options)
        else:
            self.queue = AtLeastOnceQueue(self.line, self.line, keys, keeper, self.losses, **options)

    @property
    def name(self) -> str:
        return self.queue.worker

    async def claim(self, limit: int = 100) -> list[Delivery]:
        return await self.queue.claim(limit, wait=False)

    async def lose(self, script: str, call: Awaitable[Any]) -> None:
        """Make a call that runs `script`, and never see its reply."""
        self.line.lost = script
        with pytest.raises(Disconnected):
            await call

    def recoverer(self, lease: float = LEASE) -> Recoverer:
        return Recoverer(self.line, self.keys, self.queue, self.losses, lease=lease)

    async def bury(self, other: Member) -> None:
        """Let the other one's lease end, and return its tasks."""
        await expire(self.line, other)
        await self.recoverer().sweep()


async def expire(line: Connection, member: Member) -> None:
    await line.call("ZADD", member.keys.workers, 1, member.name)


Join = Callable[..., Awaitable[Member]]


@pytest.fixture
async def join(server: EmbeddedServer, queue: Queue) -> AsyncIterator[Join]:
    """Makes members of the queue; at the end they leave, and nothing they hold is left in flight."""
    members: list[Member] = []
    keepers: list[LeaseKeeper] = []

    async def join(*, lease: float = LEASE, kept: bool = False, beside: Member | None = None, **options: Any) -> Member:
        """`kept` renews its lease; `beside` another member, the same thread renews both."""
        keeper = beside.keeper if beside else (LeaseKeeper if kept else Unkept)(address_of(server.url), lease)
        keepers.append(keeper)
        members.append(Member(server.url, queue.keys, keeper, **options))
        await members[-1].queue.open()
        return members[-1]

    yield join
    for member in members:
        await member.queue.close()
        await member.line.close()
    for keeper in keepers:
        await keeper.close()
    keys = queue.keys
    passing = (keys.attempts, keys.delayed, keys.done, keys.begun, keys.dropped, keys.paused)
    await queue.redis.delete(*passing, keys.waiting)


def task(number: int | str) -> bytes:
    return json.dumps({"id": str(number), "task": [number]}).encode()


def ids(raws: Iterable[bytes | Delivery]) -> list[str]:
    return [json.loads(raw.raw if isinstance(raw, Delivery) else raw)["id"] for raw in raws]


def done(delivery: Delivery, value: bytes = b"1") -> Outcome:
    return Outcome(delivery, *ids([delivery]), b'{"status":"success","result":%b}' % value)


def again(delivery: Delivery, delay: float = 0.0) -> Outcome:
    return Outcome(delivery, *ids([delivery]), None, "no", again=delay)


def dead(delivery: Delivery) -> Outcome:
    return Outcome(delivery, *ids([delivery]), b'{"status":"error","error":"no"}', "no", dead=True)


async def waiting(queue: Queue) -> list[str]:
    return ids(await queue.waiting())


async def late_pop(queue: Queue, member: Member, number: int) -> None:
    """Let a pop that the member has sent take a task: it checks no lease."""
    await queue.push(task(number))
    await queue.redis.lmove(queue.keys.waiting, queue.keys.arrived(member.name), "RIGHT", "RIGHT")


async def set_deaths(queue: Queue, raw: bytes, count: int) -> None:
    """As if so many workers had died holding the task."""
    await queue.redis.hset(queue.keys.attempts, f"d{hashlib.sha1(raw).hexdigest()}", count)


# --- the death of a worker ---


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
    await only.bury(only)
    assert await only.queue.settle([done(delivery) for delivery in held]) == []
    assert await queue.answered(1)


async def test_nobody_is_buried_after_a_stall_of_the_server(queue: Queue, join: Join) -> None:
    """A server that stood still has heard of no renewals."""
    first, second = await join(), await join()
    await queue.push(task(1))
    await first.claim()
    await expire(second.line, first)
    recoverer = second.recoverer(lease=3.0)
    await queue.redis.execute_command("CLIENT", "PAUSE", "1500", "ALL")
    await recoverer.sweep()
    assert await waiting(queue) == []

    async def returned() -> bool:
        await recoverer.sweep()
        return await waiting(queue) == ["1"]

    await wait_until(returned, "the task, once the server is quick again")


async def test_the_dead_are_looked_for_several_times_a_lease(queue: Queue, join: Join) -> None:
    """Of some looks in a row two are less than half a lease apart, however busy it is."""
    member = await join()
    times = [asyncio.get_running_loop().time()]
    sweeping = asyncio.create_task(member.recoverer(lease=1.0).run())
    for number in range(1, 6):
        await wait_until(lambda number=number: member.line.scripts.count("overdue") == number, "another look")
        times.append(asyncio.get_running_loop().time())
    sweeping.cancel()
    await asyncio.wait({sweeping})
    assert min(later - earlier for earlier, later in itertools.pairwise(times[1:])) < 0.5


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


# --- the lease ---


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
    """By the server's clock, of some renewals in a row two are less than half a lease apart, however busy it is."""
    member = await join(lease=1.0, kept=True)
    ends: list[float] = []

    await wait_until(lambda: renewed(queue, member, ends, 8), "eight renewals")
    assert ends[-1] <= await now(queue.redis) / 1000 + 1000
    # The first comes right after the entry itself.
    assert min(later - earlier for earlier, later in itertools.pairwise(ends[1:])) < 500


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


async def test_a_renewal_that_has_failed_is_repeated_soon(queue: Queue, join: Join) -> None:
    """The server hangs for longer than the thread waits; at the next round of renewals the lease would be over."""
    member = await join(lease=3.0, kept=True)
    ends: list[float] = []
    await wait_until(lambda: renewed(queue, member, ends, 3), "a renewal")
    await queue.redis.execute_command("CLIENT", "PAUSE", "2500", "ALL")
    await wait_until(lambda: renewed(queue, member, ends, 4), "the next one")
    assert 1500 < ends[3] - ends[2] < 5500


async def test_a_worker_learns_that_it_was_presumed_dead(queue: Queue, join: Join) -> None:
    """From the thread that renews, without a call of its own."""
    first, second = await join(lease=0.9, kept=True), await join()
    await queue.push(task(1))
    [delivery] = await first.claim()
    await second.bury(first)
    await wait_until(lambda: delivery.receipt.lost, "it to be told")
    await wait_until(lambda: first.losses.names, "its observer to be told")


# --- claims ---


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


# --- settlements ---


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
        await queue.redis.lrem(queue.keys.inflight(member.name), 1, outcome.delivery.raw)
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


async def test_only_what_is_settled_leaves_the_list_of_tasks_in_flight(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(5)))
    held = await member.claim()
    await member.queue.settle([done(held[index]) for index in (0, 1, 4, 2)])
    assert ids(await queue.inflight()) == ["3"]
    assert set(await queue.results()) == {"0", "1", "2", "4"}


async def test_results_are_announced_and_the_dead_are_answered(queue: Queue, join: Join) -> None:
    member = await join()
    await queue.push(*map(task, range(2)))
    held = await member.claim()
    subscription = queue.redis.pubsub()
    await subscription.subscribe(queue.keys.channel)
    await member.queue.settle([done(held[0]), dead(held[1])])

    async def announced() -> list[str] | None:
        message = await subscription.get_message(ignore_subscribe_messages=True)
        return message and json.loads(message["data"])

    assert await wait_until(announced, "the announcement") == ["0", "1"]
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
    held += await member.claim(count)
    assert ids(held) == [str(number) for number in range(count)]
    assert await queue.redis.llen(queue.keys.inflight(member.name)) == count
    await member.queue.release(held)
    assert await waiting(queue) == [str(number) for number in range(count)]
    await member.claim(count)
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
    taking = AtMostOnceQueue(line, line, queue.keys, Observer(), Limits())
    await queue.push(*map(task, range(3)))
    await taking.release(await taking.claim(3, wait=False))
    assert await waiting(queue) == ["0", "1", "2"]
    await line.close()


# --- delays ---


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


class Enough(Exception):
    """Ends a promoter."""


async def promote_all(member: Member) -> None:
    """Run a promoter until nothing is delayed."""

    async def wait(_: float) -> None:
        if not await member.line.call("EXISTS", member.keys.delayed):
            raise Enough

    with pytest.raises(Enough):
        await Promoter(member.line, member.keys, wait, Observer()).run()


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


async def now(redis: Redis) -> int:
    """The server's clock, in microseconds."""
    seconds, microseconds = await redis.time()
    return seconds * 1_000_000 + microseconds


async def test_a_promoter_sleeps_until_the_next_task_is_due_and_moves_none_before(
    queue: Queue, join: Join, server: EmbeddedServer
) -> None:
    member = await join()
    asked: list[float] = []
    moved_at = 0

    async def wait(seconds: float) -> None:
        """Look again at once, however long it would sleep."""
        nonlocal moved_at
        asked.append(seconds)
        if await queue.redis.llen(queue.keys.waiting):
            moved_at = await now(queue.redis)
            raise Enough

    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        await client.submit([1], 1, delay=0.3)
    [(_, due)] = await queue.redis.zrange(queue.keys.delayed, 0, -1, withscores=True)
    with pytest.raises(Enough):
        await Promoter(member.line, queue.keys, wait, Observer()).run()
    assert asked[0] <= 0.32
    assert moved_at >= due * 1000


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

    with pytest.raises(Enough):
        await Promoter(member.line, queue.keys, wait, Observer()).run()
    assert asked[:2] == [0.0, 0.0]
    assert await waiting(queue) == list(sent)
    assert not await queue.redis.exists(queue.keys.delayed)


@asynccontextmanager
async def listening(queue: Queue, url: str) -> AsyncIterator[WakeChannel]:
    channel = WakeChannel(address_of(url), queue.keys.wake)
    running = asyncio.create_task(channel.run())

    async def subscribed() -> bool:
        [(_, count)] = await queue.redis.pubsub_numsub(queue.keys.wake)
        return bool(count)

    await wait_until(subscribed, "the subscription")
    try:
        yield channel
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_a_new_delay_wakes_promoters_out_of_a_long_sleep(
    queue: Queue, join: Join, server: EmbeddedServer
) -> None:
    """Nothing but the announcement ends these waits: of a delayed task, and of a retry."""
    member = await join()
    async with (
        listening(queue, server.url) as channel,
        TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client,
        asyncio.timeout(PATIENCE),
    ):
        await client.submit([1], 1, delay=600)
        await channel.wait(10 * PATIENCE)
        await queue.push(task(2))
        await member.queue.settle([again(delivery, 600) for delivery in await member.claim()])
        await channel.wait(10 * PATIENCE)


# --- idempotent messages ---


def message(id: str, data: int = 0) -> bytes:
    return json.dumps({"id": id, "data": data}).encode()


@pytest.fixture
def join_idempotent(join: Join) -> Join:
    return lambda: join(idempotent=True, limits=Limits(remember=DAY_MS))


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
