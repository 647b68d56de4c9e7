"""Tests of programs with functions: submitted tasks run at once, in the same process and without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from redis_worker.broker.client.result import read_result
from redis_worker.engine.lifespan import provide
from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.functions.declared import DeclaredFunctions
from redis_worker.functions.executions import Executions
from redis_worker.functions.handling import FunctionHandler
from redis_worker.functions.inputs import filled
from redis_worker.functions.progress import Progress
from redis_worker.functions.reading import FunctionReader
from redis_worker.functions.transport import Submission, Unique
from redis_worker.service.options import POOL_DEFAULTS
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.payload import CANCELLED, dumps, failure
from redis_worker.vocabulary.task import Delivery, Outcome

_NOT_RUN = "Processing error: not run: the task "


class _Held:
    """The receipt of a task that nobody else can have."""

    lost = False


class Testing:
    """A context manager in which a queue runs submitted tasks at once; see TaskQueue.testing."""

    __test__ = False  # no test class, whatever its name is

    def __init__(self, queue: DeclaredFunctions, resources: Any) -> None:
        self._queue = queue
        self._resources = resources
        self._usual = queue.transport
        self._results: dict[str, bytes] = {}
        self._calls: dict[str, str] = {}
        """The ids of calls that are unique for a time, which is not over here."""
        self._parked: dict[str, Submission] = {}
        """The tasks that wait for others."""
        self._lifespan = AsyncExitStack()
        reader = FunctionReader(queue.name, queue.functions, POOL_DEFAULTS.max_deliveries)
        self._reports: dict[str, Progress] = {}
        reader.reports.on_first = lambda: self._reports.update(reader.reports.take())
        threads = OwnThreads("redis-worker-testing")
        self._handler = FunctionHandler(reader, Executions(queue.functions.values(), queue.middlewares, threads))

    def __enter__(self) -> Self:
        self._usual, self._queue.transport = self._queue.transport, self
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.transport = self._usual

    async def __aenter__(self) -> Self:
        if self._queue.lifetime is not None and self._resources is None:
            self._resources = await self._lifespan.enter_async_context(self._queue.lifetime.running())
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__()
        await self._lifespan.aclose()

    async def send(self, submissions: Sequence[Submission]) -> list[str]:
        """Run the tasks, one after the other; their delays are left out."""
        ids: list[str] = []
        for submission in submissions:
            unique = submission.unique
            ids.append(self._there(submission.id, unique) if unique is not None else submission.id)
            if unique is not None and (ids[-1] in self._results or ids[-1] in self._parked):
                continue
            if unique is not None and unique.ms:
                self._calls[unique.digest] = submission.id
            self._parked[submission.id] = submission
            await self._answer_ready()
        return ids

    async def _answer_ready(self) -> None:
        while ready := next(filter(self._is_ready, self._parked.values()), None):
            del self._parked[ready.id]
            self._results[ready.id] = await self._answer(ready)

    def _is_ready(self, submission: Submission) -> bool:
        """Return True if a task need not wait for others any more."""
        return self._failed(submission) is not None or self._results.keys() >= set(submission.after)

    def _failed(self, submission: Submission) -> str | None:
        """Return the id of a task whose failure fails this one."""
        if submission.runs:
            return None
        return next((id for id in submission.after if id in self._results and self._error(id) is not None), None)

    def _error(self, id: str) -> str | None:
        return read_result(id, self._results[id]).error

    async def _answer(self, submission: Submission) -> bytes:
        """Return the answer of a task: it runs, or fails because of another."""
        if (failed := self._failed(submission)) is not None:
            error = self._error(failed) or ""
            is_first = not error.startswith(_NOT_RUN)
            return failure(f"{_NOT_RUN}{failed} failed: {error}" if is_first else error)
        payload = filled(submission.payload, self._json) if submission.after else submission.payload
        outcome = await asyncio.create_task(self._run(payload))  # in a context of its own
        result: bytes = outcome.result
        return result

    def _json(self, id: str) -> bytes:
        result = read_result(id, self._results[id])
        return dumps(None if result.error is not None else result.value)

    def _there(self, id: str, unique: Unique) -> str:
        """Return the id of the task that a unique one has found; until its answer means here: never."""
        found = self._calls.get(unique.digest, id) if unique.ms else id
        return found if found in self._results else id

    async def _run(self, payload: bytes) -> Outcome:
        """Return the final outcome of a task, after its retries."""
        provide(self._resources)
        delivery = Delivery(payload, _Held())
        while True:
            outcome = await self._handler.handle(delivery)
            if outcome.again is None:
                return outcome
            delivery = Delivery(payload, _Held(), retries=delivery.retries + 1)

    async def result(self, id: str, timeout: Duration | None) -> Any:  # noqa: ARG002 - nothing is pending
        """See Transport."""
        if id not in self._results:
            raise TimeoutError(f"no result for the task {id}: in testing(), a task has one once it is submitted")
        return read_result(id, self._results[id]).get()

    async def forget(self, id: str) -> bool:
        """See Transport."""
        return self._results.pop(id, None) is not None

    async def progress(self, id: str) -> Progress | None:
        """See Transport."""
        return self._reports.get(id)

    async def cancel(self, id: str) -> bool:
        """See Transport. Only a task that waits for others has no answer."""
        if self._parked.pop(id, None) is None:
            return False
        self._results[id] = failure(CANCELLED)
        await self._answer_ready()
        return True

    async def close(self) -> None:
        """See Transport."""
