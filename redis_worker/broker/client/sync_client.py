"""TaskClient and Publisher for programs without an event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from datetime import datetime
from functools import partial, wraps
from itertools import islice
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from redis_worker.broker.client.background_loop import BackgroundLoop
from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.client.result import Result
from redis_worker.broker.client.submitting import Around, SubmittingAccess
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import DEFAULT, PrioritiesLike

C = TypeVar("C", bound=SubmittingAccess)
P = ParamSpec("P")
T = TypeVar("T")

# Most tasks or messages in one call.
_BATCH = 500


class _Sync(Generic[C]):
    """Common base: any thread may make calls and close, and after a fork parent and child continue."""

    def __init__(self, client: C) -> None:
        self._client: C = client
        self._background = BackgroundLoop(f"Sync{type(client).__name__}", type(client).__name__)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submitting(self, function: Around) -> Around:
        """Register a function around submissions, see SubmittingAccess."""
        return self._client.submitting(function)

    def close(self) -> None:
        """Close the connections. Calls under way in other threads raise Disconnected."""
        self._background.close()


def _plain(method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[_Sync[C], P], T]:
    """Return the plain method that runs `method` of the asynchronous client."""

    @wraps(method)
    def call(sync: _Sync[C], /, *arguments: P.args, **options: P.kwargs) -> T:
        return sync._background.run(partial(method, sync._client), *arguments, **options)

    return call


class SyncTaskClient(_Sync[TaskClient]):
    """TaskClient with plain calls.

        with SyncTaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(client.run([30]))

    A background thread keeps its connections, so any number of threads may share it. After a fork, each process has
    separate connections. Calls inside a running event loop would block it, and raise ConfigurationError.
    """

    def __init__(
        self, redis: str, input_key: str, output_key: str, *, priorities: PrioritiesLike | None = None
    ) -> None:
        """Raises ConfigurationError if the URL is not valid. No connection is opened before the first call."""
        super().__init__(TaskClient(redis, input_key, output_key, priorities=priorities))

    submit = _plain(TaskClient.submit)
    cancel = _plain(TaskClient.cancel)
    result = _plain(TaskClient.result)
    run = _plain(TaskClient.run)

    def submit_many(
        self,
        tasks: Iterable[Any],
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: str = DEFAULT,
    ) -> list[str]:
        """See TaskClient.submit_many."""
        return [
            id
            for batch in _batches(tasks)
            for id in self._background.run(self._client.submit_many, batch, delay=delay, at=at, priority=priority)
        ]

    def results(
        self, ids: Iterable[str | int], timeout: Duration | None = None, *, delete: bool = False
    ) -> Iterator[Result]:
        """See TaskClient.results."""
        loop_thread = self._background.loop_thread()
        results = self._client.results(list(ids), timeout, delete=delete)
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self._background.run_in(loop_thread, _next, results)
        finally:
            with contextlib.suppress(ConfigurationError):  # of the parent, or closed: it ends by itself
                self._background.run_in(loop_thread, results.aclose)

    def delete(self, ids: Iterable[str | int]) -> int:
        """See TaskClient.delete."""
        return self._background.run(self._client.delete, list(ids))


class SyncPublisher(_Sync[Publisher]):
    """Publisher with plain calls, for any number of threads, and for the children of a fork.

    with SyncPublisher("redis://localhost") as publisher:
        publisher.publish("order.reminder", {"order": 7}, delay=86_400)
    """

    def __init__(self, redis: str) -> None:
        """Raises ConfigurationError if the URL is not valid. No connection is opened before the first call."""
        super().__init__(Publisher(redis))

    publish = _plain(Publisher.publish)
    cancel = _plain(Publisher.cancel)

    def publish_many(
        self,
        topic: str,
        messages: Iterable[Any],
        delay: Duration | None = None,
        *,
        at: datetime | None = None,
        ids: Iterable[str | int] | None = None,
    ) -> list[str]:
        """See Publisher.publish_many."""
        pairs = zip(messages, ids, strict=True) if ids is not None else ((data, None) for data in messages)
        names: list[str] = []
        for batch in _batches(pairs):
            data, given = [data for data, _ in batch], [id for _, id in batch if id is not None]
            names += self._background.run(
                self._client.publish_many, topic, data, delay, at=at, ids=given if ids is not None else None
            )
        return names


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield batches, iterating in the caller's thread: the iterator may hold a transaction, or make calls itself."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


async def _next(results: AsyncGenerator[Result, None]) -> Result:
    return await anext(results)
