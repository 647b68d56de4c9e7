"""The rate of a whole queue, over all workers: of a pool, and of each topic."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from redis_worker import ConfigurationError, Message, Observer, Publisher, TopicWorker, WorkerPool
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.task import Delivery
from tests.functions.test_limits import logged, most_in
from tests.support import CommandProcess, Queue, Topic, wait_until


async def test_workers_of_a_pool_keep_its_rate(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> None:
    await queue.push_tasks([[number] for number in range(70)])
    worker = CommandProcess(
        *("run", "--url", server.url, "--input", queue.keys.waiting, "--output", queue.keys.output, "--burst"),
        *("--processor", "tests.functions.limited:processor", "-w", "4", "--rate", "20/500ms"),
        env=os.environ | {"SHOP_FOLDER": str(tmp_path)},
    )
    await wait_until(lambda: not worker.alive)
    assert worker.process.returncode == 0
    assert {id: answer["result"] for id, answer in (await queue.results()).items()} == {
        str(number): number for number in range(70)
    }
    starts = [float(words[2]) for words in logged(tmp_path, "hit")]
    assert len(starts) == 70
    assert most_in(starts, 0.5) <= 20
    worker.close()
    await wait_until(lambda: is_over(queue))


async def is_over(queue: Queue) -> bool:
    """Return True once no start counts any more."""
    return not await queue.redis.exists(f"{queue.keys.limits}:rate")


class Claims(Observer):
    """Counts claims and releases."""

    def __init__(self) -> None:
        self.claims = self.releases = 0

    def claimed(self, deliveries: Any) -> None:
        self.claims += len(deliveries)

    def released(self, deliveries: list[Delivery]) -> None:
        self.releases += len(deliveries)


@pytest.mark.parametrize("execution", ["inline", "thread", "process"])
async def test_nothing_is_claimed_that_must_wait(server: EmbeddedServer, queue: Queue, execution: Any) -> None:
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum")
    await queue.push_tasks([[number] for number in range(12)])
    claims = Claims()
    async with WorkerPool(*names, 2, execution=execution, rate="10/h", observers=[claims]) as pool:
        await wait_until(lambda: queue.answered(10))
        assert sorted(map(int, await queue.results())) == [*range(10)]
        await wait_until(lambda: pool.consuming()[0].in_flight == 0)
    assert [json.loads(raw)["id"] for raw in await queue.waiting()] == [10, 11]
    assert claims.claims - claims.releases == 10
    await queue.redis.delete(queue.keys.waiting, f"{queue.keys.limits}:rate")


@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_topic_has_a_rate(server: EmbeddedServer, topic: Topic, idempotent: bool) -> None:
    workers = [TopicWorker(server.url) for _ in range(2)]
    starts: list[float] = []

    async def handle(message: Message) -> None:
        starts.append(time.time())
        if len(starts) == 1:
            raise OSError("once more")

    for worker in workers:
        worker.handler(topic.name, rate="4/100ms", idempotent=idempotent, retry_backoff=0.01)(handle)
    async with workers[0], workers[1], Publisher(server.url) as publisher:
        for number in range(20):
            await publisher.publish(topic.name, number)
        await wait_until(lambda: sum(worker.counters.succeeded for worker in workers) == 20)
    assert len(starts) == 21
    assert most_in(starts, 0.1) <= 4
    await wait_until(lambda: is_over(topic))


def test_wrong_rates_are_one_sentence() -> None:
    names = ("redis://localhost", "in", "out", "list", "sum")
    with pytest.raises(ConfigurationError, match='rate must be a text as "100/m", "5/s" or "1/10s", got 5'):
        WorkerPool(*names, rate=5)
    with pytest.raises(ConfigurationError, match="a rate needs at-least-once delivery"):
        WorkerPool(*names, rate="5/s", delivery="at-most-once")
    worker = TopicWorker("redis://localhost")
    with pytest.raises(ConfigurationError, match="handler print: a rate limits single messages, not batches"):
        worker.batch_handler("t", rate="5/s")(print)
