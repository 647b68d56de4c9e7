"""The pool: names and options made into objects, run, and taken down again. It knows every part."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from redis_worker.broker.address import Address, Client, address_of
from redis_worker.broker.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.lease import LeaseKeeper
from redis_worker.broker.lossy import AtMostOnceQueue
from redis_worker.broker.preflight import check_expiry, check_server, check_slots, connected, lie_apart
from redis_worker.broker.queue import AtLeastOnceQueue
from redis_worker.broker.recovery import Recoverer
from redis_worker.broker.schedule import Promoter
from redis_worker.broker.settlement import Limits
from redis_worker.engine.counters import Counters, Counting
from redis_worker.engine.execution import Coroutines, Execution, Threads
from redis_worker.engine.handler import Handler
from redis_worker.engine.observers import Observers
from redis_worker.engine.processes import Processes
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.worker import Worker
from redis_worker.options import pool_options
from redis_worker.ports import Observer, Parser, Processor
from redis_worker.registry import find_parser, find_processor
from redis_worker.reporting import Reporter
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused
from redis_worker.vocabulary.processor import Declaration, declaration_of

if TYPE_CHECKING:
    from typing import Self


class WorkerPool:
    """A worker pool on one queue, for programs that embed it.

        async with WorkerPool("redis://localhost", "fib:input", "fib:output", "list", "fibonacci") as pool:
            ...
        print(pool.counters.processed)

    In the `with` block the pool works in the background; at its end it stops gracefully. `run()` does
    the same in the foreground. No signal handler is installed and no logging configured.
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
        **options: Any,
    ) -> None:
        """`options` are the fields of PoolOptions. Raises ConfigurationError."""
        self.options = pool_options(concurrency, options)
        self._address: Address = address_of(redis)
        self._given = None if isinstance(redis, str) else redis
        if input_key == output_key:
            raise ConfigurationError(f"the input list and the output hash are both named {input_key!r}")
        self._keys = Keys(input_key, output_key)
        self._parser = find_parser(parser) if isinstance(parser, str) else parser
        self._processor = find_processor(processor) if isinstance(processor, str) else processor
        execution = None if self.options.execution == "auto" else self.options.execution
        self.declaration: Declaration = declaration_of(
            self._processor,
            execution=execution,
            timeout=self.options.timeout,
            retries=self.options.retries,
            retry_backoff=self.options.retry_backoff,
            retry_backoff_max=self.options.retry_backoff_max,
        )
        if self.declaration.retries and self.options.delivery == "at-most-once":
            raise ConfigurationError("retries need at-least-once delivery: at-most-once prefers loss to repetition")
        self._counting = Counting()
        self._observer = Observers((self._counting, Reporter(input_key), *observers))
        self._worker: Worker | None = None
        self._ran = False
        self._stop_asked = False
        self._waiting: asyncio.Future[None] | None = None
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._host: asyncio.Task[Any] | None = None
        self._failed_host = False

    @property
    def counters(self) -> Counters:
        """What the pool has done so far."""
        return self._counting.counters

    @property
    def address(self) -> str:
        """Where the queue is, without its password."""
        return self._address.name

    @property
    def running(self) -> int:
        """How many tasks run just now."""
        return self._worker.running if self._worker else 0

    @property
    def started(self) -> bool:
        """True once the server has been found fit and work has begun."""
        return self._started.is_set()

    async def wait_until_started(self) -> None:
        """Wait until work begins, which it does not if `run` fails before."""
        await self._started.wait()

    def stop(self) -> None:
        """Stop gracefully: claim no more, hand back what is not started, let running tasks finish."""
        self._stop_asked = True
        if self._worker is not None:
            self._worker.stop()
        elif self._waiting is not None:
            self._waiting.cancel()

    def cancel(self) -> None:
        """Stop at once: running coroutines are cancelled, and what is unfinished is handed back."""
        self.stop()
        if self._worker is not None:
            self._worker.cancel()

    async def run(self) -> None:
        """Work until stopped or cancelled (or done, with `burst` and `max_tasks`).

        Cancelling it stops at once: coroutines are cancelled and what is unfinished is handed back.
        Raises Unreachable when no server answers at start, and Refused for what trying again cannot mend.
        """
        if self._ran:
            raise ConfigurationError("a pool runs once; make another one")
        self._ran = True
        work = asyncio.ensure_future(self._run())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self.cancel()
            if self._worker is None:
                work.cancel()  # still waiting for a server
            await asyncio.wait({work})
            if not work.cancelled() and (error := work.exception()):
                raise error from None
            raise

    async def __aenter__(self) -> Self:
        """Start; returns when the pool works. Raises as `run` does."""
        self._task = asyncio.create_task(self.run(), name=f"redis-worker {self._keys.waiting}")
        started = asyncio.create_task(self._started.wait())
        try:
            await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        finally:
            started.cancel()
        if self._task.done():
            self._task.result()
        # When the pool fails, the block fails too: nobody should go on submitting to a dead pool.
        self._host = asyncio.current_task()
        self._task.add_done_callback(self._fail_host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        host, self._host = self._host, None
        self.stop()
        await asyncio.wait({self._task})
        if self._failed_host and host is not None and host.uncancel() == 0 and kind is asyncio.CancelledError:
            self._task.result()
        if kind is None:
            self._task.result()

    def _fail_host(self, task: asyncio.Task[None]) -> None:
        if self._host is not None and not task.cancelled() and task.exception() is not None:
            self._failed_host = True
            self._host.cancel()

    async def _run(self) -> None:
        ordinary = Connection(self._given or self._address.open(), owned=self._given is None, lasting=True)
        blocking = Connection(self._address.open(), owned=True, lasting=True)
        try:
            if not await self._connected(ordinary):
                return
            await check_server(ordinary, self._keys)
            if self.options.result_ttl is not None:
                await check_expiry(ordinary, self._keys)
            await self._work(ordinary, blocking)
        finally:
            await blocking.close()
            await ordinary.close()

    async def _connected(self, connection: Connection) -> bool:
        """Wait for a server; False when the pool was stopped before there was one."""
        if not self._stop_asked:
            self._waiting = asyncio.ensure_future(
                connected(connection, self._address.name, self.options.connect_timeout)
            )
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                self._waiting.result()
        return not self._stop_asked

    async def _work(self, ordinary: Connection, blocking: Connection) -> None:
        options = self.options
        if self._address.cluster:
            check_slots(self._keys)
        execution = self._execution()
        queue, upkeep = self._queue(ordinary, blocking)
        await queue.open()
        declared = self.declaration
        policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max)
        if options.delivery == "at-most-once":
            policy = RetryPolicy(granted=0)
        handler = Handler(self._parser, self._processor, execution, declared.timeout, options.max_deliveries, policy)
        self._worker = Worker(
            queue,
            handler,
            execution,
            self._observer,
            concurrency=options.concurrency,
            shutdown_timeout=options.shutdown_timeout,
            burst=options.burst,
            max_tasks=options.max_tasks,
            upkeep=upkeep,
        )
        if self._stop_asked:
            self._worker.stop()
        self._started.set()
        try:
            await self._worker.run()
        finally:
            await blocking.close()  # ends a claim that still waits, before everything is handed back
            try:
                await queue.close()
            except (Disconnected, Refused):
                pass  # the lease ends by itself, and others recover what was held

    def _queue(
        self, ordinary: Connection, blocking: Connection
    ) -> tuple[AtLeastOnceQueue | AtMostOnceQueue, list[Callable[[], Coroutine[Any, Any, None]]]]:
        """The queue, and what is to run beside it."""
        limits = Limits(self.options.dead_limit, self.options.result_ttl or 0)
        promoter = Promoter(ordinary, self._address, self._keys)
        if self.options.delivery == "at-most-once":
            return AtMostOnceQueue(ordinary, blocking, self._keys, limits), [promoter.run]
        lease = self.options.lease
        queue = AtLeastOnceQueue(
            ordinary,
            blocking,
            self._keys,
            LeaseKeeper(self._address, self._keys, lease),
            self._observer,
            lease=lease,
            max_deliveries=self.options.max_deliveries,
            limits=limits,
            output_apart=self._address.cluster and lie_apart(self._keys),
        )
        return queue, [Recoverer(ordinary, self._keys, queue, self._observer, lease=lease).run, promoter.run]

    def _execution(self) -> Execution | None:
        """Where the processor is called; None is inline."""
        processor, timeout, concurrency = self._processor, self.declaration.timeout, self.options.concurrency
        match self.declaration.execution:
            case "inline":
                return None
            case "async":
                return Coroutines(processor, timeout)
            case "thread":
                return Threads(processor, timeout, concurrency)
            case "process":
                return Processes(processor, timeout, concurrency, self.options.max_deliveries)


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
    are callables or names; `options` are the fields of PoolOptions. Returns what was done, when the
    pool ends by itself (`burst`, `max_tasks`). Raises ConfigurationError, Unreachable, Refused.
    """
    pool = WorkerPool(redis, input_key, output_key, parser, processor, concurrency, observers=observers, **options)
    await pool.run()
    return pool.counters
