"""A worker of one topic that records when its handler runs: python -m benchmarks.topic_worker URL TOPIC OUTPUT."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from redis.asyncio import Redis

from redis_worker import Message, TopicWorker


async def main(url: str, topic: str, output: str) -> None:
    """Handle messages until the process is killed."""
    redis: Any = Redis.from_url(url)
    worker = TopicWorker(url)

    @worker.handler(topic, concurrency=20)
    async def note(message: Message) -> None:
        await redis.hsetnx(output, message.id, time.time())

    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
