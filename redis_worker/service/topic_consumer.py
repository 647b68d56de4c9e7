"""The consumer of one topic, which shares connection, lease keeper, slots and doorbell with those of other topics."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from redis_worker.broker.keys import Keys, topic_list
from redis_worker.broker.operator.presence import Role
from redis_worker.broker.queue.gate import Gate
from redis_worker.broker.queue.limited import limited_queue
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.queue.topic import IdempotentQueue, TopicQueue
from redis_worker.engine.counters import Counters
from redis_worker.engine.execution import unstored
from redis_worker.engine.lifespan import Lifespan, in_children
from redis_worker.engine.middleware import Middlewares
from redis_worker.engine.observers import Observers
from redis_worker.engine.reading import MessageReader
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.slots import Slots
from redis_worker.engine.starts import Noted
from redis_worker.engine.vitals import Vitals
from redis_worker.ports import Observer
from redis_worker.reporting import Reporter
from redis_worker.service.consumer import Consumer, Work
from redis_worker.service.routing import Route
from redis_worker.service.shared import SharedParts
from redis_worker.service.upkeep import upkeep_of
from redis_worker.vocabulary.errors import Disconnected, WrongType


@dataclass(frozen=True, slots=True)
class Shared:
    """The things that all consumers of one topic worker use."""

    parts: SharedParts
    slots: Slots
    reconnect: Reconnect
    observers: tuple[Observer, ...]
    measuring: Callable[[str, str], tuple[Observer, ...]]
    """The observers for one queue and its handler."""
    max_deliveries: int
    dead_limit: int
    shutdown_timeout: float
    lifespan: Lifespan | None
    middleware: Middlewares


class ConsumerStatus(NamedTuple):
    """A topic that is consumed, and its numbers."""

    topic: str
    handler: str
    """The handler's name."""
    concurrency: int
    running: int
    """How many messages (or batches) are being handled."""
    counters: Counters


class TopicConsumer(Consumer):
    """A consumer of one topic."""

    def __init__(self, topic: str, route: Route, shared: Shared, counting: Vitals) -> None:
        """Raises ConfigurationError where the handler cannot be called as it declares."""
        keys, name = Keys(topic_list(topic)), route.declaration.name
        reporter = Reporter(keys.waiting, f"message of {topic}")
        observer = Observers((counting, reporter, *shared.measuring(keys.waiting, name), *shared.observers))
        call = route.call if route.rate is None else Noted(route.call)
        of_process = route.declaration.execution == "process"
        queue = self._topic_queue = _queue_of(route, keys, shared, observer)
        gate = limited = None
        if route.rate is not None:
            parts = shared.parts
            gate = Gate.of_rate(route.rate, parts.connection, keys, queue, parts.doorbell, observer, of_process)
            limited = limited_queue(queue, gate)
        super().__init__(
            keys.waiting,
            limited or queue,
            Work(
                read=MessageReader(topic, shared.max_deliveries).read,
                call=in_children(shared.lifespan, call) if of_process else call,
                declaration=route.declaration,
                concurrency=route.concurrency,
                max_deliveries=shared.max_deliveries,
                bury=True,
                batching=route.batching,
                slots=shared.slots,
                encode=unstored,
                queue=keys.waiting,
                middleware=shared.middleware,
                gate=gate,
            ),
            observer,
            counting,
            topic=topic,
            upkeep=upkeep_of(
                *(shared.parts, keys, queue, observer, Role(name, route.concurrency), counting),
                others=(shared.parts.defects, *(gate.roles if gate else ())),
            ),
            reconnect=shared.reconnect,
            shutdown_timeout=shared.shutdown_timeout,
            ring=(limited or queue).ring,
        )

    @property
    def status(self) -> ConsumerStatus:
        """The topic and its numbers."""
        work = self.work
        return ConsumerStatus(self.topic, work.declaration.name, work.concurrency, self.running, self.counters)

    async def run(self) -> None:
        """Work until stopped, then close. Raises Refused (DamagedKey where the topic's list is no list any more)."""
        try:
            await super().run()
        except WrongType:
            with suppress(Disconnected):
                await self._topic_queue.check()
            raise
        finally:
            await self.close()


def _queue_of(route: Route, keys: Keys, shared: Shared, observer: Observer) -> TopicQueue:
    remember = int(route.remember * 1000)
    return (IdempotentQueue if remember else TopicQueue)(
        *(shared.parts.connection, shared.parts.doorbell, keys, shared.parts.keeper, observer),
        max_deliveries=shared.max_deliveries,
        limits=Limits(dead=shared.dead_limit, remember=remember),
    )
