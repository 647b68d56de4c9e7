"""The consumer of one topic: a worker of its own, with connections, lease keeper and slots shared with others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import damaged_keys
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.broker.operator.presence import Presence, Role
from redis_worker.broker.queue.delayed import Promoter
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.queue.topic import IdempotentQueue, TopicQueue
from redis_worker.engine.batches import BatchHandler, BatchRunner
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.execution import Execution
from redis_worker.engine.executions import execution_of
from redis_worker.engine.handler import Handler
from redis_worker.engine.observers import Observers
from redis_worker.engine.reading import MessageReader
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import InlineRunner, Runner, TaskRunner
from redis_worker.engine.running import RunningTask
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.worker import Worker
from redis_worker.ports import Observer
from redis_worker.reporting import Reporter
from redis_worker.service.routing import Route
from redis_worker.vocabulary.errors import Disconnected, Refused, WrongType
from redis_worker.vocabulary.service import Consuming


@dataclass(frozen=True, slots=True)
class Shared:
    """What the consumers of one process have in common."""

    connection: Connection
    doorbell: Doorbell
    keeper: LeaseKeeper
    slots: Slots
    reconnect: Reconnect
    observers: tuple[Observer, ...]
    measuring: Callable[[str, str], tuple[Observer, ...]]
    """The observers for one queue and its handler."""
    max_deliveries: int
    dead_limit: int
    shutdown_timeout: float


class ConsumerStatus(NamedTuple):
    """A topic that is consumed, and how it goes."""

    topic: str
    handler: str
    """The handler's name."""
    concurrency: int
    running: int
    """How many messages (or batches) are handled just now."""
    counters: Counters


class Consumer:
    """Works on one topic, until it is stopped."""

    def __init__(self, topic: str, route: Route, shared: Shared, counting: Counting) -> None:
        """Raises ConfigurationError where the handler cannot be called as it declares."""
        self.topic = topic
        self._route = route
        self._shared = shared
        self._keys = Keys(topic_list(topic))
        self._counting = counting
        reporter = Reporter(self._keys.waiting, f"message of {topic}")
        declared = route.declaration
        measuring = shared.measuring(self._keys.waiting, declared.name)
        self._observer = Observers((self._counting, reporter, *measuring, *shared.observers))
        self._execution = execution_of(
            route.call, declared.execution, declared.timeout, route.concurrency, shared.max_deliveries
        )
        self._queue = self._new_queue()
        role = Role(declared.name, route.concurrency)
        counters = self._counting.counters
        wait_for_delayed = partial(shared.doorbell.wait, self._keys.delayed)
        self._worker = Worker(
            self._queue,
            self._runner(self._execution),
            self._execution,
            self._observer,
            shutdown_timeout=shared.shutdown_timeout,
            reconnect=shared.reconnect,
            upkeep=[
                Recoverer(shared.connection, self._keys, self._queue, self._observer, lease=shared.keeper.seconds).run,
                Presence(shared.connection, self._keys, self._queue, role, counters, lambda: self._worker).run,
                Promoter(shared.connection, self._keys, wait_for_delayed, self._observer).run,
            ],
        )

    @property
    def status(self) -> ConsumerStatus:
        """How it goes."""
        route = self._route
        return ConsumerStatus(
            self.topic, route.declaration.name, route.concurrency, self._worker.running, self._counting.counters
        )

    @property
    def consuming(self) -> Consuming:
        """What it consumes."""
        return Consuming(self._keys.waiting, self.topic, self._route.declaration.name, self._worker.in_flight)

    def running_tasks(self) -> list[RunningTask]:
        """What runs just now, oldest first; to be called on the event loop."""
        return self._worker.running_tasks()

    async def open(self) -> None:
        """Check the topic's list and take a lease. Raises Disconnected, or Refused (DamagedKey where it is no list)."""
        await self._check_list()
        await self._queue.open()

    async def run(self) -> None:
        """Work, once it is open. Raises Refused (DamagedKey where the topic's list is none any more)."""
        try:
            await self._worker.run()
        except WrongType:
            with suppress(Disconnected):
                await self._check_list()
            raise
        finally:
            await self.close()

    async def _check_list(self) -> None:
        for damaged in await damaged_keys(self._shared.connection, {self._keys.waiting: "list"}):
            raise damaged

    async def close(self) -> None:
        """Give up the lease, and hand back what is in flight; to be called again where that was refused."""
        try:
            await self._queue.close()
        except (Disconnected, Refused):
            pass  # it ends by itself, and others recover what was held

    def stop(self) -> None:
        """Stop gracefully."""
        self._worker.stop()
        self._shared.doorbell.ring()  # a claim that waits there finds out

    def cancel(self) -> None:
        """Stop at once; what is unfinished is handed back."""
        self._worker.cancel()
        self._shared.doorbell.ring()

    def _new_queue(self) -> TopicQueue:
        shared, remember = self._shared, int(self._route.remember * 1000)
        queue_class = IdempotentQueue if remember else TopicQueue
        return queue_class(
            shared.connection,
            shared.doorbell,
            self._keys,
            shared.keeper,
            self._observer,
            max_deliveries=shared.max_deliveries,
            limits=Limits(dead=shared.dead_limit, remember=remember),
        )

    def _runner(self, execution: Execution | None) -> Callable[[Settler], Runner]:
        route, slots = self._route, self._shared.slots
        declared, batching = route.declaration, route.batching
        policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max, bury=True)
        read = MessageReader(self.topic, self._shared.max_deliveries).read
        if batching is not None and execution is not None:
            batches = BatchHandler(read, execution, declared.timeout, policy)
            size, within = batching.size, batching.within
            return lambda settler: BatchRunner(batches, settler, route.concurrency, slots, size=size, within=within)
        handler = Handler(read, route.call, execution, declared.timeout, policy)
        if execution is None:
            return lambda settler: InlineRunner(handler, settler, route.concurrency)
        return lambda settler: TaskRunner(handler, settler, route.concurrency, slots)
