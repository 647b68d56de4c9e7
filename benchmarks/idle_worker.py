"""Many queues in one program, and nothing in them: python -m benchmarks.idle_worker URL topics|pools NUMBER."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.contenders import idle_queue
from redis_worker import Message, TopicWorker, WorkerPool
from redis_worker.engine.loop import loop_factory


async def topics(url: str, number: int) -> None:
    """Consume so many topics until the process is killed."""
    worker = TopicWorker(url)
    for index in range(number):

        @worker.handler(idle_queue(index))
        async def handle(message: Message) -> None:
            raise AssertionError(f"nothing is published: {message}")

    await worker.run()


async def pools(url: str, number: int) -> None:
    """Work on so many lists until the process is killed."""
    queues = [(idle_queue(index), f"{idle_queue(index)}:output") for index in range(number)]
    await asyncio.gather(*(WorkerPool(url, *queue, "list", "sum").run() for queue in queues))


if __name__ == "__main__":
    work = {"topics": topics, "pools": pools}[sys.argv[2]](sys.argv[1], int(sys.argv[3]))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work)
