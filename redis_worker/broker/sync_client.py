"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

from redis_worker.broker.client import Result, TaskClient

if TYPE_CHECKING:
    from typing import Self


class SyncTaskClient:
    """TaskClient with plain calls.

        with SyncTaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(client.run([30]))

    It keeps an event loop of its own, which turns only during calls; inside a running loop use TaskClient.
    """

    def __init__(self, redis: str, input_key: str, output_key: str) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(_open(redis, input_key, output_key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self._client.close())
        self._runner.close()

    def submit(
        self, task: Any, id: str | int | None = None, *, delay: float | None = None, at: datetime | None = None
    ) -> str:
        """See TaskClient.submit."""
        return self._runner.run(self._client.submit(task, id, delay=delay, at=at))

    def submit_many(self, tasks: Iterable[Any], *, delay: float | None = None, at: datetime | None = None) -> list[str]:
        """See TaskClient.submit_many."""
        return self._runner.run(self._client.submit_many(tasks, delay=delay, at=at))

    def result(self, id: str | int, timeout: float | None = None, *, delete: bool = False) -> Any:
        """See TaskClient.result."""
        return self._runner.run(self._client.result(id, timeout, delete=delete))

    def results(
        self, ids: Iterable[str | int], timeout: float | None = None, *, delete: bool = False
    ) -> Iterator[Result]:
        """See TaskClient.results."""
        results = self._client.results(ids, timeout, delete=delete)
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self._runner.run(_next(results))
        finally:
            self._runner.run(results.aclose())

    def run(self, task: Any, timeout: float | None = None) -> Any:
        """See TaskClient.run."""
        return self._runner.run(self._client.run(task, timeout))

    def delete(self, ids: Iterable[str | int]) -> int:
        """See TaskClient.delete."""
        return self._runner.run(self._client.delete(ids))


async def _open(redis: str, input_key: str, output_key: str) -> TaskClient:
    return TaskClient(redis, input_key, output_key)


async def _next(results: AsyncGenerator[Result, None]) -> Result:
    return await anext(results)
