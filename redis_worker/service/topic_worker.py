"""The topic worker: handlers, the topics they are for, and the consumers at work on them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from redis_worker.broker.connection.address import Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_server
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.topic import Topics
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.observers import Observers
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.running import RunningTask
from redis_worker.engine.slots import Slots
from redis_worker.engine.waiting import happens
from redis_worker.engine.watchdog import Watchdog
from redis_worker.ports import Observer
from redis_worker.reporting import Reporter
from redis_worker.service.handlers import Handlers
from redis_worker.service.options import TOPIC_WORKER_DEFAULTS, TopicWorkerOptions
from redis_worker.service.refused_topics import Refusals
from redis_worker.service.routing import no_route
from redis_worker.service.service import Measuring, Service
from redis_worker.service.topic_consumer import ConsumerStatus, Shared, TopicConsumer
from redis_worker.vocabulary.duration import Duration, seconds_of
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused, WrongType
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.message import check_topic
from redis_worker.vocabulary.service import Condition, Consuming

logger = library_logger()

# How often to look for topics that patterns, or the default handler, are for, in seconds.
_LOOK_EVERY = 1.0


class TopicWorker(Service, Handlers):
    """Handles the messages of many topics in one process.

        worker = TopicWorker("redis://localhost")

        @worker.handler("order.reminder", concurrency=8, retries=3, timeout=30)
        async def remind(message): ...

        asyncio.run(worker.serve())

    `serve` handles signals, `run` leaves them to the program, `async with worker:` works in the background.
    Topics that no handler is for are left to other workers, unless there is a `default_handler`. `include` takes
    handlers that were declared where no server was known, as a `Handlers`.
    """

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
        measuring: Measuring | None = None,
    ) -> None:
        """`concurrency` is how many messages are handled at once, of all topics together.

        `http` and `measuring` are as in WorkerPool, the other options as in PoolOptions. Raises ConfigurationError.
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
        Service.__init__(self, "the topic worker", address_of(redis), seconds, "topics", http, measuring)
        Handlers.__init__(self)
        self._given = None if isinstance(redis, str) else redis
        self._counting = Counting()
        self._observers = (self._counting, *observers)
        self._asked: set[str] = set()
        """Topics that `start_consumer` was called for."""
        self._left_out: set[str] = set()
        """Topics that `stop_consumer` was called for."""
        self._shared: Shared | None = None
        self._consumers: dict[str, tuple[TopicConsumer, asyncio.Task[None]]] = {}
        self._countings: defaultdict[str, Counting] = defaultdict(Counting)
        self._opening: set[str] = set()
        self._refusals = Refusals()
        self._looking: asyncio.Future[set[str]] | None = None
        """Asks which topics there are."""
        self._error: Exception | None = None
        """What has ended a consumer."""

    @property
    def counters(self) -> Counters:
        """What has been done so far, all topics together."""
        return self._counting.counters

    @property
    def running(self) -> int:
        """How many messages (or batches) are handled just now."""
        return sum(status.running for status in self.status())

    def running_tasks(self) -> list[RunningTask]:
        """What runs just now, oldest first: id, age and stack of each; to be called on the event loop."""
        running = (task for consumer, _ in self._consumers.values() for task in consumer.running_tasks())
        return sorted(running, key=lambda task: -task.seconds)

    def status(self) -> list[ConsumerStatus]:
        """The topics that are consumed just now, by name."""
        return [self._consumers[topic][0].status for topic in sorted(self._consumers)]

    @property
    def topic_counters(self) -> dict[str, Counters]:
        """What has been done so far, by topic, those that are consumed no more included."""
        return {topic: counting.counters for topic, counting in sorted(self._countings.items())}

    def consuming(self) -> list[Consuming]:
        """The lists of the topics that are consumed just now, by name."""
        return [self._consumers[topic][0].consuming for topic in sorted(self._consumers)]

    def _condition_at_work(self) -> Condition:
        if self._error is not None or self._shared is None:
            return "stopping"
        return "Redis is away" if self._shared.reconnect.away else "running"

    async def serve(self) -> bool:
        """See Service.serve. Raises ConfigurationError where there is no handler either."""
        if not self.routes() and not self._asked:
            raise ConfigurationError(
                "the topic worker has no handler: declare one with @worker.handler or include some"
            )
        return await super().serve()

    async def start_consumer(self, topic: str) -> None:
        """Consume `topic`, now or as soon as the worker runs; with no handler for it, all it has becomes dead letters.

        Raises ConfigurationError, Disconnected or Refused.
        """
        self._asked.add(check_topic(topic))
        self._left_out.discard(topic)
        if self.started and not self._stop_asked:
            await self._start(topic)

    async def stop_consumer(self, topic: str) -> None:
        """Consume `topic` no more, until `start_consumer`; returns when what runs has finished."""
        self._asked.discard(check_topic(topic))
        self._left_out.add(topic)
        self._refusals.forget(topic)
        if found := self._consumers.get(topic):
            consumer, task = found
            consumer.stop()
            await asyncio.wait({task})

    async def stop_consumers(self) -> None:
        """The same for all topics."""
        await asyncio.gather(*(self.stop_consumer(topic) for topic in list(self._consumers)))

    async def _start(self, topic: str) -> None:
        if topic in self._consumers or topic in self._opening:
            return
        assert self._shared is not None
        route = self.find(topic)
        if route is None:
            logger.warning("there is no handler for the topic %s: its messages become dead letters", topic)
            route = no_route(topic)
        consumer = TopicConsumer(topic, route, self._shared, self._countings[topic])
        self._opening.add(topic)
        try:
            await consumer.open()
        finally:
            self._opening.discard(topic)
        if self._stop_asked or topic in self._left_out:
            await consumer.close()
            return
        task = asyncio.create_task(self._consume(consumer), name=f"redis-worker topic {topic}")
        self._consumers[topic] = consumer, task
        self._refusals.consumed(topic)

    async def _consume(self, consumer: TopicConsumer) -> None:
        refused = None
        try:
            await consumer.run()
        except Refused as error:
            refused = error
        except Exception as error:
            self._error = self._error or error
        finally:
            del self._consumers[consumer.topic]
            self._changed.set()
        if refused is not None:
            self._refuse(consumer.topic, refused, consumer)

    def _refuse(self, topic: str, refused: Refused, consumer: TopicConsumer | None = None) -> None:
        """Leave `topic` out for a while, or end the worker where the refusal is not only this topic's."""
        if self._concerns_all(topic, refused):
            self._error = self._error or refused
        else:
            self._refusals.add(topic, refused, asyncio.get_running_loop().time(), consumer)

    def _concerns_all(self, topic: str, refused: Refused) -> bool:
        """Whether `refused` is a matter of the login or of rights, and leaves nothing to do for this worker."""
        return not isinstance(refused, WrongType) and not self._consumers and topic in self.named | self._asked

    def _stop_work(self) -> None:
        self._changed.set()
        if self._looking is not None:
            self._looking.cancel()  # the server may hang

    def _cancel_work(self) -> None:
        for consumer, _ in self._consumers.values():
            consumer.cancel()

    async def _work(self) -> None:
        connection = Connection(self._given or self._address.open(), owned=self._given is None, lasting=True)
        options = self.options
        keeper = LeaseKeeper(self._address, seconds_of(options.lease))
        doorbell = Doorbell(self._address)
        reporter = Reporter("mq:*")
        observer = Observers((reporter, *self._observers))
        topics = Topics(connection)
        self._shared = Shared(
            connection, doorbell, keeper, Slots(options.concurrency), Reconnect(observer), self._observers,
            self._measuring, options.max_deliveries, options.dead_limit, seconds_of(options.shutdown_timeout),
        )  # fmt: skip
        watchdog = Watchdog(observer, report=reporter.block)
        roles = [asyncio.create_task(doorbell.run()), asyncio.create_task(watchdog.run())]
        try:
            if await self._connected(connection, lambda: self._start_named(topics)):
                self._started.set()
                await self._consume_found(topics)
        finally:
            await self._stop_all()
            for role in roles:
                role.cancel()
            await asyncio.wait(roles)
            await connection.close()
            await keeper.close()

    async def _start_named(self, topics: Topics) -> None:
        """See whether the server is fit, and consume what handlers name, and what was asked for."""
        await check_server(topics.connection)
        named = sorted((self.named | self._asked) - self._left_out)
        await topics.look_up(named, all_others=False)
        refused: dict[str, Refused] = {}
        for topic in named:
            try:
                await self._start(topic)
            except Refused as error:  # one topic that cannot be consumed does not end the others
                refused[topic] = error
        for topic, refusal in refused.items():
            if self._concerns_all(topic, refusal):
                raise refusal
            self._refusals.add(topic, refusal, asyncio.get_running_loop().time())

    async def _consume_found(self, topics: Topics) -> None:
        """Consume what is found, until the end. Raises what has ended a consumer."""
        warned = False
        while not self._stop_asked and self._error is None:
            await self._look_for_topics(topics)
            await self._wait_for_change()
            if not (warned or self._stop_asked or self.routes() or self._consumers):
                warned = True
                logger.warning("the topic worker has no handler: it does nothing until one is declared")
        if self._error is not None:
            raise self._error

    async def _look_for_topics(self, topics: Topics) -> None:
        """Start consumers for topics that handlers, patterns or the default handler are for by now."""
        now = asyncio.get_running_loop().time()
        try:
            known = await self._known(topics)
            wanted = self.named | known | self._refusals.due(now)
            for topic in sorted(wanted - self._consumers.keys() - self._left_out - self._refusals.pending(now)):
                if (topic in self._asked or self.find(topic) is not None) and not self._stop_asked:
                    await self._start_found(topic)
        except Disconnected:
            pass  # the consumers meet the same, and say so

    async def _known(self, topics: Topics) -> set[str]:
        """The known topics; none where there is a stop meanwhile."""
        self._looking = asyncio.ensure_future(topics.look_up(self._consumers, all_others=self.wants_known))
        await asyncio.wait({self._looking})
        return set() if self._looking.cancelled() else self._looking.result()

    async def _start_found(self, topic: str) -> None:
        try:
            await self._refusals.close(topic)
            await self._start(topic)
        except Refused as error:
            self._refusals.add(topic, error, asyncio.get_running_loop().time())

    async def _wait_for_change(self) -> None:
        """Wait a little, less when a consumer has ended, a handler has come, or all is to stop."""
        await happens(self._changed, _LOOK_EVERY)
        self._changed.clear()

    async def _stop_all(self) -> None:
        tasks = []
        for consumer, task in list(self._consumers.values()):
            consumer.stop()
            tasks.append(task)
        if tasks:
            await asyncio.wait(tasks)
