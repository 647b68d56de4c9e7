"""Kafka workers to measure: `python -m benchmarks.kafka_worker BROKERS TOPIC GROUP HANDLER`, with options."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any

from benchmarks.bare_kafka import FAST
from redis_worker import KafkaMessage, KafkaWorker, processor
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.postgres import UpsertSink


@processor(execution="inline")
def noop(message: KafkaMessage) -> None:
    """Do nothing."""


async def async_noop(message: KafkaMessage) -> None:
    """Do nothing, in a coroutine."""


async def batch_noop(messages: list[KafkaMessage]) -> None:
    """Do nothing with many messages."""


@processor(execution="inline")
def row(message: KafkaMessage) -> dict[str, Any]:
    """Return a row of the table `bench`."""
    return {"id": message.data["id"], "number": message.data["task"][0]}


def main() -> None:
    """Run a worker until it is stopped."""
    parser = argparse.ArgumentParser()
    for name in ("brokers", "topic", "group", "handler"):
        parser.add_argument(name)
    parser.add_argument("--ordered", default="none")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dsn")
    given = parser.parse_args()
    worker = KafkaWorker(
        given.brokers,
        given.topic,
        given.group,
        {handler.__name__: handler for handler in (noop, async_noop, batch_noop, row)}[given.handler],
        sink=UpsertSink(given.dsn, "bench", key=["id"]) if given.dsn else None,
        properties=FAST,
        ordered=given.ordered,
        concurrency=given.concurrency,
        **({"batch": True, "size": given.batch} if given.batch else {}),
    )
    spare_garbage_collection()  # as the command line does
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(worker.serve())


if __name__ == "__main__":
    main()
