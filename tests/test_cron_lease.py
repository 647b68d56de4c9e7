"""A cron job in Redis: leases that end at the wrong time, and what is forgotten."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker.broker.cron import CronStore, JobState, Run, Verdict
from redis_worker.broker.keys import CRON
from redis_worker.broker.operator.cron_status import read_jobs
from redis_worker.broker.queue.lease import Lease
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from tests.support import wait_until


async def test_a_claim_whose_reply_was_lost_is_fired_however_late_it_is_repeated(
    server: EmbeddedServer, redis: Redis
) -> None:
    store = CronStore(server.url, lease=0.05)
    state = JobState(store, "test", "job", "* * * * * *", "UTC", "skip", None)
    instant = await state.open() + 1
    run = store.new_run()

    async def fired() -> bool:
        return (await state.claim(instant, run, instant + 1)).verdict is Verdict.FIRED

    await wait_until(fired, "it to be due")

    async def taken_for_lost() -> list[str]:
        return (await state.claim(instant, store.new_run(), instant + 1)).lost

    await wait_until(taken_for_lost, "somebody to notice that nobody renews its lease")
    again = await state.claim(instant, run, instant + 1)
    assert (again.verdict, again.value) == (Verdict.FIRED, instant)
    another = await state.claim(instant, store.new_run(), instant + 1)
    assert another.verdict is Verdict.TAKEN
    await state.finish(Run(run, instant, instant), "success", None, 0.0)
    [job] = await read_jobs(store.connection)
    assert job.counts == {"success": 1}
    await store.close()
    await redis.flushall()


async def test_a_repeated_claim_that_arrives_after_its_run_fires_no_other_queued_instant(
    server: EmbeddedServer, redis: Redis
) -> None:
    store = CronStore(server.url)
    state = JobState(store, "test", "job", "* * * * * *", "UTC", "queue", None)
    now = await state.open()
    await state.queue([now + 1000, now + 2000])
    run = store.new_run()
    first = await state.take(run, now + 3000)
    assert (first.verdict, first.value) == (Verdict.FIRED, now + 1000)
    await state.finish(Run(run, first.value, now), "success", None, 0.0)
    assert (await state.take(run, now + 3000)).verdict is Verdict.EMPTY
    assert (await state.take(store.new_run(), now + 3000)).value == now + 2000
    await store.close()
    await redis.flushall()


async def test_a_job_that_nobody_looks_after_is_forgotten(server: EmbeddedServer, redis: Redis) -> None:
    store = CronStore(server.url)
    state = JobState(store, "test", "job", "* * * * *", "UTC", "skip", None)
    await state.open()
    await state.begin(store.new_run())  # a run that no process ends
    await state.open()
    keys = [key async for key in redis.scan_iter("*:cron:*")]
    assert len(keys) == 3  # record, running, runs
    for key in keys:
        assert await redis.ttl(key) > 89 * 86_400
        await redis.expire(key, 0)
    assert await read_jobs(store.connection) == []
    assert not await redis.exists(CRON)
    await store.close()


async def test_the_end_of_a_run_is_not_taken_for_the_loss_of_its_lease(
    server: EmbeddedServer, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finish = JobState.finish

    async def slow(*arguments: Any, **named: Any) -> None:
        """The reply takes its time, in which there is a round of renewals."""
        await finish(*arguments, **named)
        marker = Lease("marker")
        store.keeper.keep("marker", marker, lambda: None)
        await wait_until(lambda: marker.lost, "a renewal of what is not there")
        store.keeper.drop(marker)

    monkeypatch.setattr(JobState, "finish", slow)
    store = CronStore(server.url, lease=0.3)
    settings = JobSettings("quick", "test", "* * * * *", job="tests.parts:tick", arguments={"marks": "/dev/null"})
    try:
        ended = await CronJob(settings, store).run_once()
    finally:
        await store.close()
        await redis.flushall()
    assert ended.outcome == "success"
    assert "presumed lost" not in caplog.text


async def test_who_looks_while_a_job_is_made_known_does_not_have_it_forgotten(
    server: EmbeddedServer, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, looker = CronStore(server.url), CronStore(server.url)
    state = JobState(store, "test", "job", "* * * * *", "UTC", "skip", None)
    call = store.connection.call

    async def watched(*arguments: Any, **named: Any) -> Any:
        """Somebody looks after each call."""
        reply = await call(*arguments, **named)
        await read_jobs(looker.connection)
        return reply

    monkeypatch.setattr(store.connection, "call", watched)
    await state.open()
    assert [job.name for job in await read_jobs(looker.connection)] == ["job"]
    await store.close()
    await looker.close()
    await redis.flushall()
