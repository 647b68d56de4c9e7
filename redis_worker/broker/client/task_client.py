"""The client: submitting tasks and awaiting their results. Any JSON producer can do the same by hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from redis_worker.broker.client.access import Access
from redis_worker.broker.client.delayed_tasks import Delayed
from redis_worker.broker.client.per_loop import PerLoop
from redis_worker.broker.client.results import Result, Results
from redis_worker.broker.connection.address import Client
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.delayed import put_off
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.ids import id_text, new_id
from redis_worker.vocabulary.payload import dumps

# So many tasks are submitted in one call.
_BATCH = 500


class TaskClient(Access):
    """Submits tasks to the list `input_key` and reads results from the hash `output_key`.

        async with TaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(await client.run([30]))

    One client serves any number of event loops, one after another or in several threads, and the children of a fork:
    each has connections of its own. A connection that has ended while it was idle is replaced before anything is sent.
    Every call raises Disconnected when Redis cannot be reached and Refused when it says no.
    """

    def __init__(self, redis: str | Client, input_key: str, output_key: str) -> None:
        """`redis` is a URL or a `redis.asyncio` client, which is used and not closed."""
        super().__init__(redis)
        self._input = input_key
        self._output = output_key
        self._results = PerLoop(lambda: Results(self._connection, self._address, output_key))

    async def close(self) -> None:
        """Close what the client has opened. Who still waits for a result gets Disconnected."""
        await self._results.close()
        await super().close()

    async def submit(
        self, task: Any, id: str | int | None = None, *, delay: Duration | None = None, at: datetime | None = None
    ) -> str:
        """Append `task`, any JSON value, to the queue. Returns its id, as text; made up when none is given.

        With `delay` (seconds, a timedelta, or a text as "24h") or `at` it is put off until then, by the server's clock.
        """
        ids = await self._push([(task, id)], delay, at)
        return ids[0]

    async def submit_many(
        self, tasks: Iterable[Any], *, delay: Duration | None = None, at: datetime | None = None
    ) -> list[str]:
        """Append all `tasks`, many in one call. Returns their ids in the same order."""
        iterator = iter(tasks)
        ids: list[str] = []
        while batch := list(islice(iterator, _BATCH)):
            ids += await self._push([(task, None) for task in batch], delay, at)
        return ids

    async def result(self, id: str | int, timeout: Duration | None = None, *, delete: bool = False) -> Any:
        """The value of the task `id`, awaited for `timeout` (None: for ever).

        With `delete` the result is taken out of the hash. Raises TaskError when the task failed, and
        TimeoutError when there is no result in time.
        """
        async with contextlib.aclosing(self.results([id], timeout, delete=delete)) as results:
            async for result in results:
                return result.get()
        raise AssertionError("results() ends with a result or an error")

    async def results(
        self, ids: Iterable[str | int], timeout: Duration | None = None, *, delete: bool = False
    ) -> AsyncGenerator[Result, None]:
        """The results of the tasks `ids` as they come in, failed ones included.

        Raises TimeoutError when they are not all there after `timeout`.
        """
        limit = _limit(timeout)
        async with contextlib.aclosing(self._results.get().of({id_text(id) for id in ids}, limit)) as results:
            async for result in results:
                if delete:
                    await self._connection.call("HDEL", self._output, result.id)
                yield result

    async def run(self, task: Any, timeout: Duration | None = None) -> Any:
        """Submit `task` and return its value; its result is taken out of the hash. Raises as `result` does."""
        limit = _limit(timeout)  # a wrong one must not leave a task behind
        return await self.result(await self.submit(task), limit, delete=True)

    async def delete(self, ids: Iterable[str | int]) -> int:
        """Take the results of `ids` out of the hash. Returns how many were there."""
        fields = [id_text(id) for id in ids]
        return int(await self._connection.call("HDEL", self._output, *fields)) if fields else 0

    async def cancel(self, id: str | int) -> bool:
        """Cancel the tasks `id` that are put off. Returns False where there is none: one that is due stays.

        It looks through all that is put off in the queue.
        """
        return await Delayed(self._connection, self._input).cancel(id)

    async def push_raw(
        self,
        payloads: Sequence[bytes],
        *,
        left: bool = False,
        delay: Duration | None = None,
        at: datetime | None = None,
    ) -> None:
        """Put payloads on the queue as they stand; with `left` at its head, so that the last one comes first.

        With `delay` or `at` they are put off. Raises ValueError for a negative delay, or a time without a zone.
        """
        if delay is None and at is None:
            await self._connection.call("LPUSH" if left else "RPUSH", self._input, *payloads)
        else:
            await put_off(self._connection, Keys(self._input, self._output), payloads, delay=delay, at=at)

    async def _push(
        self, tasks: Sequence[tuple[Any, str | int | None]], delay: Duration | None, at: datetime | None
    ) -> list[str]:
        made: list[bytes] = []
        ids: list[str] = []
        for task, given in tasks:
            id = new_id() if given is None else given
            ids.append(id_text(id))
            made.append(dumps({"id": id, "task": task, "emit_ts": time.time()}))
        await self.push_raw(made, delay=delay, at=at)
        return ids


def _limit(timeout: Duration | None) -> float | None:
    return None if timeout is None else check_seconds("timeout", timeout)
