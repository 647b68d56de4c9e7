"""The mock cluster and the real Kafka, as tests use them: topics, messages, and what survives an outage."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from redis_worker.mock_kafka import MockKafka
from redis_worker.vocabulary.errors import ConfigurationError
from tests.kafka.real_broker import PASSWORD, USER, RealKafka, real_kafka_or_skip
from tests.processes import runs
from tests.support import wait_until

QUIET = {"log_level": 0}
SASL = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN", "sasl.username": USER}
PARENT = """
import sys
from redis_worker.mock_kafka import MockKafka
cluster = MockKafka()
cluster.start()
print(cluster._process.pid, flush=True)
sys.stdin.readline()
"""


def produce(brokers: str, topic: str, count: int, **settings: Any) -> None:
    producer = Producer({"bootstrap.servers": brokers} | QUIET | settings)
    for number in range(count):
        producer.produce(topic, str(number).encode())
    assert producer.flush(30) == 0


def consume(brokers: str, topic: str, count: int) -> set[int]:
    """Return the numbers in the first `count` messages."""
    settings = {"bootstrap.servers": brokers, "group.id": secrets.token_hex(4), "auto.offset.reset": "earliest"}
    consumer = Consumer(settings | QUIET)
    consumer.subscribe([topic])
    found: list[int] = []
    try:
        while len(found) < count:
            found += [int(message.value()) for message in consumer.consume(count, 0.05) if message.error() is None]
    finally:
        consumer.close()
    assert len(found) == count
    return set(found)


def partitions(brokers: str, topic: str) -> int:
    client = Producer({"bootstrap.servers": brokers} | QUIET)
    return len(client.list_topics(topic, timeout=30).topics[topic].partitions)


def test_the_mock_has_the_partitions_asked_for_and_survives_an_outage(mock_kafka: MockKafka) -> None:
    topic = secrets.token_hex(4)
    mock_kafka.create_topic(topic, 7)
    assert partitions(mock_kafka.brokers, topic) == 7
    produce(mock_kafka.brokers, topic, 50)
    mock_kafka.down()
    mock_kafka.up()
    assert consume(mock_kafka.brokers, topic, 50) == set(range(50))
    with pytest.raises(ConfigurationError, match="already exists"):
        mock_kafka.create_topic(topic, 7)


async def test_the_mock_ends_with_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
    await wait_until(lambda: not runs(pid))


def test_a_real_node_asks_for_a_password_where_it_should(real_kafka: RealKafka) -> None:
    topic = secrets.token_hex(4)
    real_kafka.create_topic(topic, 3)
    produce(real_kafka.sasl_brokers, topic, 50, **SASL, **{"sasl.password": PASSWORD})
    assert consume(real_kafka.brokers, topic, 50) == set(range(50))
    assert partitions(real_kafka.brokers, topic) == 3


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 3])
def test_real_nodes_keep_messages_over_a_crash(count: int) -> None:
    with real_kafka_or_skip(count) as kafka:
        kafka.create_topic("t", 6)
        produce(kafka.brokers, "t", 50)
        kafka.restart(count)
        assert consume(kafka.brokers, "t", 50) == set(range(50))
        if count > 1:
            kafka.end(1)
            produce(kafka.brokers, "t", 50)
            assert consume(kafka.brokers, "t", 100) == set(range(50))
