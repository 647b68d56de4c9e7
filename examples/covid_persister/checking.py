"""What became of the reports: the table and the dead letters beside what was expected."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import asyncpg
from confluent_kafka import Consumer, KafkaException, TopicPartition

from examples.covid_persister.reports import Key
from examples.covid_persister.sending import Expected
from redis_worker import RedisWorkerError

_PATIENCE = 60.0
_ROWS = """
select date, cities.name as city, regions.name as region, cases, report
from covid_cases join cities on cities.id = city_id join regions on regions.id = region_id
"""


class Outcome(NamedTuple):
    """The numbers of the last line."""

    rows: int
    """Keys that have a row."""
    expected: int
    dead: int
    """Reports that have a dead letter."""
    lost: int
    """Keys and poison without the expected end."""
    unexpected: list[str]
    """The reasons of dead letters of reports without a fault."""

    @property
    def is_right(self) -> bool:
        return self.rows == self.expected and not self.lost and not self.unexpected

    def __str__(self) -> str:
        text = f"rows {self.rows}, expected {self.expected}, dead letters {self.dead}, lost {self.lost}"
        if not self.unexpected:
            return text
        return f"{text}, unexpected {len(self.unexpected)}, as: {self.unexpected[0]}"


class DeadLetters:
    """A reader of the dead-letter topic, from what is its end now."""

    def __init__(self, brokers: str, topic: str) -> None:
        self.reasons: dict[tuple[int, int], str] = {}
        """The reasons found so far, by the partition and offset of the report."""
        self._topic = topic
        self._consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"{topic}-reader", "log_level": 0})
        partitions = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        self._next = {number: self._end(number) for number in partitions}
        self._consumer.assign([TopicPartition(topic, number, offset) for number, offset in self._next.items()])

    def read(self) -> None:
        """Read what there is by now."""
        ends = {number: self._end(number) for number in self._next}
        while any(self._next[number] < end for number, end in ends.items()):
            for message in self._consumer.consume(1000, 0.05):
                if message.error() is None:
                    self._note(message)

    def _end(self, partition: int) -> int:
        """Return the offset after the last letter. A new partition, or one of a dead node, first gets a leader."""
        end = time.monotonic() + _PATIENCE
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=10)[1])
            except KafkaException as error:
                if time.monotonic() > end:
                    raise RedisWorkerError(f"the topic {self._topic}: {error.args[0].str()}") from None
                time.sleep(0.2)
                self._look_up()

    def _look_up(self) -> None:
        """Ask for the topic again: after an answer of a starting broker a client may know no partition for minutes."""
        try:
            self._consumer.list_topics(self._topic, timeout=10)
        except KafkaException:
            pass  # no broker is there yet

    def _note(self, message: Any) -> None:
        headers = {name.removeprefix("redis-worker-"): value.decode() for name, value in message.headers()}
        self.reasons[int(headers["partition"]), int(headers["offset"])] = headers["reason"]
        self._next[message.partition()] = message.offset() + 1

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


async def progress(dsn: str) -> int:
    """Return a number that grows with each report that is persisted."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select coalesce(sum(report) + count(*), 0) from covid_cases"))
    finally:
        await connection.close()


async def read_rows(dsn: str) -> dict[Key, tuple[int, int]]:
    """Return cases and offset of each row, as `Expected` has them."""
    connection = await asyncpg.connect(dsn)
    try:
        found = await connection.fetch(_ROWS)
        return {(date, city, region): (cases, report) for date, city, region, cases, report in found}
    finally:
        await connection.close()


async def check(dsn: str, letters: DeadLetters, expected: Expected) -> Outcome:
    """Compare the table and the dead letters with what was expected. Rows of earlier runs may be there."""
    letters.read()
    rows = await read_rows(dsn)
    dead = {place for place, fault in expected.dead.items() if fault in letters.reasons.get(place, "")}
    unexpected = [
        reason
        for (partition, offset), reason in letters.reasons.items()
        if (partition, offset) not in expected.dead and offset >= expected.first.get(partition, offset + 1)
    ]
    wrong = [key for key, row in expected.rows.items() if rows.get(key) != row]
    return Outcome(
        rows=sum(key in rows for key in expected.rows),
        expected=len(expected.rows),
        dead=len(dead),
        lost=len(wrong) + len(expected.dead) - len(dead),
        unexpected=unexpected,
    )
