"""A program of a stranger's, which uses the public interface and is checked strictly with the installed package."""

from __future__ import annotations

import asyncio
from typing import Any

from redis_worker import (
    ConfigurationError,
    Counters,
    Handlers,
    Message,
    PartStatus,
    PoolOptions,
    Publisher,
    Reject,
    Retry,
    RunningTask,
    Supervisor,
    SyncTaskClient,
    TaskClient,
    TaskError,
    TaskQueue,
    TopicWorker,
    WorkerPool,
    processor,
    start_worker_pool,
)

URL = "redis://localhost"


@processor(execution="thread", timeout="30s", retries=2)
def divide(arguments: list[float]) -> float:
    numerator, denominator = arguments
    if denominator == 0:
        raise Reject("a division by zero")
    return numerator / denominator


queue = TaskQueue(URL, "mail")


@queue.task(retries=3, timeout=30)
async def send_mail(to: str, body: str) -> int:
    return len(to) + len(body)


handlers = Handlers()


@handlers.handler("order.*", retries=3, idempotent=True)
async def order(message: Message) -> None:
    if message.attempt == 1:
        raise Retry("not yet", delay=1.0)


@handlers.batch_handler("mail", size=100, within="500ms")
async def send(messages: list[Message]) -> dict[str, str]:
    return {message.id: "no address" for message in messages if not message.data}


async def main() -> None:
    options: PoolOptions = PoolOptions(lease="10s", timeout=60)
    async with WorkerPool(URL, "in", "out", "list", divide, lease=options.lease) as pool:
        running: list[RunningTask] = pool.running_tasks()
        async with TaskClient(URL, "in", "out") as client:
            id: str = await client.submit([1, 4], "one", delay=0.1)
            try:
                value: Any = await client.result(id, timeout=10)
                print(value, running)
            except TaskError as error:
                print(error.id, error.error)
    counters: Counters = pool.counters
    print(counters.processed)
    await start_worker_pool(URL, "in", "out", "list", "sum", burst=True)
    handle = await send_mail.submit("a@example.com", body="hi")
    length: int = await handle.result(timeout=10)
    print(length)
    worker = TopicWorker(URL)
    worker.include(handlers)
    async with worker, Publisher(URL) as publisher:
        await publisher.publish("order.created", {"order": 7}, delay="10ms")
    async with Supervisor.from_file("workers.toml", url=URL) as supervisor:
        parts: list[PartStatus] = supervisor.parts()
        print(supervisor.ready, [part.name for part in parts])


def plain() -> object:
    with SyncTaskClient(URL, "in", "out") as client:
        return client.run([1, 4], timeout=10)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except ConfigurationError as error:
        print(error)
