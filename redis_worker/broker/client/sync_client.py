"""TaskClient and Publisher for programs without an event loop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, Self, TypeVar

from redis_worker.broker.client.background_loop import BackgroundLoop
from redis_worker.broker.client.publisher import Publisher
from redis_worker.broker.client.results import Result
from redis_worker.broker.client.task_client import TaskClient
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError

T = TypeVar("T")

# Most tasks or messages in one call.
_BATCH = 500


class _Sync:
    """Common base: any thread may make calls and close, and after a fork parent and child continue."""

    def __init__(self, name: str) -> None:
        self._background = BackgroundLoop(name)
        self._run = self._background.run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Calls under way in other threads raise Disconnected."""
        self._background.close()


class SyncTaskClient(_Sync):
    """TaskClient with plain calls.

        with SyncTaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(client.run([30]))

    A background thread keeps its connections, so any number of threads may share it. After a fork, each process has
    separate connections. Calls inside a running event loop would block it, and raise ConfigurationError.
    """

    def __init__(self, redis: str, input_key: str, output_key: str) -> None:
        """Raises ConfigurationError if the URL is not valid. No connection is opened before the first call."""
        super().__init__("TaskClient")
        self._client = TaskClient(redis, input_key, output_key)

    def submit(
        self, task: Any, id: str | int | None = None, *, delay: Duration | None = None, at: datetime | None = None
    ) -> str:
        """See TaskClient.submit."""
        return self._run(self._client.submit, task, id, delay=delay, at=at)

    def submit_many(
        self, tasks: Iterable[Any], *, delay: Duration | None = None, at: datetime | None = None
    ) -> list[str]:
        """See TaskClient.submit_many."""
        return [
            id for batch in _batches(tasks) for id in self._run(self._client.submit_many, batch, delay=delay, at=at)
        ]

    def cancel(self, id: str | int) -> bool:
        """See TaskClient.cancel."""
        return self._run(self._client.cancel, id)

    def result(self, id: str | int, timeout: Duration | None = None, *, delete: bool = False) -> Any:
        """See TaskClient.result."""
        return self._run(self._client.result, id, timeout, delete=delete)

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

    def run(self, task: Any, timeout: Duration | None = None) -> Any:
        """See TaskClient.run."""
        return self._run(self._client.run, task, timeout)

    def delete(self, ids: Iterable[str | int]) -> int:
        """See TaskClient.delete."""
        return self._run(self._client.delete, list(ids))


class SyncPublisher(_Sync):
    """Publisher with plain calls, for any number of threads, and for the children of a fork.

    with SyncPublisher("redis://localhost") as publisher:
        publisher.publish("order.reminder", {"order": 7}, delay=86_400)
    """

    def __init__(self, redis: str) -> None:
        """Raises ConfigurationError if the URL is not valid. No connection is opened before the first call."""
        super().__init__("Publisher")
        self._publisher = Publisher(redis)

    def publish(
        self,
        topic: str,
        data: Any,
        delay: float | None = None,
        id: str | int | None = None,
        *,
        at: datetime | None = None,
    ) -> str:
        """See Publisher.publish."""
        return self._run(self._publisher.publish, topic, data, delay, id, at=at)

    def publish_many(
        self,
        topic: str,
        messages: Iterable[Any],
        delay: float | None = None,
        *,
        at: datetime | None = None,
        ids: Iterable[str | int] | None = None,
    ) -> list[str]:
        """See Publisher.publish_many."""
        pairs = zip(messages, ids, strict=True) if ids is not None else ((data, None) for data in messages)
        names: list[str] = []
        for batch in _batches(pairs):
            data, given = [data for data, _ in batch], [id for _, id in batch if id is not None]
            names += self._run(
                self._publisher.publish_many, topic, data, delay, at=at, ids=given if ids is not None else None
            )
        return names

    def cancel(self, topic: str, id: str | int) -> bool:
        """See Publisher.cancel."""
        return self._run(self._publisher.cancel, topic, id)


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    """Yield batches, iterating in the caller's thread: the iterator may hold a transaction, or make calls itself."""
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


async def _next(results: AsyncGenerator[Result, None]) -> Result:
    return await anext(results)
