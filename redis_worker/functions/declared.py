"""The functions of a queue, as declared: their workers and tests need no more of the queue."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

from redis_worker.broker.client.background_loop import BackgroundLoop
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.broker.connection.address import Client
from redis_worker.broker.operator.cancellation import Cancellation
from redis_worker.engine.lifespan import Lifespan
from redis_worker.engine.middleware import Middleware, Middlewares
from redis_worker.functions.function import AnyFunction, Call
from redis_worker.functions.transport import RedisTransport, Transport
from redis_worker.service.options import check_whole_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.priorities import PrioritiesLike, priorities_of

Around: TypeAlias = Callable[[Sequence[Call[Any]]], AbstractContextManager[Mapping[str, Any]]]
"""Returns a context manager around a submission of calls, which yields further members of their payloads."""


class DeclaredFunctions:
    """Functions by name, the keys of their tasks and results, and the way there."""

    def __init__(
        self,
        redis: str | Client,
        name: str,
        *,
        results: str | None = None,
        result_ttl: Duration | None = "1d",
        error_ttl: Duration | None = "7d",
        priorities: PrioritiesLike | None = None,
        middleware: Iterable[Middleware] = (),
    ) -> None:
        """`redis` is a URL, or a `redis.asyncio` client, which is used and not closed. `name` is the list of tasks.

        `results` is the hash of results, `NAME:results` by default. Results expire after `result_ttl`, and error
        results after `error_ttl`, in whole seconds; None keeps them. `priorities` are names, the first priority first,
        or names with weights; `default`, the list `name` itself, is one of them. `middleware` are coroutine functions
        `(task, call_next)` around each call in a worker, the outermost first. Raises ConfigurationError.
        """
        self.redis = redis
        self.name = name
        self.results = f"{name}:results" if results is None else results
        self.result_ttl = None if result_ttl is None else check_whole_seconds("result_ttl", result_ttl, 1)
        self.error_ttl = None if error_ttl is None else check_whole_seconds("error_ttl", error_ttl, 1)
        self.priorities = None if priorities is None else priorities_of(priorities)
        """The priorities, if there are any."""
        self.functions: dict[str, AnyFunction] = {}
        """The functions, by name."""
        self.middlewares = Middlewares(middleware)
        """The middleware around each call."""
        self.around_submissions: list[Around] = []
        """The functions around each submission, the outermost first."""
        self.lifetime: Lifespan | None = None
        """The lifespan, if one is registered."""
        self.transport: Transport = RedisTransport(
            TaskClient(redis, self.name, self.results, priorities=self.priorities),
            Cancellation(redis, self.name, self.results),
            self.error_ttl or 0,
        )
        """The way of tasks and results: Redis, or `testing`."""
        self._background = BackgroundLoop("a call that ends in _sync", "the same call without _sync, and await,")
