"""The claims of a cron job, call by call: each instant once, whatever is lost, late or repeated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker.broker.cron import MOST_QUEUED, Claim, CronStore, JobState, Run, Verdict
from redis_worker.broker.keys import CRON, CronKeys, cron_stem
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.broker.queue.lease import Lease
from redis_worker.embedded import EmbeddedServer

FIRED, TAKEN, EARLY = Verdict.FIRED, Verdict.TAKEN, Verdict.EARLY
APP = "test-claims"
KEYS = CronKeys(cron_stem(APP, "job", None))


class Job:
    """A job whose instants are long past, so that they are all due."""

    def __init__(self, store: CronStore, redis: Redis, state: JobState) -> None:
        self.store = store
        self.redis = redis
        self.state = state
        self.start = 1_000_000_000_000

    async def claim(self, number: int, run: Lease | None = None) -> Claim:
        """Claim the instant of this number."""
        instant = self.start + number * 1000
        return await self.state.claim(instant, run or self.store.new_run(), instant + 1000)

    async def fire(self, number: int) -> Run:
        """Claim it, and get it."""
        run = self.store.new_run()
        claim = await self.claim(number, run)
        assert (claim.verdict, claim.value) == (FIRED, self.start + number * 1000)
        return Run(run, claim.value, claim.value)

    async def take(self, run: Lease | None = None) -> Claim:
        return await self.state.take(run or self.store.new_run(), self.start)

    async def finish(self, run: Run) -> bool:
        return await self.state.finish(run, "success", None, 0.0)

    async def die(self, run: Run) -> None:
        """Let its lease end."""
        await self.redis.zadd(KEYS.running, {run.lease.name: 1})

    async def status(self) -> JobStatus:
        [status] = await read_jobs(self.store.connection)
        return status


New = Callable[..., Any]


@pytest.fixture
async def new(server: EmbeddedServer, redis: Redis) -> AsyncIterator[New]:
    """Makes the job, of which nothing is left at the end."""
    store = CronStore(server.url, lease=600)

    async def new(overlap: str = "allow") -> Job:
        job = Job(store, redis, JobState(store, APP, "job", "* * * * * *", "UTC", overlap, None))
        await job.state.open()
        await redis.hset(KEYS.record, "floor", job.start - 1)  # as if it had run since then
        return job

    yield new
    await store.close()
    await redis.delete(CRON, *[key async for key in redis.scan_iter(f"*{APP}*")])


async def test_each_instant_once_and_none_early(new: New, redis: Redis) -> None:
    job = await new()
    await job.fire(1)
    assert (await job.claim(1)).verdict is TAKEN
    await job.fire(0)  # late, and not fired before
    seconds, _ = await redis.time()
    early = await job.state.claim((seconds + 600) * 1000, job.store.new_run(), 0)
    assert early.verdict is EARLY
    assert 0 < early.value <= 600_000


@pytest.mark.parametrize("kind", ["due", "queued", "hand"])
async def test_a_claim_that_is_repeated_after_a_lost_reply_is_the_same_claim(new: New, kind: str) -> None:
    job = await new()
    await job.state.queue([job.start + 1000, job.start + 2000])
    run = job.store.new_run()
    calls = {"due": lambda: job.claim(0, run), "queued": lambda: job.take(run), "hand": lambda: job.state.begin(run)}
    first = await calls[kind]()
    second = await calls[kind]()
    assert first.verdict is FIRED
    assert second == first
    status = await job.status()
    assert (status.running, status.queued) == (1, 2 - (kind == "queued"))
    await job.finish(Run(run, first.value, first.value))
    assert (await job.status()).counts == {"success": 1}


async def test_what_is_no_longer_remembered_is_not_fired_again(new: New, redis: Redis) -> None:
    job = await new()
    for number in range(1002):
        await job.fire(number)
    assert await redis.zcard(KEYS.fired) == 1000
    for number in (0, 1, 2, 500, 1001):
        assert (await job.claim(number)).verdict is TAKEN
    await job.fire(1002)


async def test_what_was_caught_up_is_not_caught_up_again(new: New, redis: Redis) -> None:
    job = await new()
    instants = [job.start + number * 1000 for number in range(1002)]
    assert await job.state.queue(instants) == 1002
    assert await redis.zcard(KEYS.fired) == 1000
    assert await job.state.queue(instants) == 0
    assert (await job.claim(0)).verdict is TAKEN


async def test_missed_instants_are_given_up_once(new: New) -> None:
    job = await new()
    last = job.start - 1
    assert await job.state.give_up(last, job.start + 5000, 6)
    assert not await job.state.give_up(last, job.start + 5000, 6)  # another process has missed them too
    assert (await job.status()).counts == {"missed": 6}
    assert (await job.claim(5)).verdict is TAKEN
    await job.fire(6)


async def test_skip_runs_one_at_a_time(new: New) -> None:
    job = await new("skip")
    run = await job.fire(0)
    assert (await job.claim(1)).verdict is Verdict.SKIPPED
    await job.finish(run)
    assert (await job.claim(1)).verdict is TAKEN
    await job.fire(2)


async def test_queued_instants_run_one_after_the_other_in_order_and_have_a_bound(new: New) -> None:
    job = await new("queue")
    run = await job.fire(0)
    for number in range(1, MOST_QUEUED + 1):
        assert (await job.claim(number)).verdict is Verdict.QUEUED
    assert (await job.claim(MOST_QUEUED + 1)).verdict is Verdict.FULL
    assert (await job.take()).verdict is Verdict.BUSY
    await job.finish(run)
    # One that comes due now waits for those that have waited longer.
    lease = job.store.new_run()
    first = await job.take(lease)
    assert (first.verdict, first.value) == (FIRED, job.start + 1000)
    assert (await job.take()).verdict is Verdict.BUSY
    await job.finish(Run(lease, first.value, first.value))
    assert (await job.claim(MOST_QUEUED + 2)).verdict is Verdict.QUEUED
    assert (await job.status()).counts == {"success": 2, "skipped": 1}


async def test_even_if_runs_may_overlap_missed_ones_run_one_after_the_other(new: New) -> None:
    job = await new("allow")
    await job.state.queue([job.start, job.start + 1000])
    await job.fire(2)
    assert (await job.take()).verdict is FIRED
    assert (await job.take()).verdict is Verdict.BUSY
    await job.fire(3)


async def test_what_a_server_has_lost_was_not_missed(new: New, redis: Redis) -> None:
    """A process that registers its job again, on a server without data, has not missed all instants there ever were."""
    job = await new()
    for key in (KEYS.fired, KEYS.record):
        await redis.delete(key)
    seconds, _ = await redis.time()
    assert await job.state.open() >= seconds * 1000


async def test_a_changed_schedule_has_missed_nothing_and_a_run_by_hand_changes_none(new: New, redis: Redis) -> None:
    job = await new()
    seconds, _ = await redis.time()
    changed = JobState(job.store, APP, "job", "0 0 * * *", "UTC", "allow", None)
    assert await changed.open(by_hand=True) == job.start - 1
    status = await job.status()
    assert (status.schedule, status.timezone) == ("* * * * * *", "UTC")
    assert await changed.open() >= seconds * 1000
    assert (await job.status()).schedule == "0 0 * * *"


async def test_an_outcome_is_recorded_once(new: New) -> None:
    job = await new()
    run = await job.fire(0)
    assert not await job.finish(run)
    assert not await job.finish(run)
    status = await job.status()
    assert (status.counts, status.running) == ({"success": 1}, 0)


async def test_a_run_whose_process_died_is_lost_and_one_that_was_only_slow_is_not(new: New) -> None:
    job = await new()
    dead, slow = await job.fire(0), await job.fire(1)
    await job.die(dead)
    await job.die(slow)
    claim = await job.claim(2)
    assert len(claim.lost) == 2
    status = await job.status()
    assert (status.counts, status.outcome, status.running) == ({"lost": 2}, "lost", 1)
    assert await job.finish(slow)  # it had been presumed lost
    assert (await job.status()).counts == {"lost": 1, "success": 1}
