"""What became of the reports: the table and the dead letters beside what was expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
from confluent_kafka import Consumer, TopicPartition

from examples.covid_persister.reports import Key
from examples.covid_persister.sending import Expected

_SCHEMA = Path(__file__).with_name("schema.sql")
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
    unexpected: int
    """Dead letters of reports without a fault."""

    @property
    def is_right(self) -> bool:
        return self.rows == self.expected and self.lost == self.unexpected == 0

    def __str__(self) -> str:
        text = f"rows {self.rows}, expected {self.expected}, dead letters {self.dead}, lost {self.lost}"
        return f"{text}, unexpected {self.unexpected}" if self.unexpected else text


class DeadLetters:
    """A reader of the dead-letter topic, from what is its end now."""

    def __init__(self, brokers: str, topic: str) -> None:
        self.reasons: dict[tuple[int, int], str] = {}
        """The reasons found so far, by the partition and offset of the report."""
        self._consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"{topic}-reader", "log_level": 0})
        partitions = self._consumer.list_topics(topic, timeout=30).topics[topic].partitions
        ends = [TopicPartition(topic, number) for number in partitions]
        for end in ends:
            _, end.offset = self._consumer.get_watermark_offsets(end, timeout=30)
        self._consumer.assign(ends)

    def read(self) -> None:
        """Read what there is by now."""
        while messages := self._consumer.consume(1000, 0.5):
            for message in messages:
                if message.error() is None:
                    headers = {name: value or b"" for name, value in message.headers() or ()}
                    place = int(_text(headers["partition"])), int(_text(headers["offset"]))
                    self.reasons[place] = _text(headers["reason"])

    def close(self) -> None:
        """Close the connections."""
        self._consumer.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


async def create_tables(dsn: str) -> None:
    """Create the tables that are missing."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(_SCHEMA.read_text(encoding="utf-8"))
    finally:
        await connection.close()


async def count_rows(dsn: str) -> int:
    """Return the number of rows."""
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval("select count(*) from covid_cases"))
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
    wrong = [key for key, row in expected.rows.items() if rows.get(key) != row]
    return Outcome(
        rows=sum(key in rows for key in expected.rows),
        expected=len(expected.rows),
        dead=len(dead),
        lost=len(wrong) + len(expected.dead) - len(dead),
        unexpected=len(letters.reasons.keys() - expected.dead.keys()),
    )
