"""What the tests of Kafka workers share: a topic with a worker on it, and a sink in memory."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from redis_worker import KafkaMessage, KafkaWorker, PartitionsLost
from redis_worker.mock_kafka import MockKafka
from redis_worker.ports import Partition, Refusals
from redis_worker.vocabulary.errors import Disconnected
from tests.support import PATIENCE, wait_until

# No member is taken for dead, however long the machine stands still.
LASTING = {"session.timeout.ms": 60_000, "heartbeat.interval.ms": 300}
# Members that die are noticed soon; the mock cluster waits as long for the others when one leaves. After the end of a
# session it may answer a connection no more.
QUICK = LASTING | {"session.timeout.ms": 3000, "socket.timeout.ms": 10_000}
_QUIET = {"log_level": 0}


class KafkaTopic:
    """A topic of a test's own, with a group of the same name, on any brokers."""

    def __init__(self, brokers: str, partitions: int = 4) -> None:
        self.brokers = brokers
        self.name = f"t{secrets.token_hex(4)}"
        self.partitions = partitions

    @classmethod
    def on(cls, cluster: Any, partitions: int = 4) -> KafkaTopic:
        """Create it on a mock cluster, or on a real one."""
        topic = cls(cluster.brokers, partitions)
        cluster.create_topic(topic.name, partitions)
        if not isinstance(cluster, MockKafka):  # which makes a topic when it is named
            cluster.create_topic(topic.dead, 1)
        return topic

    @property
    def dead(self) -> str:
        return f"{self.name}.dead"

    def produce(
        self, values: Iterable[Any], partition: int | None = None, key: Callable[[Any], Any] | None = None
    ) -> None:
        """Produce values as JSON; bytes, and None, as they are."""
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5} | _QUIET)
        for value in values:
            raw = value if isinstance(value, bytes | None) else orjson.dumps(value)
            of = {} if partition is None else {"partition": partition}
            producer.produce(self.name, raw, None if key is None else str(key(value)), **of)
            producer.poll(0)
        assert producer.flush(30) == 0

    def worker(self, handler: Callable[..., Any], **options: Any) -> KafkaWorker:
        """Return a worker of the topic's group."""
        properties = LASTING | options.pop("properties", {})
        topics = options.pop("topics", self.name)
        return KafkaWorker(self.brokers, topics, self.name, handler, properties=properties, **options)

    def committed(self) -> list[int]:
        """Return the committed offset of each partition; 0 without one."""
        with closing(Consumer({"bootstrap.servers": self.brokers, "group.id": self.name} | _QUIET)) as consumer:
            wanted = [TopicPartition(self.name, number) for number in range(self.partitions)]
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    return [max(0, found.offset) for found in consumer.committed(wanted, timeout=30)]
                except KafkaException:  # the coordinator of the group is not up yet
                    assert time.monotonic() < end, "the brokers name no committed offsets"
                    time.sleep(0.1)

    def dead_letters(self, count: int) -> list[Any]:
        """Return the first `count` dead letters, as messages of confluent-kafka."""
        return self.messages(count, self.dead)

    def messages(self, count: int, topic: str | None = None) -> list[Any]:
        """Return the first `count` messages of this topic, or of another one, as messages of confluent-kafka."""
        settings = {
            "bootstrap.servers": self.brokers,
            "group.id": secrets.token_hex(4),
            "auto.offset.reset": "earliest",
        }
        found: list[Any] = []
        with closing(Consumer(settings | _QUIET)) as consumer:
            consumer.subscribe([topic or self.name])
            while len(found) < count:
                found += [message for message in consumer.consume(count, 0.1) if message.error() is None]
        return found


def reasons(letters: Iterable[Any]) -> dict[Any, str]:
    """Return the reason of each dead letter, by its value."""
    return {letter.value(): dict(letter.headers())["redis-worker-reason"].decode() for letter in letters}


class Seen:
    """A handler that notes what it has seen."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.messages: list[KafkaMessage] = []
        self._seconds = seconds

    @property
    def values(self) -> list[Any]:
        return [message.data for message in self.messages]

    async def __call__(self, message: KafkaMessage) -> None:
        self.messages.append(message)
        if self._seconds:
            await asyncio.sleep(self._seconds)


class MemorySink:
    """A database in memory, which can be away, refuses what has a key `refuse`, and may store offsets."""

    def __init__(self, *, stores_offsets: bool = False, batch_size: int = 10, flush_after: float = 0.02) -> None:
        self.batch_size, self.flush_after, self.stores_offsets = batch_size, flush_after, stores_offsets
        self.rows: list[Any] = []
        self.batches: list[int] = []
        self.offsets: dict[Partition, int] = {}
        self.owners: dict[Partition, str] = {}
        self.away = False

    def for_member(self) -> MemorySink:
        """Return a client of the same database."""
        client = MemorySink(
            stores_offsets=self.stores_offsets, batch_size=self.batch_size, flush_after=self.flush_after
        )
        client.rows, client.offsets, client.owners = self.rows, self.offsets, self.owners
        return client

    async def open(self) -> None:
        self._check()

    async def close(self) -> None:
        pass

    async def take(self, group: str, owner: str, partitions: Collection[Partition]) -> Mapping[Partition, int]:
        self._check()
        self._owner = owner
        self.owners |= dict.fromkeys(partitions, owner)
        return {partition: self.offsets[partition] for partition in partitions if partition in self.offsets}

    async def write(
        self,
        values: Sequence[Any],
        *,
        offsets: Mapping[Partition, int] | None = None,
        refused: Callable[[Refusals], Awaitable[None]] | None = None,
    ) -> Refusals:
        await asyncio.sleep(0.001)
        self._check()
        if offsets and (lost := [name for name in offsets if self.owners[name] != self._owner]):
            raise PartitionsLost(lost)
        found = {index: "no such row" for index, value in enumerate(values) if "refuse" in value}
        if found and refused is not None:
            await refused(found)
        self.rows += [value for index, value in enumerate(values) if index not in found]
        self.offsets |= offsets or {}
        self.batches.append(len(values))
        return found

    def _check(self) -> None:
        if self.away:
            raise Disconnected("the database is away")


async def two_members_share(topic: KafkaTopic, assignment: Any, *, once: bool, **options: Any) -> None:
    """Have a second member join and leave: each message is handled, by one of them and `once`, and committed."""
    first, second = Seen(0.002), Seen(0.002)
    options |= {"concurrency": 8, "assignment": assignment}
    topic.produce(range(600), key=lambda number: number)  # by which all partitions get their share
    async with topic.worker(first, **options) as one:
        await wait_until(lambda: len(first.values) > 50)
        async with topic.worker(second, **options) as other:
            await wait_until(lambda: len(other.partitions()) == len(one.partitions()) == 2)
            topic.produce(range(600, 800), key=lambda number: number)
            await wait_until(lambda: set(first.values + second.values) == set(range(800)))
            # Revoked partitions are drained before they go.
            assert not once or len(first.values + second.values) == 800
            await wait_until(lambda: sum(topic.committed()) == 800)
        await wait_until(lambda: len(one.partitions()) == 4)
        topic.produce(range(800, 900))
        await wait_until(lambda: set(first.values + second.values) == set(range(900)))
        await wait_until(lambda: sum(topic.committed()) == 900)
    assert len(second.values) > 50
