"""Of the messages of a key the last one stands, whichever write or consumer it comes by."""

from __future__ import annotations

import asyncio
import random
import secrets
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import orjson
import pytest
from confluent_kafka import Producer

from redis_worker import KafkaMessage, KafkaWorker
from redis_worker.mock_kafka import MockKafka
from redis_worker.postgres import UpsertSink
from tests.kafka.kafka_support import QUICK
from tests.support import wait_until

KEYS, EACH = 20, 60
# A row that loses to an older one is noted.
SCHEMA = """
create table latest (key text primary key, number integer not null, version bigint not null);
create table backwards (key text);
create function note() returns trigger language plpgsql as
    $$ begin if new.number < old.number then insert into backwards values (new.key); end if; return new; end $$;
create trigger note before update on latest for each row execute function note();
"""
MODES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "version": ({"version": "version"}, {}),
    "offsets with the rows": ({"stores_offsets": True}, {"ordered": "partition"}),
    "order by key": ({}, {"ordered": "key"}),
}


async def to_row(message: KafkaMessage) -> dict[str, Any]:
    """Take a while, so that messages overtake each other where they may."""
    await asyncio.sleep(random.random() * 0.02)
    assert message.key is not None
    return {"key": message.key.decode(), "number": message.data["number"], "version": message.offset}


def produce(brokers: str, topic: str, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": brokers, "log_level": 0})
    for number in numbers:
        for key in range(KEYS):
            producer.produce(topic, orjson.dumps({"number": number}), f"key {key}")
    assert producer.flush(30) == 0


@pytest.mark.parametrize("mode", MODES)
async def test_the_last_of_a_key_stands(mock_kafka: MockKafka, database: str, mode: str) -> None:
    of_sink, of_worker = MODES[mode]
    topic = secrets.token_hex(4)
    mock_kafka.create_topic(topic, 4)

    def new_worker() -> KafkaWorker:
        sink = UpsertSink(database, "latest", key=["key"], batch_size=7, flush_after=0.01, **of_sink)
        return KafkaWorker(
            mock_kafka.brokers, topic, topic, to_row, sink=sink, concurrency=16, properties=QUICK, **of_worker
        )

    connection = await asyncpg.connect(database)
    await connection.execute(SCHEMA)

    async def rows() -> dict[str, int]:
        return dict(await connection.fetch("select key, number from latest"))

    async def is_done() -> bool:
        return await rows() == {f"key {key}": EACH - 1 for key in range(KEYS)}

    async with AsyncExitStack() as stack:
        async with new_worker():
            produce(mock_kafka.brokers, topic, range(EACH // 2))
            await wait_until(rows, "the first rows")
            # Two more join while messages are under way, and the first one leaves.
            for _ in range(2):
                await stack.enter_async_context(new_worker())
            produce(mock_kafka.brokers, topic, range(EACH // 2, EACH))
        await wait_until(is_done, "the last number of each key")
    assert await is_done()
    if mode != "order by key":  # where messages that were written, and not committed, are written again
        assert await connection.fetchval("select count(*) from backwards") == 0
    await connection.close()
