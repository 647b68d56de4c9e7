"""The client: submitting tasks and awaiting their results. Any JSON producer can do the same by hand."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from redis_worker.broker.client.delayed_tasks import Delayed
from redis_worker.broker.client.per_loop import PerLoop
from redis_worker.broker.client.result import Result
from redis_worker.broker.client.results import Results
from redis_worker.broker.client.steps import Step, check_flows, park
from redis_worker.broker.client.submitting import SubmittingAccess
from redis_worker.broker.connection.address import Client
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.announced_priorities import announce_priorities, check_announced
from redis_worker.broker.queue.delayed import delay_tasks, due_time, new_token
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.ids import id_text, new_id, new_ids
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.priorities import DEFAULT, PrioritiesLike, check_priority, priorities_of

# Most tasks submitted in one call.
_BATCH = 500


class TaskClient(SubmittingAccess):
    """A client that submits tasks to the list `input_key` and reads results from the hash `output_key`.

        async with TaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(await client.run([30]))

    One client serves any number of event loops, one after another or in several threads, and the children of a fork:
    each has separate connections. A connection that ended while idle is replaced before anything is sent.
    Every call raises Disconnected if Redis cannot be reached and Refused if it rejects the call.
    """

    def __init__(
        self, redis: str | Client, input_key: str, output_key: str, *, priorities: PrioritiesLike | None = None
    ) -> None:
        """`redis` is a URL or a `redis.asyncio` client, which is used and not closed.

        `priorities` are those of the queue, if this program decides them; by default those that its workers announce.
        Raises ConfigurationError.
        """
        super().__init__(redis)
        self._input = input_key
        self._output = output_key
        self._keys = Keys(input_key, output_key, None if priorities is None else priorities_of(priorities))
        self._checked = {DEFAULT}
        """The priorities that the queue is known to have."""
        self._results = PerLoop(lambda: Results(self._connection, self._address, output_key))

    async def close(self) -> None:
        """Close all connections opened here. Callers waiting for a result get Disconnected."""
        await self._results.close()
        await super().close()

    async def submit(
        self,
        task: Any,
        id: str | int | None = None,
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: str = DEFAULT,
    ) -> str:
        """Append `task`, any JSON value, to the queue. Returns its id as text, generated if not given.

        With `delay` (seconds, a timedelta, or a text such as "24h") or `at` it is delayed until then, by the server's
        clock. Raises ConfigurationError for a `priority` that the queue does not have.
        """
        given = new_id() if id is None else id
        name = id_text(given)
        if id is None:
            self._results.get().expect(name)
        with self._members(self._input, 1) as members:
            await self.push_raw([_written(given, task, members)], delay=delay, at=at, priority=priority)
        return name

    async def submit_many(
        self,
        tasks: Iterable[Any],
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: str = DEFAULT,
    ) -> list[str]:
        """Append all `tasks`, many per call. Returns their ids in the same order."""
        pairs = zip(tasks, new_ids(), strict=False)
        ids: list[str] = []
        while batch := list(islice(pairs, _BATCH)):
            with self._members(self._input, len(batch)) as members:
                raws = [_written(id, task, members) for task, id in batch]
                await self.push_raw(raws, delay=delay, at=at, priority=priority)
            ids += [id for _, id in batch]
        return ids

    async def result(self, id: str | int, timeout: Duration | None = None, *, delete: bool = False) -> Any:
        """Return the value of the task `id`, waiting up to `timeout` (None: for ever).

        With `delete` the result is removed from the hash. Raises TaskError if the task failed, and
        TimeoutError if there is no result in time.
        """
        result = await self._results.get().one(id_text(id), _limit(timeout))
        if delete:
            await self._connection.call("HDEL", self._output, result.id)
        return result.get()

    async def results(
        self, ids: Iterable[str | int], timeout: Duration | None = None, *, delete: bool = False
    ) -> AsyncGenerator[Result, None]:
        """Yield the results of the tasks `ids` as they arrive, failed ones included.

        With `delete` they are removed from the hash. Raises TimeoutError if some are missing after `timeout`.
        """
        limit = _limit(timeout)
        async with contextlib.aclosing(self._results.get().of({id_text(id) for id in ids}, limit)) as results:
            async for result in results:
                if delete:
                    await self._connection.call("HDEL", self._output, result.id)
                yield result

    async def run(self, task: Any, timeout: Duration | None = None) -> Any:
        """Submit `task` and return its value; the result is removed from the hash. Raises as `result` does."""
        limit = _limit(timeout)  # a wrong timeout must not leave a task behind
        return await self.result(await self.submit(task), limit, delete=True)

    async def delete(self, ids: Iterable[str | int]) -> int:
        """Remove the results of `ids` from the hash. Returns the number removed."""
        fields = [id_text(id) for id in ids]
        self._results.get().forget(fields)
        return int(await self._connection.call("HDEL", self._output, *fields)) if fields else 0

    async def cancel(self, id: str | int) -> bool:
        """Cancel the delayed tasks `id`. Returns False if none was found: a task already due stays.

        It searches all delayed tasks of the queue.
        """
        return await Delayed(self._connection, self._input).cancel(id)

    async def push_raw(
        self,
        payloads: Sequence[bytes],
        *,
        left: bool = False,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: str = DEFAULT,
    ) -> None:
        """Put payloads on the queue byte for byte; with `left` at its head, so that the last one comes first.

        With `delay` or `at` they are delayed. Raises ValueError for a negative delay, or a time without a zone, and
        ConfigurationError for a `priority` that the queue does not have.
        """
        await self._check(priority)
        if delay is None and at is None:
            await self._connection.call("LPUSH" if left else "RPUSH", self._keys.list_with(priority), *payloads)
        else:
            await delay_tasks(self._connection, self._keys, payloads, delay=delay, at=at, priority=priority)

    async def _check(self, priority: str) -> None:
        """Raise ConfigurationError for a priority that the queue does not have. Announce those of this program."""
        if priority in self._checked:
            return
        if self._keys.priorities is not None:
            check_priority(self._input, priority, self._keys.priorities)
            await announce_priorities(self._connection, self._keys)
        elif not await check_announced(self._connection, self._keys, priority):
            return  # no worker has announced any so far
        self._checked.add(priority)

    async def progress(self, id: str | int) -> bytes | None:
        """Return the last report of a task of a function, a JSON object; None without one."""
        key = f"{self._keys.progress}:{id_text(id)}"
        report: bytes | None = await self._connection.call("GET", key)
        return report

    async def push_unique(
        self,
        tasks: Sequence[tuple[str, str, int, bytes]],
        *,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: str = DEFAULT,
    ) -> list[str]:
        """Submit tasks that are not there: each as id, digest of its call, ms (see admit.lua) and payload.

        Returns for each its id, or that of the task that is there. Raises as `push_raw` does.
        """
        await self._check(priority)
        keys = self._keys
        when: tuple[int, str] = (0, "") if delay is None and at is None else due_time(delay, at)
        arguments: list[Any] = [keys.wake, *when]
        for id, digest, ms, raw in tasks:
            arguments += (id, digest, ms, new_token(priority), raw)
        own = [keys.list_with(priority), keys.delayed, keys.unique, keys.output]
        return [id.decode() for id in await self._connection.run("admit", own, arguments)]

    async def push_steps(self, steps: Sequence[Step], nonce: str, ttl: int, priority: str = DEFAULT) -> list[str]:
        """Submit tasks that wait for others, see `park`.

        Raises ConfigurationError in a cluster with keys apart, and for a `priority` that the queue does not have.
        """
        if self._address.cluster:
            check_flows(self._keys)
        await self._check(priority)
        return await park(self._connection, self._keys, steps, nonce, ttl, priority)


def _written(id: str | int, task: Any, members: Mapping[str, Any]) -> bytes:
    return dumps({"id": id, "task": task, "emit_ts": time.time(), **members})


def _limit(timeout: Duration | None) -> float | None:
    return None if timeout is None else check_seconds("timeout", timeout)
