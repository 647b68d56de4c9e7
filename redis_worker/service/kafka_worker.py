"""The Kafka worker: a service with one consumer, on the partitions that its group gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from redis_worker.broker.connection.address import Client
from redis_worker.ports import Observer, Sink
from redis_worker.service.kafka_options import kafka_options
from redis_worker.service.service import Measuring, Service
from redis_worker.vocabulary.partition import PartitionStatus


class KafkaWorker(Service):
    """Handles the messages of Kafka topics, as a member of a consumer group.

        worker = KafkaWorker("localhost:9092", "covid.raw.data", "persister", to_row, sink=UpsertSink(...))
        asyncio.run(worker.serve())

    The handler takes a KafkaMessage. With a sink it returns a row (a mapping), a list of rows or None, which are
    written before the message's offset is committed. `serve`, `run` and `async with worker:` work as in WorkerPool.
    """

    def __init__(
        self,
        brokers: str,
        topics: str | Sequence[str],
        group: str,
        handler: Callable[[Any], Any],
        *,
        sink: Sink | None = None,
        decode: Callable[[bytes], Any] | type | None = None,
        properties: Mapping[str, Any] | None = None,
        redis: str | Client | None = None,
        observers: Iterable[Observer] = (),
        http: str | None = None,
        measuring: Measuring | None = None,
        **options: Any,
    ) -> None:
        """`brokers` is "host:port,host:port"; `topics` are names, or regular expressions that begin with "^".

        `decode` makes `data` of a message's value: a function, or a type that msgspec decodes and validates; any
        JSON without it. `properties` are passed to librdkafka. `redis` is needed for the option `dead_list` only.
        `options` are the fields of KafkaOptions. Raises ConfigurationError.
        """
        self.options = kafka_options(options)
        raise NotImplementedError("the skeleton: signatures only")

    def partitions(self) -> list[PartitionStatus]:
        """Return the partitions that this worker owns, with their lags."""
        raise NotImplementedError
