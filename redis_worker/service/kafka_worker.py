"""The Kafka worker: a service with one consumer, on the partitions that its group gives it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from redis_worker.broker.connection.address import Client, address_of
from redis_worker.broker.operator.supervisors import Description
from redis_worker.broker.operator.supervisors import announced as announcing
from redis_worker.broker.queue.dead_list import DeadList
from redis_worker.engine.counters import Counting
from redis_worker.engine.observers import Observers
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.watchdog import Watchdog
from redis_worker.ports import Observer, Sink
from redis_worker.reporting import Reporter
from redis_worker.service.consumer import Consumer, Work
from redis_worker.service.consumer_service import ConsumerService
from redis_worker.service.kafka_calls import BatchCall, BatchCoroutine
from redis_worker.service.kafka_handler import declared
from redis_worker.service.kafka_options import group_settings, kafka_options
from redis_worker.service.routing import Batching
from redis_worker.service.service import Measuring
from redis_worker.vocabulary.duration import seconds_of
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Unreachable
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.partition import PartitionStatus
from redis_worker.vocabulary.service import Condition, Consuming, PartStatus, lag_of

if TYPE_CHECKING:
    from redis_worker.kafka.dead_letters import DeadLetters
    from redis_worker.kafka.source import KafkaSource

logger = library_logger()

_NONE = "none"
# The pauses between tries to find the servers at start, in seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# The longest pause between tries to reach the brokers later, in seconds: they also come back by themselves.
_LONGEST_ABSENCE = 10.0


class KafkaWorker(ConsumerService):
    """Handles the messages of Kafka topics, as a member of a consumer group.

        worker = KafkaWorker("localhost:9092", "covid.raw.data", "persister", to_row, sink=UpsertSink(...))
        asyncio.run(worker.serve())

    The handler takes a KafkaMessage. With a sink it returns a row (a mapping), a list of rows or None, which are
    written before the message's offset is committed. `serve`, `run` and `async with worker:` work as in WorkerPool.
    """

    _waiting_condition: Condition = "waiting for Kafka"

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
        http_token: str | None = None,
        http_origins: Sequence[str] = (),
        measuring: Measuring | None = None,
        announced: bool = True,
        **options: Any,
    ) -> None:
        """`brokers` is "host:port,host:port"; `topics` are names, or regular expressions that begin with "^".

        `decode` makes `data` of a message's value: a function, or a type that msgspec decodes and validates; any
        JSON without it. `properties` are passed to librdkafka. `redis` is the server of `dead_list`, of the dashboard,
        where the worker appears among the parts unless `announced` is false, and of `/ws`. `options` are the fields of
        KafkaOptions. Raises ConfigurationError.
        """
        self.options = kafka_options(options)
        self._settings = group_settings(brokers, topics, group, self.options, properties)
        self.source = ",".join(self._settings.topics)
        seconds = 0.0 if self.options.wait else seconds_of(self.options.connect_timeout)
        name = f"the worker on {self.source}"
        super().__init__(name, None, seconds, self.source, http, http_token, measuring, http_origins)
        self.declaration = declared(handler, self.options)
        self._handler = handler
        self._sink = sink
        self._decode = decode
        self._redis = redis
        self._fleet = None if redis is None else address_of(redis)
        self._announced = announced
        self._counting = Counting()
        self._reporter = Reporter(self.source, "message", "Kafka")
        self._others = (self._counting, *self._measuring(self.source, self.declaration.name), *observers)
        self._dead_letters = self._place_of_dead_letters()
        self._calls = self._work_on_messages()
        self._observer = Observers((self._reporter, *self._others))
        self._source = self._source_of_messages()

    def _place_of_dead_letters(self) -> DeadLetters:
        from redis_worker.kafka.dead_letters import DeadTopic, NoDeadLetters

        options, group = self.options, self._settings.group
        if options.dead_list is not None:
            if options.dead_letters is not None:
                raise ConfigurationError("dead letters go to a topic or to a list: set dead_letters or dead_list")
            if self._redis is None:
                raise ConfigurationError("the option dead_list needs Redis: set its URL")
            return DeadList(self._redis, options.dead_list, options.dead_limit, group)
        if options.dead_letters == _NONE:
            return NoDeadLetters()
        topic = options.dead_letters or f"{group}.dead"
        if self._settings.consumes(topic):
            raise ConfigurationError(f"the topic of dead letters {topic!r} is one of {self.source}: name another one")
        return DeadTopic(self._settings, topic)

    def _work_on_messages(self) -> Work:
        from redis_worker.kafka.reading import KafkaReader, decoder, nothing, row

        options = self.options
        return Work(
            read=KafkaReader(decoder(self._decode), options.max_deliveries).read,
            call=self._call(),
            declaration=self.declaration,
            concurrency=options.concurrency,
            max_deliveries=options.max_deliveries,
            bury=True,
            batching=Batching(options.size, seconds_of(options.within)) if options.batch else None,
            encode=nothing if self._sink is None else row,
        )

    def _source_of_messages(self) -> KafkaSource:
        from redis_worker.kafka.source import KafkaSource

        return KafkaSource(
            self._settings,
            self._dead_letters,
            self._observer,
            sink=self._sink,
            sink_observer=Observers((Reporter(self.source, "row", "the sink"), *self._others)),
            ordered=str(self.options.ordered),
            revoke_timeout=seconds_of(self.options.revoke_timeout),
        )

    def _consumer_of_messages(self) -> Consumer:
        """Return the consumer, which belongs to the running event loop. Raises ConfigurationError."""
        watchdog = Watchdog(self._observer, report=self._reporter.block)
        return Consumer(
            self.source,
            self._source,
            self._calls,
            self._observer,
            self._counting,
            upkeep=lambda _: (*self._source.roles(), watchdog.run),
            reconnect=Reconnect(self._observer, longest=_LONGEST_ABSENCE),
            shutdown_timeout=seconds_of(self.options.shutdown_timeout),
        )

    def _call(self) -> Callable[[Any], Any]:
        if not self.options.batch:
            return self._handler
        return (BatchCoroutine if self.declaration.execution == "async" else BatchCall)(self._handler)

    @property
    def address(self) -> str:
        """The brokers."""
        return self._settings.brokers

    def consuming(self) -> list[Consuming]:
        """Return the topics, once work has begun."""
        if not self.started:
            return []
        name, partitions = self.declaration.name, self.partitions()
        unsettled = sum(partition.in_flight for partition in partitions)
        return [Consuming(self.source, self.source, name, unsettled, partitions=partitions)]

    def partitions(self) -> list[PartitionStatus]:
        """Return the partitions that this worker owns, with their lags; call it on the event loop."""
        return self._source.partitions()

    def _condition_at_work(self) -> Condition:
        assert self._consumer is not None
        if not self._consumer.claiming:
            return "stopping"
        match self._source.away:
            case None:
                return "running"
            case "the sink":
                return "the sink is away"
            case _:
                return "Kafka is away"

    def _stop_work(self) -> None:
        super()._stop_work()
        self._source.wake()

    def _cancel_work(self) -> None:
        super()._cancel_work()
        self._source.wake()

    async def _work(self) -> None:
        self._consumer = consumer = self._consumer_of_messages()
        async with AsyncExitStack() as stack:
            if self._announced and self._fleet is not None:
                await stack.enter_async_context(announcing(self._fleet, self._description))
            await self._consume(consumer)

    def _description(self) -> Description:
        part = PartStatus(self.declaration.name, "kafka", self.condition, lag=lag_of(self.consuming()))
        return {"name": self._settings.group, "parts": [part]}

    async def _consume(self, consumer: Consumer) -> None:
        try:
            if await self._found(self._begin()):
                await consumer.open()
                self._started.set()
                if self._stop_asked:
                    self._stop_work()
                await consumer.run()
        finally:
            await consumer.close()
            await self._dead_letters.close()
            if self._sink is not None:
                await self._sink.close()

    async def _begin(self) -> None:
        """Wait for brokers, topics, the place of dead letters, and the sink, as `wait` and `connect_timeout` say.

        Raises Unreachable, Refused or ConfigurationError.
        """
        timeout = self._connect_timeout
        end = time.monotonic() + timeout if timeout else math.inf
        warned = False

        async def begin() -> None:
            nonlocal warned
            try:
                await self._check()
            except Disconnected as error:
                if time.monotonic() >= end:
                    raise Unreachable(f"{error} (waited {timeout:g} s)") from None
                if self.options.wait and not warned:
                    warned = True
                    logger.warning("waiting: %s", error)
                raise

        await Reconnect(Observer(), first=_FIRST_PAUSE, longest=_LONGEST_PAUSE).call(begin)

    async def _check(self) -> None:
        from redis_worker.kafka.errors import UnknownTopic

        try:
            await self._reach_brokers()
            await self._dead_letters.open()
        except UnknownTopic as error:
            if not self.options.wait:
                raise
            raise Disconnected(str(error)) from None
        if self._sink is not None:
            await self._sink.open()

    async def _reach_brokers(self) -> None:
        try:
            await self._source.group.check()
        except Disconnected as error:
            brokers = self._settings.brokers
            raise Disconnected(
                f"no Kafka at {brokers}: {error}; is it running, and are the addresses and security settings right?"
            ) from None
