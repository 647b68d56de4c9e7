"""The lease of a cron run, as the run ends."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker.broker.cron import CronStore, JobState
from redis_worker.broker.lease import Lease
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from tests.support import wait_until


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
