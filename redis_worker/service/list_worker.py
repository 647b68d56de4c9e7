"""A worker on one list: a service with one consumer, and results in a hash."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial

from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import (
    check_expiry,
    check_forward,
    check_keys,
    check_server,
    check_slots,
    lie_apart,
)
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.announcing import announce_queue
from redis_worker.broker.operator.presence import Role
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.gate import Gate
from redis_worker.broker.queue.limited import limited_queue
from redis_worker.broker.queue.settlement import Limits
from redis_worker.engine.lifespan import Lifespan
from redis_worker.engine.observers import ByFunction, Observers
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.watchdog import Watchdog
from redis_worker.engine.worker import Role as WorkerRole
from redis_worker.ports import Observer
from redis_worker.reporting import Reporter
from redis_worker.service.consumer import Consumer, Working
from redis_worker.service.consumer_service import ConsumerService
from redis_worker.service.options import PoolOptions
from redis_worker.service.service import Measuring
from redis_worker.service.shared import SharedParts, shared_parts
from redis_worker.service.upkeep import upkeep_of
from redis_worker.vocabulary.duration import seconds_of
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import priorities_of
from redis_worker.vocabulary.processor import Declaration
from redis_worker.vocabulary.rate import Rate
from redis_worker.vocabulary.service import Consuming


class ListWorker(ConsumerService):
    """A worker on one list; its subclasses say what is done with a task."""

    _address: Address

    _counting: Vitals

    def __init__(
        self,
        redis: str | Client,
        input_key: str,
        output_key: str,
        options: PoolOptions,
        declaration: Declaration,
        *,
        observers: Iterable[Observer],
        http: str | None,
        http_token: str | None,
        http_origins: Sequence[str],
        measuring: Measuring | None,
        lifespan: Lifespan | None,
        functions: Sequence[str] = (),
    ) -> None:
        """See WorkerPool. The metrics of `functions` are apart. Raises ConfigurationError."""
        self.options = options
        self.declaration = declaration
        address, connect_timeout = address_of(redis), seconds_of(options.connect_timeout)
        super().__init__(
            *(f"the pool on {input_key}", address, connect_timeout, input_key, http, http_token, measuring),
            http_origins=http_origins,
            lifespan=lifespan,
        )
        self._redis = redis
        self._given = None if isinstance(redis, str) else redis
        if input_key == output_key:
            raise ConfigurationError(f"the input list and the output hash are both named {input_key!r}")
        priorities = None if options.priorities is None else priorities_of(options.priorities)
        self._keys = Keys(input_key, output_key, priorities)
        own = None if self._http is None or functions else self._http.metrics.of(input_key, declaration.name)
        # The metrics that the pool itself serves count for all: nothing is counted twice.
        self._counting = own or Vitals()
        metrics = () if own else self._measuring(input_key, declaration.name)
        if functions and self._measure is not None:
            metrics = (ByFunction(partial(self._measure, input_key), declaration.name, functions),)
        self._reporter = Reporter(input_key)
        self._observer = Observers((self._counting, self._reporter, *metrics, *observers))

    @property
    def queue(self) -> str:
        """The list and the hash, for people to read."""
        return f"{self._keys.waiting} -> {self._keys.output}"

    @property
    def summary(self) -> str:
        """The queue and its processor in a line, for people to read."""
        return f"{self.queue}, {self.declaration.name}, {self.options.concurrency} at once, on {self.address}"

    def consuming(self) -> list[Consuming]:
        """Return the queue, once work has begun."""
        return [self._consumer.consuming] if self._consumer and self.started else []

    async def _work(self) -> None:
        lease = seconds_of(self.options.lease)
        async with shared_parts(self._redis, self._address, self._given, lease) as parts:
            blocking = Connection(self._address.open(), owned=True, lasting=True, beside=parts.connection)
            try:
                self._consumer = consumer = self._consumer_of(parts, blocking)
                if await self._connected(parts.connection, lambda: self._open(consumer, parts.connection)):
                    self._started.set()
                    if self._stop_asked:
                        consumer.stop()
                    await consumer.run()
            finally:
                await blocking.close()  # ends a claim that still waits, before everything is handed back
                if self._consumer is not None:
                    await self._consumer.close()

    async def _open(self, consumer: Consumer, ordinary: Connection) -> None:
        """Check the server and the keys, and take a lease. Raises Disconnected, Refused or ConfigurationError."""
        if self._address.cluster:
            check_slots(self._keys)
            check_forward(self._keys, self.options.forward)
        await check_server(ordinary)
        await check_keys(ordinary, self._keys, self.options.forward)
        await self._check_expiry(ordinary)
        await consumer.open()

    def _consumer_of(self, parts: SharedParts, blocking: Connection) -> Consumer:
        options, keys, observer = self.options, self._keys, self._observer
        queue = self._queue(parts, blocking)
        watchdog = Watchdog(observer, report=self._reporter.block)
        role = Role(self.declaration.name, options.concurrency)
        gate, limited = None, None
        if isinstance(queue, AtLeastOnceQueue) and (gate := self._gate(parts, queue)):
            limited = limited_queue(queue, gate)
        return Consumer(
            keys.waiting,
            limited or queue,
            self._task_work(gate),
            observer,
            self._counting,
            upkeep=upkeep_of(
                *(parts, keys, queue, observer, role, self._counting),
                others=(
                    *(partial(announce_queue, parts.connection, keys), watchdog.run, parts.defects),
                    *self._roles(parts, queue),
                    *(gate.roles if gate else ()),
                ),
            ),
            shutdown_timeout=seconds_of(options.shutdown_timeout),
            burst=options.burst,
            max_tasks=options.max_tasks,
            ring=(limited or queue).ring,
        )

    def _queue(self, parts: SharedParts, blocking: Connection) -> AtLeastOnceQueue | AtMostOnceQueue:
        limits = self._limits()
        if self.options.delivery == "at-most-once":
            return AtMostOnceQueue(parts.connection, blocking, self._keys, self._observer, limits)
        return AtLeastOnceQueue(
            *(parts.connection, blocking, parts.doorbell, self._keys, parts.keeper, self._observer),
            max_deliveries=self.options.max_deliveries,
            limits=limits,
            output_apart=self._address.cluster and lie_apart(self._keys),
            forward=self.options.forward,
        )

    def _roles(
        self,
        parts: SharedParts,  # noqa: ARG002 - for subclasses
        queue: AtLeastOnceQueue | AtMostOnceQueue,  # noqa: ARG002
    ) -> Sequence[WorkerRole]:
        """Return more roles that run beside the worker."""
        return ()

    def _gate(self, parts: SharedParts, queue: AtLeastOnceQueue) -> Gate | None:
        """Return the gate of tasks under limits; None without limits."""
        if self.options.rate is None:
            return None
        rate = Rate.of("rate", self.options.rate)
        in_process = self.declaration.execution == "process"
        return Gate.of_rate(rate, parts.connection, self._keys, queue, parts.doorbell, self._observer, in_process)

    def _limits(self) -> Limits:
        return Limits(self.options.dead_limit, int(seconds_of(self.options.result_ttl or 0)))

    async def _check_expiry(self, connection: Connection) -> None:
        """Check that results can expire, if they are to. Raises Refused."""
        if self.options.result_ttl is not None:
            await check_expiry(connection, self._keys)

    @abstractmethod
    def _task_work(self, gate: Gate | None) -> Working:
        """Return the functions that are called with the tasks, and how."""
