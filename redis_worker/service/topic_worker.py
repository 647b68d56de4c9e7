"""The topic worker: a service with handlers, and a consumer for each topic that they match."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.connection.preflight import check_server
from redis_worker.broker.queue.topic import Topics
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.lifespan import Lifespan, LifespanFunction
from redis_worker.engine.middleware import Middleware, Middlewares
from redis_worker.engine.observers import Observers
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.running import RunningTask
from redis_worker.engine.slots import Slots
from redis_worker.engine.waiting import happens
from redis_worker.engine.watchdog import Watchdog
from redis_worker.ports import Observer
from redis_worker.reporting import Reporter
from redis_worker.service.consumed_topics import ConsumedTopics
from redis_worker.service.handlers import Handlers
from redis_worker.service.options import TOPIC_WORKER_DEFAULTS, TopicWorkerOptions
from redis_worker.service.routing import Route
from redis_worker.service.service import Measuring, Service
from redis_worker.service.shared import shared_parts
from redis_worker.service.topic_consumer import ConsumerStatus, Shared
from redis_worker.vocabulary.duration import Duration, seconds_of
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.message import check_topic
from redis_worker.vocabulary.service import Condition, Consuming

logger = library_logger()

# The interval of lookups of topics that match a pattern or the default handler, in seconds.
_LOOK_EVERY = 1.0


class TopicWorker(Service, Handlers):
    """Handles the messages of many topics in one process.

        worker = TopicWorker("redis://localhost")

        @worker.handler("order.reminder", concurrency=8, retries=3, timeout=30)
        async def remind(message): ...

        asyncio.run(worker.serve())

    `serve` handles signals, `run` leaves them to the program, `async with worker:` works in the background.
    Topics that match no handler are left to other workers, unless there is a `default_handler`. `include` adds
    handlers that were declared as `Handlers`, before a server was known.
    """

    _address: Address

    def __init__(
        self,
        redis: str | Client,
        *,
        concurrency: int = TOPIC_WORKER_DEFAULTS.concurrency,
        max_deliveries: int = TOPIC_WORKER_DEFAULTS.max_deliveries,
        lease: Duration = TOPIC_WORKER_DEFAULTS.lease,
        connect_timeout: Duration = TOPIC_WORKER_DEFAULTS.connect_timeout,
        shutdown_timeout: Duration = TOPIC_WORKER_DEFAULTS.shutdown_timeout,
        dead_limit: int = TOPIC_WORKER_DEFAULTS.dead_limit,
        observers: Iterable[Observer] = (),
        http: str | None = None,
        http_token: str | None = None,
        http_origins: Sequence[str] = (),
        measuring: Measuring | None = None,
        lifespan: LifespanFunction | None = None,
        middleware: Iterable[Middleware] = (),
    ) -> None:
        """`concurrency` limits the messages that are handled at once, of all topics together.

        `http`, `http_token`, `http_origins`, `measuring`, `lifespan` and `middleware` are as in WorkerPool, the other
        options as in PoolOptions. There is no middleware around a batch.
        Raises ConfigurationError.
        """
        self.options = TopicWorkerOptions(
            concurrency=concurrency,
            max_deliveries=max_deliveries,
            lease=lease,
            connect_timeout=connect_timeout,
            shutdown_timeout=shutdown_timeout,
            dead_limit=dead_limit,
        )
        seconds = seconds_of(self.options.connect_timeout)
        address, opened = address_of(redis), None if lifespan is None else Lifespan(lifespan)
        Service.__init__(
            self, "the topic worker", address, seconds, "topics", http, http_token, measuring, http_origins, opened
        )
        Handlers.__init__(self)
        self._middleware = Middlewares(middleware)
        self._redis = redis
        self._given = None if isinstance(redis, str) else redis
        self._counting = Counting()
        self._observers = (self._counting, *observers)
        self._topics = ConsumedTopics(self, self._changed.set)
        self._looking: asyncio.Future[set[str]] | None = None
        """The lookup of the known topics."""

    @property
    def counters(self) -> Counters:
        """Counts of the messages of all topics so far."""
        return self._counting.counters

    @property
    def topic_counters(self) -> dict[str, Counters]:
        """Counts by topic, including topics that are no longer consumed."""
        return self._topics.counters

    @property
    def running(self) -> int:
        """How many messages (or batches) are being handled."""
        return sum(consumer.running for consumer in self._topics.consumers)

    def running_tasks(self) -> list[RunningTask]:
        """Return the running messages, oldest first: id, age and stack of each; call it on the event loop."""
        running = (task for consumer in self._topics.consumers for task in consumer.running_tasks())
        return sorted(running, key=lambda task: -task.seconds)

    def status(self) -> list[ConsumerStatus]:
        """Return the topics at work, by name."""
        return [consumer.status for consumer in self._topics.consumers]

    def consuming(self) -> list[Consuming]:
        """Return the lists of the topics at work, by name."""
        return [consumer.consuming for consumer in self._topics.consumers]

    def _condition_at_work(self) -> Condition:
        if self._topics.error is not None or self._topics.shared is None:
            return "stopping"
        return "Redis is away" if self._topics.shared.reconnect.away else "running"

    async def serve(self) -> bool:
        """See Service.serve. Raises ConfigurationError also if there is no handler."""
        if not self.routes() and not self._topics.requested:
            raise ConfigurationError(
                "the topic worker has no handler: declare one with @worker.handler or include some"
            )
        return await super().serve()

    def _add(self, route: Route) -> None:
        if self._middleware and route.batching is not None:
            name = route.declaration.name
            raise ConfigurationError(f"handler {name}: middleware is called around one message, not around a batch")
        super()._add(route)

    async def start_consumer(self, topic: str) -> None:
        """Consume `topic`, at once or as soon as the worker runs; without a handler its messages become dead letters.

        Raises ConfigurationError, Disconnected or Refused.
        """
        self._topics.request(check_topic(topic))
        if self.started and not self._stop_asked:
            await self._topics.start(topic)

    async def stop_consumer(self, topic: str) -> None:
        """Stop consuming `topic` until `start_consumer`; return when its running messages have finished."""
        await self._topics.leave_out(check_topic(topic))

    async def stop_consumers(self) -> None:
        """Stop consuming all topics at work, as `stop_consumer` does."""
        await asyncio.gather(*(self.stop_consumer(consumer.topic) for consumer in self._topics.consumers))

    def _stop_work(self) -> None:
        self._topics.closing = True
        self._changed.set()
        if self._looking is not None:
            self._looking.cancel()  # the server may hang

    def _cancel_work(self) -> None:
        self._topics.cancel()

    async def _work(self) -> None:
        options = self.options
        async with shared_parts(self._redis, self._address, self._given, seconds_of(options.lease)) as parts:
            reporter = Reporter("mq:*")
            observer = Observers((reporter, *self._observers))
            registry = Topics(parts.connection)
            self._topics.shared = Shared(
                *(parts, Slots(options.concurrency), Reconnect(observer), self._observers, self._measuring),
                *(options.max_deliveries, options.dead_limit, seconds_of(options.shutdown_timeout)),
                *(self._lifespan, self._middleware),
            )
            watching = asyncio.create_task(Watchdog(observer, report=reporter.block).run())
            try:
                if await self._connected(parts.connection, lambda: self._start_named(registry)):
                    self._started.set()
                    await self._consume_found(registry)
            finally:
                await self._topics.stop()
                watching.cancel()
                await asyncio.wait({watching})

    async def _start_named(self, registry: Topics) -> None:
        """Check the server, and consume the topics that are known by name."""
        await check_server(registry.connection)
        await registry.look_up(self._topics.named, all_others=False)
        await self._topics.start_named()

    async def _consume_found(self, registry: Topics) -> None:
        """Consume the topics that are found, until the end. Raises the error of a consumer that ends the worker."""
        warned = False
        while not self._stop_asked and self._topics.error is None:
            try:
                await self._topics.start_found(await self._known(registry))
            except Disconnected:
                pass  # the consumers meet the same, and report it
            await happens(self._changed, _LOOK_EVERY)
            self._changed.clear()
            if not (warned or self._stop_asked or self.routes() or self._topics.consumers):
                warned = True
                logger.warning("the topic worker has no handler: it does nothing until one is declared")
        if self._topics.error is not None:
            raise self._topics.error

    async def _known(self, registry: Topics) -> set[str]:
        """Return the known topics; none if a stop interrupts the lookup."""
        consumed = [consumer.topic for consumer in self._topics.consumers]
        self._looking = asyncio.ensure_future(registry.look_up(consumed, all_others=self.wants_known))
        await asyncio.wait({self._looking})
        return set() if self._looking.cancelled() else self._looking.result()
