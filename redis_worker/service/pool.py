"""The pool: a service with one consumer, on one list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_expiry, check_keys, check_server, check_slots, lie_apart
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.announcing import announce_queue
from redis_worker.broker.operator.presence import Role
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.settlement import Limits
from redis_worker.engine.counters import Counters
from redis_worker.engine.observers import Observers
from redis_worker.engine.reading import TaskReader
from redis_worker.engine.vitals import Vitals
from redis_worker.engine.watchdog import Watchdog
from redis_worker.ports import Observer, Parser, Processor
from redis_worker.registry import find_parser, find_processor
from redis_worker.reporting import Reporter
from redis_worker.service.consumer import Consumer, Work
from redis_worker.service.consumer_service import ConsumerService
from redis_worker.service.options import POOL_DEFAULTS, pool_options
from redis_worker.service.service import Measuring
from redis_worker.service.shared import SharedParts, shared_parts
from redis_worker.service.upkeep import upkeep_of
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.duration import seconds_of
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Declaration, check_settings, declaration_of
from redis_worker.vocabulary.service import Consuming


class WorkerPool(ConsumerService):
    """A worker pool on one queue, for programs that embed it.

        async with WorkerPool("redis://localhost", "fib:input", "fib:output", "list", "fibonacci") as pool:
            ...
        print(pool.counters.processed)

    In the `with` block the pool works in the background; at its end it stops gracefully. `run()` does
    the same in the foreground, and `asyncio.run(pool.serve())` is a program that stops at SIGTERM. No other
    method installs a signal handler, and none configures logging.
    """

    _address: Address

    _counting: Vitals

    def __init__(
        self,
        redis: str | Client,
        input_key: str,
        output_key: str,
        parser: str | Parser,
        processor: str | Processor,
        concurrency: int = POOL_DEFAULTS.concurrency,
        *,
        observers: Iterable[Observer] = (),
        http: str | None = None,
        http_token: str | None = None,
        http_origins: Sequence[str] = (),
        measuring: Measuring | None = None,
        **options: Any,
    ) -> None:
        """`options` are the fields of PoolOptions. Raises ConfigurationError.

        `http` is the address for health checks, metrics, WebSocket clients and the dashboard, as "127.0.0.1:8084" (the
        extra `web`), and `http_token` the token that the metrics, and every change, then need. Pages of
        `http_origins`, as `https://shop.example`, may connect to its `/ws`. Without `http`,
        `measuring` returns the observer for a queue and a processor's name, where a supervisor serves the metrics.
        """
        self.options = pool_options(concurrency, options)
        address, connect_timeout = address_of(redis), seconds_of(self.options.connect_timeout)
        name = f"the pool on {input_key}"
        super().__init__(name, address, connect_timeout, input_key, http, http_token, measuring, http_origins)
        self._redis = redis
        self._given = None if isinstance(redis, str) else redis
        if input_key == output_key:
            raise ConfigurationError(f"the input list and the output hash are both named {input_key!r}")
        self._keys = Keys(input_key, output_key)
        self._parser = find_parser(parser) if isinstance(parser, str) else parser
        self._processor = find_processor(processor) if isinstance(processor, str) else processor
        check_takes_one("parser", self._parser, "one value, the task")
        check_takes_one("processor", self._processor, "one list of arguments")
        execution = None if self.options.execution == "auto" else self.options.execution
        self.declaration: Declaration = declaration_of(
            self._processor,
            execution=execution,
            timeout=self.options.timeout,
            retries=self.options.retries,
            retry_backoff=self.options.retry_backoff,
            retry_backoff_max=self.options.retry_backoff_max,
        )
        check_settings(self._processor)
        if self.declaration.retries and self.options.delivery == "at-most-once":
            raise ConfigurationError("retries need at-least-once delivery: at-most-once prefers loss to repetition")
        own = None if self._http is None else self._http.metrics.of(input_key, self.declaration.name)
        # The metrics that the pool itself serves count for all: nothing is counted twice.
        self._counting = own or Vitals()
        metrics = () if own else self._measuring(input_key, self.declaration.name)
        self._reporter = Reporter(input_key)
        self._observer = Observers((self._counting, self._reporter, *metrics, *observers))

    @property
    def queue(self) -> str:
        """The list and the hash, for people to read."""
        return f"{self._keys.waiting} -> {self._keys.output}"

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
        await check_server(ordinary)
        await check_keys(ordinary, self._keys)
        if self.options.result_ttl is not None:
            await check_expiry(ordinary, self._keys)
        await consumer.open()

    def _consumer_of(self, parts: SharedParts, blocking: Connection) -> Consumer:
        options, keys, observer = self.options, self._keys, self._observer
        queue = self._queue(parts, blocking)
        watchdog = Watchdog(observer, report=self._reporter.block)
        role = Role(self.declaration.name, options.concurrency)
        return Consumer(
            keys.waiting,
            queue,
            Work(
                read=TaskReader(self._parser, options.max_deliveries).read,
                call=self._processor,
                declaration=self.declaration,
                concurrency=options.concurrency,
                max_deliveries=options.max_deliveries,
                may_retry=options.delivery == "at-least-once",
            ),
            observer,
            self._counting,
            upkeep=upkeep_of(
                *(parts, keys, queue, observer, role, self._counting),
                others=(partial(announce_queue, parts.connection, keys), watchdog.run, parts.defects),
            ),
            shutdown_timeout=seconds_of(options.shutdown_timeout),
            burst=options.burst,
            max_tasks=options.max_tasks,
            ring=queue.ring,
        )

    def _queue(self, parts: SharedParts, blocking: Connection) -> AtLeastOnceQueue | AtMostOnceQueue:
        limits = Limits(self.options.dead_limit, int(seconds_of(self.options.result_ttl or 0)))
        if self.options.delivery == "at-most-once":
            return AtMostOnceQueue(parts.connection, blocking, self._keys, self._observer, limits)
        return AtLeastOnceQueue(
            *(parts.connection, blocking, parts.doorbell, self._keys, parts.keeper, self._observer),
            max_deliveries=self.options.max_deliveries,
            limits=limits,
            output_apart=self._address.cluster and lie_apart(self._keys),
        )


async def start_worker_pool(
    redis: str | Client,
    input_key: str,
    output_key: str,
    parser: str | Parser,
    processor: str | Processor,
    concurrency: int = POOL_DEFAULTS.concurrency,
    *,
    observers: Iterable[Observer] = (),
    **options: Any,
) -> Counters:
    """Run a worker pool in the caller's event loop until it is cancelled; no signal handler is installed.

    `redis` is a URL or a `redis.asyncio` client, which is used and not closed; `parser` and `processor`
    are callables or names; `options` are the fields of PoolOptions, and `http`. Returns the counters when the
    pool ends by itself (`burst`, `max_tasks`). Raises ConfigurationError, Unreachable, Refused.
    """
    pool = WorkerPool(redis, input_key, output_key, parser, processor, concurrency, observers=observers, **options)
    await pool.run()
    return pool.counters
