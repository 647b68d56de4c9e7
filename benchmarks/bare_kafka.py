"""The bare loop of Kafka: fetches messages, decodes each, and commits: what a worker is compared with."""

from __future__ import annotations

import sys

import orjson
from confluent_kafka import Consumer

BATCH = 5000
"""Messages fetched at once."""
FAST = {"queued.min.messages": 1_000_000, "fetch.queue.backoff.ms": 5}
"""Properties of librdkafka, the same for all contenders."""


def main() -> None:
    """Consume until killed: `python -m benchmarks.bare_kafka BROKERS TOPIC GROUP`."""
    brokers, topic, group = sys.argv[1:]
    settings = {"bootstrap.servers": brokers, "group.id": group, "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, **FAST, "enable.auto.commit": False})
    consumer.subscribe([topic])
    while True:
        messages = consumer.consume(BATCH, 0.05)
        for message in messages:
            assert message.error() is None
            orjson.loads(message.value() or b"")
        if messages:
            consumer.commit(asynchronous=True)


if __name__ == "__main__":
    main()
