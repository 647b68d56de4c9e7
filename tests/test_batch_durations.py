"""Metrics of batches: each message counts once, with its share of the time."""

from __future__ import annotations

import asyncio
import time

from redis.asyncio import Redis

from redis_worker import Message, Publisher, TopicWorker
from redis_worker.broker.keys import TOPICS
from redis_worker.embedded import EmbeddedServer
from redis_worker.http.metrics import QueueMetrics
from tests.support import wait_until


async def test_each_message_of_a_batch_has_its_share_of_the_time(server: EmbeddedServer, redis: Redis) -> None:
    """Fails on the code before: most durations were 0 and left out, the others were of whole batches."""
    metrics = QueueMetrics()
    worker = TopicWorker(server.url, observers=[metrics])
    spent = []

    @worker.batch_handler("shares", size=50, within=0)
    async def handle(messages: list[Message]) -> None:
        began = time.perf_counter()
        await asyncio.sleep(0.05 * (messages[0].data != 0))
        spent.append(time.perf_counter() - began)

    async with Publisher(server.url) as publisher:
        await publisher.publish_many("shares", range(500))
    async with worker:
        await wait_until(lambda: worker.counters.processed == 500, "all messages")
    assert sum(metrics.processing.counts) == 500
    # The sum is what the batches took, not so many times as much as there are messages in one.
    assert sum(spent) <= metrics.processing.sum < 25 * sum(spent)
    await redis.delete(TOPICS)
