"""The worker on a queue of functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_expiry
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.gate import Gate
from redis_worker.broker.queue.settlement import Limits
from redis_worker.engine.worker import Role
from redis_worker.functions.cancelling import Cancelling
from redis_worker.functions.declared import DeclaredFunctions
from redis_worker.functions.limiting import FunctionLanes
from redis_worker.functions.marks import Marks
from redis_worker.functions.progress import Reporting, Reports
from redis_worker.functions.reading import FunctionReader
from redis_worker.functions.work import FunctionWork
from redis_worker.ports import Observer
from redis_worker.service.consumer import Consumer
from redis_worker.service.list_worker import ListWorker
from redis_worker.service.options import POOL_DEFAULTS, UNDECLARED, PoolOptions, pool_options
from redis_worker.service.service import Measuring
from redis_worker.service.shared import SharedParts
from redis_worker.vocabulary.errors import ConfigurationError, Refused
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.processor import Declaration

logger = library_logger("redis_worker.run")


class FunctionWorker(ListWorker):
    """A worker on the functions of a TaskQueue, used as a WorkerPool is."""

    def __init__(
        self,
        queue: DeclaredFunctions,
        concurrency: int = POOL_DEFAULTS.concurrency,
        *,
        redis: str | Client | None = None,
        observers: Iterable[Observer] = (),
        http: str | None = None,
        http_token: str | None = None,
        http_origins: Sequence[str] = (),
        measuring: Measuring | None = None,
        **options: Any,
    ) -> None:
        """`redis` takes the place of the queue's server. The other options are those of WorkerPool.

        Not among them are those that a function or the queue declares. Raises ConfigurationError.
        """
        chosen = pool_options(concurrency, options)
        _check_undeclared(chosen)
        chosen = replace(chosen, priorities=queue.priorities)
        if not queue.functions:
            raise ConfigurationError(f"the queue {queue.name} has no function; import the modules that define them")
        super().__init__(
            queue.redis if redis is None else redis,
            queue.name,
            queue.results,
            chosen,
            Declaration(queue.name, "async"),
            observers=observers,
            http=http,
            http_token=http_token,
            http_origins=http_origins,
            measuring=measuring,
            lifespan=queue.lifetime,
            functions=[*queue.functions],
        )
        self._functions = queue
        self._marks = Marks()
        self._reports = Reports()
        self._cancelling: Cancelling | None = None

    @property
    def summary(self) -> str:
        """The queue and its functions in a line, for people to read."""
        names = ", ".join(self._functions.functions)
        return f"{self.queue}: {names}, {self.options.concurrency} at once, on {self.address}"

    def _task_work(self, gate: Gate | None) -> FunctionWork:
        options = self.options
        return FunctionWork(
            *(self._functions, self.declaration, options.concurrency, options.max_deliveries),
            *(self._marks, self._reports, gate),
        )

    def _gate(self, parts: SharedParts, queue: AtLeastOnceQueue) -> Gate | None:
        functions = self._functions.functions
        if not any(function.limits for function in functions.values()):
            return None
        reader = FunctionReader(
            self._functions.name, functions, self.options.max_deliveries, self._marks, self._reports
        )
        lanes = FunctionLanes(reader)
        return Gate(parts.connection, self._keys, queue, parts.doorbell, self._observer, lanes)

    def _roles(self, parts: SharedParts, queue: AtLeastOnceQueue | AtMostOnceQueue) -> Sequence[Role]:
        if isinstance(queue, AtMostOnceQueue):
            return ()  # nothing in Redis shows which tasks run, or by which worker
        self._cancelling = Cancelling(parts.connection, self._keys, queue, parts.doorbell, self._marks)
        reporting = Reporting(parts.connection, self._keys, queue, self._reports)
        return self._cancelling.run, reporting.run

    async def _open(self, consumer: Consumer, ordinary: Connection) -> None:
        await super()._open(consumer, ordinary)
        if self._cancelling is not None:
            await self._cancelling.read()  # before the first claim

    def _limits(self) -> Limits:
        queue = self._functions
        return Limits(self.options.dead_limit, queue.result_ttl or 0, error_ttl=queue.error_ttl or 0)

    async def _check_expiry(self, connection: Connection) -> None:
        if self._functions.result_ttl is None and self._functions.error_ttl is None:
            return
        try:
            await check_expiry(connection, self._keys)
        except Refused:
            logger.warning(
                "results of %s do not expire: the server lacks HEXPIRE (Redis 7.4, Valkey 9); handle.forget() deletes "
                "one",
                self._keys.waiting,
            )


def _check_undeclared(options: PoolOptions) -> None:
    if options.delivery != POOL_DEFAULTS.delivery:
        raise ConfigurationError(
            "a worker on functions delivers at least once: cancelling, unique tasks and progress need its lease; leave "
            "out delivery"
        )
    for field in fields(PoolOptions):
        if field.name in UNDECLARED and getattr(options, field.name) != field.default:
            reason = "each function, or their queue, declares its own"
            if field.name == "forward":
                reason = "a function waits for another one instead"
            raise ConfigurationError(f"{field.name} is no option of a worker on functions: {reason}")
