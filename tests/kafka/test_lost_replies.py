"""A write whose reply is lost is repeated as it was, however much has come since: nothing is applied twice."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from confluent_kafka import Producer

from redis_worker import Disconnected, KafkaMessage, KafkaWorker
from redis_worker.mock_kafka import MockKafka
from redis_worker.postgres import UpsertSink
from tests.kafka.applied import SCHEMA
from tests.postgres.tables import rows, run
from tests.support import wait_until


class Losing(UpsertSink):
    """A sink that commits its first write and loses the reply, and is away for the next; more messages come then."""

    calls = 0
    more: Callable[[], None]

    async def write(self, values: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            self.more()
            raise Disconnected("away")
        refusals = await super().write(values, **options)
        if self.calls == 1:
            raise Disconnected("the reply is lost")
        return refusals


async def coordinates(message: KafkaMessage) -> dict[str, Any]:
    return {"partition": message.partition, "message": message.offset, "times": 1}


async def test_a_write_without_a_reply_is_applied_once(mock_kafka: MockKafka, database: str) -> None:
    await run(database, *SCHEMA)
    topic = secrets.token_hex(4)
    mock_kafka.create_topic(topic, 2)

    def produce() -> None:
        producer = Producer({"bootstrap.servers": mock_kafka.brokers, "log_level": 0})
        for number in range(20):
            producer.produce(topic, b"1", partition=number % 2)
        assert producer.flush(30) == 0

    sink = Losing(database, "applied", key=["partition", "message"], stores_offsets=True, flush_after=0.2)
    sink.more = produce
    produce()
    async with KafkaWorker(mock_kafka.brokers, topic, topic, coordinates, sink=sink):
        await wait_until(lambda: _all_applied(database))
    assert sink.calls >= 4
    assert {times for (times,) in await rows(database, "select distinct times from applied")} == {1}


async def _all_applied(database: str) -> bool:
    return len(await rows(database, "select message from applied")) == 40
