"""The pool: a worker on one list that calls one processor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from redis_worker.broker.connection.address import Client
from redis_worker.broker.queue.gate import Gate
from redis_worker.engine.counters import Counters
from redis_worker.engine.lifespan import Lifespan, LifespanFunction, in_children
from redis_worker.engine.middleware import Middleware, Middlewares
from redis_worker.engine.reading import TaskReader
from redis_worker.engine.starts import Noted
from redis_worker.ports import Observer, Parser, Processor
from redis_worker.registry import find_parser, find_processor
from redis_worker.service.consumer import Work
from redis_worker.service.list_worker import ListWorker
from redis_worker.service.options import POOL_DEFAULTS, PoolOptions, pool_options
from redis_worker.service.service import Measuring
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import check_settings, declaration_of


class WorkerPool(ListWorker):
    """A worker pool on one queue, for programs that embed it.

        async with WorkerPool("redis://localhost", "fib:input", "fib:output", "list", "fibonacci") as pool:
            ...
        print(pool.counters.processed)

    In the `with` block the pool works in the background; at its end it stops gracefully. `run()` does
    the same in the foreground, and `asyncio.run(pool.serve())` is a program that stops at SIGTERM. No other
    method installs a signal handler, and none configures logging.
    """

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
        lifespan: LifespanFunction | None = None,
        middleware: Iterable[Middleware] = (),
        **options: Any,
    ) -> None:
        """`options` are the fields of PoolOptions. Raises ConfigurationError.

        `http` is the address for health checks, metrics, WebSocket clients and the dashboard, as "127.0.0.1:8084" (the
        extra `web`), and `http_token` the token that the metrics, and every change, then need. Pages of
        `http_origins`, as `https://shop.example`, may connect to its `/ws`. Without `http`,
        `measuring` returns the observer for a queue and a processor's name, where a supervisor serves the metrics.
        `lifespan` is an asynchronous generator function; it starts before the first claim, and in each child process,
        and what it yields is `current_resources()` in the processor. `middleware` are coroutine functions
        `(task, call_next)` around each call, the outermost first.
        """
        chosen = pool_options(concurrency, options)
        self._parser = find_parser(parser) if isinstance(parser, str) else parser
        self._processor = find_processor(processor) if isinstance(processor, str) else processor
        self._middleware = Middlewares(middleware)
        check_takes_one("parser", self._parser, "one value, the task")
        check_takes_one("processor", self._processor, "one list of arguments")
        declaration = declaration_of(
            self._processor,
            execution=None if chosen.execution == "auto" else chosen.execution,
            timeout=chosen.timeout,
            retries=chosen.retries,
            retry_backoff=chosen.retry_backoff,
            retry_backoff_max=chosen.retry_backoff_max,
        )
        check_settings(self._processor)
        if declaration.retries and chosen.delivery == "at-most-once":
            raise ConfigurationError("retries need at-least-once delivery: at-most-once prefers loss to repetition")
        if chosen.rate is not None and chosen.delivery == "at-most-once":
            raise ConfigurationError("a rate needs at-least-once delivery: what must wait goes back to the queue")
        _check_forward(chosen, input_key, output_key)
        super().__init__(
            *(redis, input_key, output_key, chosen, declaration),
            observers=observers,
            http=http,
            http_token=http_token,
            http_origins=http_origins,
            measuring=measuring,
            lifespan=None if lifespan is None else Lifespan(lifespan),
        )

    def _task_work(self, gate: Gate | None) -> Work:
        options = self.options
        return Work(
            read=TaskReader(self._parser, options.max_deliveries).read,
            call=self._call(self._processor if gate is None else Noted(self._processor)),
            declaration=self.declaration,
            concurrency=options.concurrency,
            max_deliveries=options.max_deliveries,
            may_retry=options.delivery == "at-least-once",
            queue=self._keys.waiting,
            middleware=self._middleware,
            gate=gate,
        )

    def _call(self, processor: Processor) -> Processor:
        return in_children(self._lifespan, processor) if self.declaration.execution == "process" else processor


def _check_forward(options: PoolOptions, input_key: str, output_key: str) -> None:
    if options.forward is None:
        return
    if options.delivery == "at-most-once":
        raise ConfigurationError("forward needs at-least-once delivery, which passes results on in one step")
    if options.forward in (input_key, output_key):
        raise ConfigurationError(f"forward names the pool's own key {options.forward!r}; name another list")


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
