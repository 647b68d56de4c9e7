"""The lease of a cron run, as the run ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker.broker.cron import CronStore, JobState
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from tests.support import wait_until


async def test_the_end_of_a_run_is_not_taken_for_the_loss_of_its_lease(
    server: EmbeddedServer, redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    finish = JobState.finish
    noticed: list[Any] = []

    async def slow(*arguments: Any, **named: Any) -> None:
        """The reply takes its time, and the lease is renewed meanwhile."""
        await finish(*arguments, **named)
        lease = arguments[1].lease
        await wait_until(lambda: lease.lost, "the renewal to find the run gone")
        noticed.append(lease)

    monkeypatch.setattr(JobState, "finish", slow)
    store = CronStore(server.url, lease=0.3)
    settings = JobSettings("quick", "test", "* * * * *", job="tests.parts:tick", arguments={"marks": "/dev/null"})
    ended = await CronJob(settings, store).run_once()
    await asyncio.sleep(0)  # what the lease's thread has to say is heard
    await store.close()
    await redis.flushall()
    assert ended.outcome == "success"
    assert len(noticed) == 1
    assert "presumed lost" not in caplog.text
