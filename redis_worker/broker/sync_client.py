"""The client for programs without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from redis_worker.broker.client import TaskClient
from redis_worker.broker.results import Result
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self

P = ParamSpec("P")
T = TypeVar("T")


class SyncTaskClient:
    """TaskClient with plain calls.

        with SyncTaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(client.run([30]))

    It keeps an event loop of its own, which turns only during calls; inside a running loop use TaskClient.
    """

    def __init__(self, redis: str, input_key: str, output_key: str) -> None:
        self._runner: asyncio.Runner | None = asyncio.Runner()
        try:
            self._client = self._run(_open, redis, input_key, output_key)
        except BaseException:
            self._runner.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._runner is not None:
            self._run(self._client.close)
            self._runner.close()
            self._runner = None

    def submit(
        self, task: Any, id: str | int | None = None, *, delay: Duration | None = None, at: datetime | None = None
    ) -> str:
        """See TaskClient.submit."""
        return self._run(self._client.submit, task, id, delay=delay, at=at)

    def submit_many(
        self, tasks: Iterable[Any], *, delay: Duration | None = None, at: datetime | None = None
    ) -> list[str]:
        """See TaskClient.submit_many."""
        return self._run(self._client.submit_many, tasks, delay=delay, at=at)

    def result(self, id: str | int, timeout: Duration | None = None, *, delete: bool = False) -> Any:
        """See TaskClient.result."""
        return self._run(self._client.result, id, timeout, delete=delete)

    def results(
        self, ids: Iterable[str | int], timeout: Duration | None = None, *, delete: bool = False
    ) -> Iterator[Result]:
        """See TaskClient.results."""
        results = self._client.results(ids, timeout, delete=delete)
        try:
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self._run(_next, results)
        finally:
            self._run(results.aclose)

    def run(self, task: Any, timeout: Duration | None = None) -> Any:
        """See TaskClient.run."""
        return self._run(self._client.run, task, timeout)

    def delete(self, ids: Iterable[str | int]) -> int:
        """See TaskClient.delete."""
        return self._run(self._client.delete, ids)

    def _run(self, call: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs) -> T:
        if self._runner is None:
            raise ConfigurationError("the client is closed; make another one")
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner.run(call(*arguments, **options))
        raise ConfigurationError("SyncTaskClient cannot be used inside a running event loop; use TaskClient there")


async def _open(redis: str, input_key: str, output_key: str) -> TaskClient:
    return TaskClient(redis, input_key, output_key)


async def _next(results: AsyncGenerator[Result, None]) -> Result:
    return await anext(results)
