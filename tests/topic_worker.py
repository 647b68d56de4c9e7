"""A topic worker as a process, for the tests: python -m tests.topic_worker URL.

Ten topics, t0 to t9, of which the even ones are idempotent. A third of the calls fail. What was handled is counted
in the hash `handled`, at the end of each call.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys

from redis.asyncio import Redis

from redis_worker import Message, TopicWorker

TOPICS = [f"t{number}" for number in range(10)]


def is_idempotent(topic: str) -> bool:
    return int(topic[1:]) % 2 == 0


async def main(url: str) -> None:
    redis = Redis.from_url(url)
    # A lease of usual length: on a busy machine a shorter one ends under workers that live.
    worker = TopicWorker(url, concurrency=60, max_deliveries=1000)

    async def handle(message: Message) -> None:
        await asyncio.sleep(random.uniform(0.0, 0.05))
        if random.random() < 1 / 3:
            raise ValueError("bad luck")
        await redis.hincrby("handled", message.id, 1)

    for topic in TOPICS:
        options = {"retries": 3, "retry_backoff": 0.1, "concurrency": 8, "idempotent": is_idempotent(topic)}
        worker.handler(topic, **options)(handle)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    print("listening", flush=True)
    await worker.run()
    await redis.aclose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
