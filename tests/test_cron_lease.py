"""A cron job in Redis: leases that end at the wrong time, and what is forgotten."""

from __future__ import annotations

from redis.asyncio import Redis

from redis_worker.broker.cron import CronStore, JobState, Run, Verdict
from redis_worker.broker.cron_status import read_jobs
from redis_worker.broker.keys import CRON
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


async def test_a_job_that_nobody_looks_after_is_forgotten(server: EmbeddedServer, redis: Redis) -> None:
    store = CronStore(server.url)
    state = JobState(store, "test", "job", "* * * * *", "UTC", "skip", None)
    await state.open()
    keys = [key async for key in redis.scan_iter("*:cron:*")]
    assert keys
    for key in keys:
        assert await redis.ttl(key) > 89 * 86_400
        await redis.expire(key, 0)
    assert await read_jobs(store.connection) == []
    assert not await redis.exists(CRON)
    await store.close()
