"""The pool: names and options made into objects, run, and taken down again. It knows every part."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, TypeAlias

from redis_worker.broker.connection.address import Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_expiry, check_keys, check_server, check_slots, lie_apart
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.presence import Presence, Role
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.delayed import Promoter, WakeChannel
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.broker.queue.registry import Registrar
from redis_worker.broker.queue.settlement import Limits
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.execution import Execution
from redis_worker.engine.executions import execution_of
from redis_worker.engine.handler import Handler
from redis_worker.engine.observers import Observers
from redis_worker.engine.reading import TaskReader
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import InlineRunner, Runner, TaskRunner
from redis_worker.engine.running import RunningTask
from redis_worker.engine.settler import Settler
from redis_worker.engine.watchdog import Watchdog
from redis_worker.engine.worker import Worker
from redis_worker.ports import Observer, Parser, Processor
from redis_worker.registry import find_parser, find_processor
from redis_worker.reporting import Reporter
from redis_worker.service.options import pool_options
from redis_worker.service.service import Measuring, Service
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.duration import seconds_of
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused
from redis_worker.vocabulary.processor import Declaration, check_settings, declaration_of
from redis_worker.vocabulary.service import Condition, Consuming

Upkeep: TypeAlias = list[Callable[[], Coroutine[Any, Any, None]]]


class WorkerPool(Service):
    """A worker pool on one queue, for programs that embed it.

        async with WorkerPool("redis://localhost", "fib:input", "fib:output", "list", "fibonacci") as pool:
            ...
        print(pool.counters.processed)

    In the `with` block the pool works in the background; at its end it stops gracefully. `run()` does
    the same in the foreground, and `asyncio.run(pool.serve())` is a program that stops at SIGTERM. No other
    call installs a signal handler, and none configures logging.
    """

    def __init__(
        self,
        redis: str | Client,
        input_key: str,
        output_key: str,
        parser: str | Parser,
        processor: str | Processor,
        concurrency: int = 4,
        *,
        observers: Iterable[Observer] = (),
        http: str | None = None,
        measuring: Measuring | None = None,
        **options: Any,
    ) -> None:
        """`options` are the fields of PoolOptions. Raises ConfigurationError.

        `http` is where to answer health checks and tell metrics, as "127.0.0.1:8084" (the extra `web`). Without it,
        `measuring` gives the observer of a queue and a processor's name, for a supervisor that tells metrics itself.
        """
        self.options = pool_options(concurrency, options)
        address, connect_timeout = address_of(redis), seconds_of(self.options.connect_timeout)
        super().__init__(f"the pool on {input_key}", address, connect_timeout, input_key, http, measuring)
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
        self._counting = Counting()
        metrics = self._measuring(input_key, self.declaration.name)
        self._reporter = Reporter(input_key)
        self._observer = Observers((self._counting, self._reporter, *metrics, *observers))
        self._worker: Worker | None = None

    @property
    def queue(self) -> str:
        """The list and the hash that it works on, for people."""
        return f"{self._keys.waiting} -> {self._keys.output}"

    @property
    def counters(self) -> Counters:
        """What the pool has done so far."""
        return self._counting.counters

    @property
    def running(self) -> int:
        """How many tasks run just now."""
        return self._worker.running if self._worker else 0

    def running_tasks(self) -> list[RunningTask]:
        """What runs just now, oldest first: id, age and stack of each; to be called on the event loop.

        Of inline calls nothing is seen, for none is under way while the event loop does anything else.
        """
        return self._worker.running_tasks() if self._worker else []

    def consuming(self) -> list[Consuming]:
        """The queue, once work has begun."""
        if self._worker is None:
            return []
        queue = self._keys.waiting
        return [Consuming(queue, queue, self.declaration.name, self._worker.in_flight)]

    def _condition_at_work(self) -> Condition:
        assert self._worker is not None
        if not self._worker.claiming:
            return "stopping"
        return "Redis is away" if self._worker.away else "running"

    def _stop_work(self) -> None:
        assert self._worker is not None
        self._worker.stop()

    def _cancel_work(self) -> None:
        assert self._worker is not None
        self._worker.cancel()

    async def _work(self) -> None:
        ordinary = Connection(self._given or self._address.open(), owned=self._given is None, lasting=True)
        blocking = Connection(self._address.open(), owned=True, lasting=True, beside=ordinary)
        keeper = LeaseKeeper(self._address, seconds_of(self.options.lease))
        queue, upkeep = self._queue(ordinary, blocking, keeper)
        try:
            if await self._connected(ordinary, lambda: self._open(queue, ordinary)):
                await self._work_on(queue, upkeep)
        finally:
            await blocking.close()  # ends a claim that still waits, before everything is handed back
            try:
                await queue.close()
            except (Disconnected, Refused):
                pass  # the lease ends by itself, and others recover what was held
            await ordinary.close()
            await keeper.close()

    async def _open(self, queue: AtLeastOnceQueue | AtMostOnceQueue, ordinary: Connection) -> None:
        """See whether the server is fit, and take a lease. Raises Disconnected, Refused or ConfigurationError."""
        if self._address.cluster:
            check_slots(self._keys)
        await check_server(ordinary)
        await check_keys(ordinary, self._keys)
        if self.options.result_ttl is not None:
            await check_expiry(ordinary, self._keys)
        await queue.open()

    async def _work_on(self, queue: AtLeastOnceQueue | AtMostOnceQueue, upkeep: Upkeep) -> None:
        options = self.options
        execution = execution_of(
            self._processor,
            self.declaration.execution,
            self.declaration.timeout,
            options.concurrency,
            options.max_deliveries,
        )
        self._worker = Worker(
            queue,
            self._runner_of(execution),
            execution,
            self._observer,
            shutdown_timeout=seconds_of(options.shutdown_timeout),
            burst=options.burst,
            max_tasks=options.max_tasks,
            upkeep=[*upkeep, Watchdog(self._observer, report=self._reporter.block).run],
        )
        self._started.set()
        if self._stop_asked:
            self._worker.stop()
        await self._worker.run()

    def _runner_of(self, execution: Execution | None) -> Callable[[Settler], Runner]:
        options, declared = self.options, self.declaration
        policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max)
        if options.delivery == "at-most-once":
            policy = RetryPolicy(granted=0)
        read = TaskReader(self._parser, options.max_deliveries).read
        handler = Handler(read, self._processor, execution, declared.timeout, policy)
        runner = InlineRunner if execution is None else TaskRunner
        return lambda settler: runner(handler, settler, options.concurrency)

    def _queue(
        self, ordinary: Connection, blocking: Connection, keeper: LeaseKeeper
    ) -> tuple[AtLeastOnceQueue | AtMostOnceQueue, Upkeep]:
        """The queue, and what is to run beside it."""
        limits = Limits(self.options.dead_limit, int(seconds_of(self.options.result_ttl or 0)))
        channel = WakeChannel(self._address, self._keys.wake)
        promoter = Promoter(ordinary, self._keys, channel.wait, self._observer)
        upkeep = [channel.run, promoter.run, Registrar(ordinary, self._keys).run]
        if self.options.delivery == "at-most-once":
            return AtMostOnceQueue(ordinary, blocking, self._keys, self._observer, limits), upkeep
        queue = AtLeastOnceQueue(
            ordinary,
            blocking,
            self._keys,
            keeper,
            self._observer,
            max_deliveries=self.options.max_deliveries,
            limits=limits,
            output_apart=self._address.cluster and lie_apart(self._keys),
        )
        recoverer = Recoverer(ordinary, self._keys, queue, self._observer, lease=keeper.seconds)
        role = Role(self.declaration.name, self.options.concurrency)
        presence = Presence(ordinary, self._keys, queue, role, self.counters, lambda: self._worker)
        return queue, [recoverer.run, presence.run, *upkeep]


async def start_worker_pool(
    redis: str | Client,
    input_key: str,
    output_key: str,
    parser: str | Parser,
    processor: str | Processor,
    concurrency: int = 4,
    *,
    observers: Iterable[Observer] = (),
    **options: Any,
) -> Counters:
    """Run a worker pool in the caller's event loop until it is cancelled; no signal handler is installed.

    `redis` is a URL or a `redis.asyncio` client, which is used and not closed; `parser` and `processor`
    are callables or names; `options` are the fields of PoolOptions, and `http`. Returns what was done, when the
    pool ends by itself (`burst`, `max_tasks`). Raises ConfigurationError, Unreachable, Refused.
    """
    pool = WorkerPool(redis, input_key, output_key, parser, processor, concurrency, observers=observers, **options)
    await pool.run()
    return pool.counters
