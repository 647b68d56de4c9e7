"""From Kafka: messages per second through a trivial processor, and memory while a database takes nothing."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import asyncpg
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from benchmarks.bench import task
from benchmarks.contenders import Contender, Running, running
from benchmarks.memory import resident
from benchmarks.report import Row, judged
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.mock_kafka import MockKafka

RATE = 100_000
"""Messages per second through a trivial processor, in one process."""
FLAT = 10.0
"""Megabytes that a worker may grow by while its database is stalled."""

_PARTITIONS = 4
_TIMEOUT = 300.0
TOPIC = "bench"
"""The topic, of 4 partitions."""


@dataclass
class Entry:
    """A contender and its rates, in messages per second."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    share: float = 1.0
    target: float | None = None
    rates: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    """CPU time of a message, in microseconds."""

    def contender(self, group: str) -> Contender:
        """Return the program; the address of the brokers takes the place of URL."""
        return Contender(self.name, (f"benchmarks.{self.program}", "URL", TOPIC, group, *self.arguments))

    @property
    def rate(self) -> float:
        return median(self.rates)

    def row(self, group: str, bare: Entry) -> Row:
        """Return the row of this contender of a group, beside the bare one."""
        target = self.target
        return Row(
            f"{group}: {self.name}",
            f"{self.rate:,.0f}/s",
            f"{min(self.rates):,.0f} to {max(self.rates):,.0f}",
            None if self is bare else self.rate / bare.rate,
            "" if target is None else f"at least {target:,.0f}/s",
            None if target is None else judged(self.rates, [1.0], target),
            f"{median(self.costs):.1f}",
        )


def _entries(dsn: str) -> tuple[Entry, ...]:
    return (
        Entry("bare consumer", "bare_kafka"),
        Entry("no-op", "kafka_worker", ("noop",), target=RATE),
        Entry("no-op, ordered by partition", "kafka_worker", ("noop", "--ordered", "partition"), share=0.5),
        Entry("async no-op, concurrency 256", "kafka_worker", ("async_noop", "--concurrency", "256"), share=0.5),
        Entry("batches of 500", "kafka_worker", ("batch_noop", "--batch", "500"), share=0.5),
        Entry("rows into PostgreSQL, 500 a batch", "kafka_worker", ("row", "--dsn", dsn), share=0.2),
    )


class Source:
    """A topic filled with messages; each contender reads it as a group of its own."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers

    def fill(self, values: Iterable[bytes]) -> None:
        """Append messages."""
        batches = {"linger.ms": 100, "batch.num.messages": 10_000, "compression.type": "lz4"}
        producer = Producer({"bootstrap.servers": self.brokers, "log_level": 0, **batches})
        for number, value in enumerate(values):
            while True:
                try:
                    producer.produce(TOPIC, value, partition=number % _PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.flush()

    def end(self) -> int:
        """Return the number of messages in the topic."""
        client = Consumer({"bootstrap.servers": self.brokers, "group.id": "ends", "log_level": 0})
        try:
            partitions = [TopicPartition(TOPIC, number) for number in range(_PARTITIONS)]
            return sum(client.get_watermark_offsets(each, timeout=30)[1] for each in partitions)
        finally:
            client.close()

    @contextmanager
    def committed(self, group: str) -> Iterator[Callable[[], int]]:
        """Yield a function that returns the number of messages that the group has committed."""
        client = Consumer({"bootstrap.servers": self.brokers, "group.id": group, "log_level": 0})
        partitions = [TopicPartition(TOPIC, number) for number in range(_PARTITIONS)]

        def count() -> int:
            try:
                return sum(max(0, found.offset) for found in client.committed(partitions, timeout=30))
            except KafkaException as error:
                if error.args[0].code() != KafkaError.NOT_COORDINATOR:  # of a broker that has just started
                    raise
                return 0

        try:
            yield count
        finally:
            client.close()

    def measure(self, entry: Entry, count: int) -> None:
        """Note rate and cost of `entry`, from its first commit to the last of `count` messages."""
        group = secrets.token_hex(4)
        begun = time.perf_counter()
        with self.committed(group) as committed, running(entry.contender(group), self.brokers) as process:
            first, used = wait(process, committed, 1), process.cpu()
            if first < count:
                begun = time.perf_counter()
            else:
                first = 0
            done = wait(process, committed, count) - first
            entry.rates.append(done / (time.perf_counter() - begun))
            entry.costs.append((process.cpu() - used) * 1e6 / done)


def kafka(count: int, rounds: int, progress: Callable[[str], None], *, stalled: tuple[float, float]) -> Iterator[Row]:
    """Measure each contender `rounds` times on `count` messages, and the memory of a worker that cannot write.

    The brokers are those of KAFKA_BROKERS, with an empty topic `bench` of 4 partitions; by default a mock cluster.
    """
    with ExitStack() as stack:
        brokers = os.environ.get("KAFKA_BROKERS") or stack.enter_context(mock()).brokers
        database = stack.enter_context(EmbeddedPostgres())
        asyncio.run(_create_table(database.dsn))
        source = Source(brokers)
        source.fill(task(number) for number in range(count))
        entries = _entries(database.dsn)
        for number in range(rounds):
            for entry in entries:
                source.measure(entry, max(1, int(count * entry.share)))
                progress(f"round {number + 1} of {rounds}: {entry.name}: {entry.rates[-1]:,.0f}/s")
        for entry in entries:
            yield entry.row("kafka", entries[0])
        yield _stalled(brokers, database.dsn, stalled)


@contextmanager
def mock() -> Iterator[MockKafka]:
    """Start a mock cluster with the topic."""
    with MockKafka() as cluster:
        cluster.create_topic(TOPIC, _PARTITIONS)
        yield cluster


def wait(process: Running, committed: Callable[[], int], count: int) -> int:
    """Return the number of committed messages once it is `count` or more."""
    end = time.monotonic() + _TIMEOUT
    while (found := committed()) < count:
        process.check()
        if time.monotonic() > end:
            raise TimeoutError(f"{process.contender.name} has committed {found:,} of {count:,} messages")
        time.sleep(0.02)
    return found


async def _create_table(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table bench (id text primary key, number integer)")
    await connection.close()


def _stalled(brokers: str, dsn: str, moments: tuple[float, float]) -> Row:
    """Measure a worker whose sink waits for a lock, at two moments after its start."""
    with asyncio.Runner() as runner:
        connection: Any = runner.run(asyncpg.connect(dsn))
        runner.run(connection.execute("begin; lock table bench in exclusive mode"))
        entry = Entry("rows, database stalled", "kafka_worker", ("row", "--dsn", dsn))
        with running(entry.contender(secrets.token_hex(4)), brokers) as process:
            sizes = []
            begun = time.monotonic()
            for moment in moments:
                time.sleep(max(0.0, begun + moment - time.monotonic()))
                process.check()
                sizes.append(resident(process.pid))
        runner.run(connection.close())
    growth = sizes[1] - sizes[0]
    return Row(
        "kafka: memory, database stalled",
        f"{sizes[1]:.1f} MB",
        f"{growth:+.1f} MB in {moments[1] - moments[0]:g} s",
        None,
        f"at most {FLAT:+g} MB",
        growth <= FLAT,
    )
