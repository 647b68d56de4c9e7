"""A topic of Kafka as a sink: what is settled is acknowledged, rows have their keys, refusals concern one value."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_worker import ConfigurationError, KafkaMessage, KafkaSink, Refused, Sink
from redis_worker.mock_kafka import MockKafka
from tests.kafka.kafka_support import KafkaTopic, reasons
from tests.kafka.real_broker import RealKafka
from tests.support import wait_until


def row(message: KafkaMessage) -> Any:
    """Return a row; none for 2, two for 3, one without the key for 4."""
    match message.data:
        case 2:
            return None
        case 3:
            return [{"n": 3, "half": 1}, {"n": 3, "half": 2}]
        case 4:
            return {"m": 4}
        case number:
            return {"n": number}


async def test_a_message_is_committed_once_its_rows_are_acknowledged() -> None:
    with MockKafka() as source, MockKafka() as target:
        topic, out = KafkaTopic.on(source), KafkaTopic.on(target)
        sink = KafkaSink(out.brokers, out.name, key="k{n}")
        assert isinstance(sink, Sink)
        topic.produce(range(1, 6))
        async with topic.worker(row, sink=sink) as worker:
            letters = await asyncio.to_thread(topic.dead_letters, 1)
            await wait_until(lambda: sum(topic.committed()) == 5)
            target.down()
            topic.produce([6])
            await wait_until(lambda: worker.counters.processed == 6)
            assert sum(topic.committed()) == 5
            target.up()
            await wait_until(lambda: sum(topic.committed()) == 6)
        found = [(message.key(), message.value()) for message in await asyncio.to_thread(out.messages, 5)]
    assert reasons(letters) == {b"4": "the sink refuses the row: the row has no 'n', which 'k{n}' needs"}
    assert sorted(set(found)) == [
        (b"k1", b'{"n":1}'), (b"k3", b'{"n":3,"half":1}'), (b"k3", b'{"n":3,"half":2}'), (b"k5", b'{"n":5}'),
        (b"k6", b'{"n":6}'),
    ]  # fmt: skip


async def test_a_row_that_is_too_large_is_refused_alone(mock_kafka: MockKafka) -> None:
    out = KafkaTopic.on(mock_kafka)
    async with KafkaSink(out.brokers, out.name) as sink:
        refusals = await sink.write([{"n": 1}, {"n": "x" * 2_000_000}, {"n": object()}, {"n": 3}])
    assert sorted(refusals) == [1, 2]
    assert "too large" in refusals[1]
    values = {message.value() for message in await asyncio.to_thread(out.messages, 2)}
    assert values == {b'{"n":1}', b'{"n":3}'}


async def test_a_topic_that_is_not_there_is_a_sentence(real_kafka: RealKafka) -> None:
    with pytest.raises(Refused, match="has no topic 'nowhere': create it, or check the name"):
        async with KafkaSink(real_kafka.brokers, "nowhere"):
            pass


def test_settings_that_cannot_be_right_are_refused() -> None:
    for brokers, topic, options, reason in (
        ("user@host", "t", {}, "host:port"),
        ("localhost:1", "a b", {}, "no topic of Kafka"),
        ("localhost:1", "t", {"key": "{"}, "key"),
        ("localhost:1", "t", {"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            KafkaSink(brokers, topic, **options)  # type: ignore[arg-type]
