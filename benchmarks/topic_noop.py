"""A worker of one topic whose handler is the no-op: python -m benchmarks.topic_noop URL TOPIC KEY.

It counts the settled messages in KEY.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from benchmarks.bare_loop import loop_factory
from benchmarks.processors import async_noop
from redis_worker import Message, Observer, TopicWorker
from redis_worker.engine.loop import spare_garbage_collection
from redis_worker.vocabulary.task import Outcome

CONCURRENCY = 256
_TELL_EVERY = 0.005


class _Count(Observer):
    settled_count = 0

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        self.settled_count += len(outcomes)


async def main(url: str, topic: str, key: str) -> None:
    """Handle messages until the process is killed; `key` holds the number of those settled."""
    count, written = _Count(), -1
    worker = TopicWorker(url, concurrency=CONCURRENCY, observers=[count])

    @worker.handler(topic, concurrency=CONCURRENCY)
    async def handle(message: Message) -> None:
        await async_noop(message.data)

    redis: Any = Redis.from_url(url)
    async with worker:
        while True:
            if count.settled_count != written:
                written = count.settled_count
                await redis.set(key, written)
            await asyncio.sleep(_TELL_EVERY)


if __name__ == "__main__":
    spare_garbage_collection(CONCURRENCY)  # as `redis-worker run` does
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(*sys.argv[1:]))
