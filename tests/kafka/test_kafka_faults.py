"""A group of Kafka workers under faults in any order: members come and vanish, brokers and sink go and come back."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from redis_worker import KafkaMessage
from redis_worker.mock_kafka import MockKafka
from redis_worker.ports import Partition, Refusals
from redis_worker.vocabulary.errors import Disconnected
from tests.kafka.kafka_support import QUICK, KafkaTopic, MemorySink
from tests.support import wait_until

KEYS = 40
EACH = 250  # messages of a round
MODES: dict[str, dict[str, Any]] = {
    "any order": {"concurrency": 32},
    "by key": {"concurrency": 32, "ordered": "key"},
    "by partition": {"concurrency": 8, "ordered": "partition"},
    "round-robin, by key": {"concurrency": 32, "ordered": "key", "assignment": "round-robin"},
}


class UnsteadySink(MemorySink):
    """A database whose calls take a while, fail, or succeed and lose their reply."""

    outage: asyncio.Event
    """Set while the database is away, for all members."""

    def for_member(self) -> UnsteadySink:
        client = UnsteadySink(stores_offsets=self.stores_offsets)
        client.rows, client.offsets, client.owners = self.rows, self.offsets, self.owners
        client.outage = self.outage
        return client

    def _check(self) -> None:
        if self.outage.is_set():
            raise Disconnected("the database is away")

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        await asyncio.sleep(random.random() * 0.01)
        if random.random() < 0.03:
            raise Disconnected("the connection broke")
        if offsets and all(self.offsets.get(name) == offset for name, offset in offsets.items()):
            return {}  # a repetition
        found = await super().write(values, offsets=offsets, refused=refused)
        if random.random() < 0.03:
            raise Disconnected("the reply is lost")
        return found


class Members:
    """The workers of the group: tasks of this process."""

    def __init__(self, topic: KafkaTopic, database: UnsteadySink, options: dict[str, Any]) -> None:
        self._topic = topic
        self._database = database
        self._options = options
        self._running: list[tuple[Any, asyncio.Task[None]]] = []

    def join(self) -> None:
        options = {"retries": 5, "retry_backoff": 0.01, "wait": True, "revoke_timeout": 3, "properties": QUICK}
        worker = self._topic.worker(handle, sink=self._database.for_member(), **self._options, **options)
        self._running.append((worker, asyncio.create_task(worker.run())))

    async def leave(self) -> None:
        worker, task = self._running.pop(0)
        worker.stop()
        await task

    async def vanish(self) -> None:
        """End one as a killed process ends: nothing is written or committed any more."""
        _, task = self._running.pop(0)
        task.cancel()
        await asyncio.wait({task})

    async def change(self) -> None:
        """Let one join if there are few, else let one go in either way."""
        if len(self._running) < 2 or (len(self._running) < 4 and random.random() < 0.5):
            self.join()
        elif random.random() < 0.5:
            await self.leave()
        else:
            await self.vanish()

    async def end(self) -> None:
        for _, task in self._running:
            task.cancel()
        await asyncio.wait([task for _, task in self._running])
        for _, task in self._running:
            assert task.cancelled() or task.exception() is None


async def handle(message: KafkaMessage) -> dict[str, Any]:
    await asyncio.sleep(random.random() * 0.005)
    if random.random() < 0.02:
        raise ValueError("now and then")
    return {"n": message.data, "key": message.key, "at": (message.partition, message.offset)}


@pytest.mark.parametrize("stores_offsets", [False, True], ids=["offsets in Kafka", "offsets with the rows"])
@pytest.mark.parametrize("mode", MODES)
async def test_nothing_is_lost_nor_overtaken(mode: str, stores_offsets: bool) -> None:
    rounds = int(os.environ.get("KAFKA_ROUNDS", "6"))
    database = UnsteadySink(stores_offsets=stores_offsets)
    database.outage = asyncio.Event()
    with MockKafka() as kafka:
        topic = KafkaTopic.on(kafka)
        members = Members(topic, database, MODES[mode])
        members.join()
        for number in range(rounds):
            topic.produce(range(number * EACH, (number + 1) * EACH), key=lambda n: n % KEYS)
            await wait_until(lambda: len(database.rows) > number * EACH // 2, "more of them", 120)  # noqa: B023
            await random.choice([members.change, members.change, lambda: brokers_away(kafka), lambda: away(database)])()
        await wait_until(lambda: len({row["n"] for row in database.rows}) == rounds * EACH, "all messages", 120)
        await wait_until(lambda: sum(topic.committed()) == rounds * EACH, "the last commit", 120)
        await members.end()
    check(database, rounds * EACH, ordered=mode != "any order")


def check(database: UnsteadySink, count: int, *, ordered: bool) -> None:
    """Each message is applied, in its order at first; with offsets in the database only once."""
    times = Counter(row["n"] for row in database.rows)
    assert set(times) == set(range(count))
    if database.stores_offsets:
        assert set(times.values()) == {1}
    if ordered:
        first: dict[Any, list[int]] = defaultdict(list)
        for row in database.rows:
            if row["n"] not in first[row["key"]]:
                first[row["key"]].append(row["n"])
        assert all(numbers == sorted(numbers) for numbers in first.values())


async def brokers_away(kafka: MockKafka) -> None:
    kafka.down()
    await asyncio.sleep(random.random())
    kafka.up()


async def away(database: UnsteadySink) -> None:
    database.outage.set()
    await asyncio.sleep(random.random())
    database.outage.clear()
