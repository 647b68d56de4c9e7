"""The client: submitting tasks and awaiting their results. Any JSON producer can do the same by hand."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from redis.exceptions import RedisError

from redis_worker.broker.address import Client, address_of
from redis_worker.broker.connection import Connection
from redis_worker.broker.keys import Keys, results_channel
from redis_worker.broker.schedule import put_off
from redis_worker.broker.translation import translated
from redis_worker.vocabulary.errors import Disconnected, Refused, TaskError
from redis_worker.vocabulary.payload import dumps, integer_text, loads

if TYPE_CHECKING:
    from typing import Self

_BATCH = 500
# How often results are looked for that nobody announces, in seconds: those of other programs' workers.
_POLL = 0.2


class Result(NamedTuple):
    """The result of one task."""

    id: str
    value: Any = None
    error: str | None = None
    """The text of an error result; None when the task succeeded."""

    def get(self) -> Any:
        """The value. Raises TaskError when the task failed."""
        if self.error is not None:
            raise TaskError(self.id, self.error)
        return self.value


class TaskClient:
    """Submits tasks to the list `input_key` and reads results from the hash `output_key`.

        async with TaskClient("redis://localhost", "fib:input", "fib:output") as client:
            print(await client.run([30]))

    Every call raises Disconnected when Redis cannot be reached and Refused when it says no.
    """

    def __init__(self, redis: str | Client, input_key: str, output_key: str) -> None:
        """`redis` is a URL or a `redis.asyncio` client, which is used and not closed."""
        self._input = input_key
        self._output = output_key
        self._address = address_of(redis)
        given = None if isinstance(redis, str) else redis
        self._connection = Connection(given or self._address.open(), owned=given is None)
        self._waiting: defaultdict[str, list[asyncio.Queue[Result | Exception]]] = defaultdict(list)
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what the client has opened."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener})
            self._listener = None
        self._fail_all(Disconnected("the client was closed"))
        await self._connection.close()

    async def submit(
        self, task: Any, id: str | int | None = None, *, delay: float | None = None, at: datetime | None = None
    ) -> str:
        """Append `task`, any JSON value, to the queue. Returns its id, as text; made up when none is given.

        With `delay` (seconds) or `at` it is put off until then, by the server's clock.
        """
        ids = await self._push([(task, id)], delay, at)
        return ids[0]

    async def submit_many(
        self, tasks: Iterable[Any], *, delay: float | None = None, at: datetime | None = None
    ) -> list[str]:
        """Append all `tasks`, many in one call. Returns their ids in the same order."""
        iterator = iter(tasks)
        ids: list[str] = []
        while batch := list(islice(iterator, _BATCH)):
            ids += await self._push([(task, None) for task in batch], delay, at)
        return ids

    async def result(self, id: str | int, timeout: float | None = None, *, delete: bool = False) -> Any:
        """The value of the task `id`, awaited for `timeout` seconds (None: for ever).

        With `delete` the result is taken out of the hash. Raises TaskError when the task failed, and
        TimeoutError when there is no result in time.
        """
        async with contextlib.aclosing(self.results([id], timeout, delete=delete)) as results:
            async for result in results:
                return result.get()
        raise AssertionError("results() ends with a result or an error")

    async def results(
        self, ids: Iterable[str | int], timeout: float | None = None, *, delete: bool = False
    ) -> AsyncGenerator[Result, None]:
        """The results of the tasks `ids` as they come in, failed ones included.

        Raises TimeoutError when they are not all there after `timeout` seconds.
        """
        pending = {_text(id) for id in ids}
        arrivals: asyncio.Queue[Result | Exception] = asyncio.Queue()
        for id in pending:
            self._waiting[id].append(arrivals)
        end = None if timeout is None else time.monotonic() + timeout
        try:
            if timeout != 0:
                await self._listen(end)
            with contextlib.suppress(TimeoutError):
                # A server that hangs must not hold the caller beyond the timeout.
                await asyncio.wait_for(self._look_first(pending), None if end is None else max(1.0, _left(end) or 0.0))
            while pending:
                result = await _arrival(arrivals, end, pending, timeout)
                pending.discard(result.id)
                if delete:
                    await self._connection.call("HDEL", self._output, result.id)
                yield result
        finally:
            for id in pending & self._waiting.keys():
                self._waiting[id].remove(arrivals)
                if not self._waiting[id]:
                    del self._waiting[id]

    async def run(self, task: Any, timeout: float | None = None) -> Any:
        """Submit `task` and return its value; its result is taken out of the hash. Raises as `result` does."""
        return await self.result(await self.submit(task), timeout, delete=True)

    async def delete(self, ids: Iterable[str | int]) -> int:
        """Take the results of `ids` out of the hash. Returns how many were there."""
        fields = [_text(id) for id in ids]
        return int(await self._connection.call("HDEL", self._output, *fields)) if fields else 0

    async def push_raw(
        self,
        payloads: Sequence[bytes],
        *,
        left: bool = False,
        delay: float | None = None,
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
        self, tasks: Sequence[tuple[Any, str | int | None]], delay: float | None, at: datetime | None
    ) -> list[str]:
        made: list[bytes] = []
        ids: list[str] = []
        for task, given in tasks:
            id = new_id() if given is None else given
            ids.append(_text(id))
            made.append(dumps({"id": id, "task": task, "emit_ts": time.time()}))
        await self.push_raw(made, delay=delay, at=at)
        return ids

    async def _listen(self, end: float | None) -> None:
        """Have the listener run; wait until it has subscribed, or has found that it cannot."""
        if self._listener is None or self._listener.done():
            self._listening.clear()
            self._listener = asyncio.create_task(self._hear(), name="redis-worker results")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listening.wait(), _left(end))

    async def _hear(self) -> None:
        """Look up what is announced, and now and then everything that is awaited."""
        connection = Connection(self._address.open(), owned=True)
        try:
            subscription = connection.client.pubsub(ignore_subscribe_messages=True)
            async with subscription:
                subscribed = False
                while True:
                    try:
                        if not subscribed:
                            await subscription.subscribe(results_channel(self._output))
                            subscribed = True
                        self._listening.set()
                        message = await subscription.get_message(timeout=_POLL)
                        await self._look(_announced(message) if message else list(self._waiting))
                    except (RedisError, OSError, Disconnected, Refused) as error:
                        subscribed = False
                        await self._trouble(error)
        finally:
            self._listening.set()
            await connection.close()

    async def _trouble(self, error: Exception) -> None:
        """Wait for Redis to come back; who has no right to subscribe polls."""
        self._listening.set()  # who waits for it finds out by itself
        if isinstance(translated(error), Refused):
            try:
                await self._look(list(self._waiting))
            except Refused as refused:
                self._fail_all(refused)
            except Disconnected:
                pass
        await asyncio.sleep(_POLL)

    def _fail_all(self, error: Exception) -> None:
        for queues in self._waiting.values():
            for arrivals in queues:
                arrivals.put_nowait(error)

    async def _look_first(self, ids: Collection[str]) -> None:
        """Look before waiting. Raises Disconnected when there is no server, not for a connection that was cut."""
        try:
            await self._look(ids)
        except Disconnected:
            await self._look(ids)

    async def _look(self, ids: Iterable[str]) -> None:
        """Pass on those results of `ids` that are there and awaited."""
        for batch in _batches(id for id in ids if id in self._waiting):
            found = await self._connection.call("HMGET", self._output, *batch)
            for id, raw in zip(batch, found, strict=True):
                if raw is not None:
                    result = _read(id, raw)
                    for arrivals in self._waiting.pop(id, ()):
                        arrivals.put_nowait(result)


def new_id() -> str:
    """An id no other task has."""
    return secrets.token_hex(8)


def _text(id: str | int) -> str:
    if isinstance(id, str):
        return id
    if isinstance(id, bool) or not isinstance(id, int):
        raise TypeError(f"an id is a string or an integer, got {type(id).__name__}")
    return integer_text(id)


def _read(id: str, raw: bytes) -> Result:
    try:
        content = loads(raw)
        if content["status"] == "success":
            return Result(id, content["result"])
        return Result(id, error=str(content["error"]))
    except (ValueError, KeyError, TypeError):
        return Result(id, error="the result cannot be read: it is no JSON object with status and result or error")


def _announced(message: dict[str, Any]) -> list[str]:
    try:
        return [str(id) for id in loads(message["data"])]
    except (ValueError, TypeError):
        return []


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(list(ids))
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


async def _arrival(
    arrivals: asyncio.Queue[Result | Exception], end: float | None, pending: set[str], timeout: float | None
) -> Result:
    try:
        # A result that is there counts, even when there is no time left.
        result = await asyncio.wait_for(arrivals.get(), _left(end)) if arrivals.empty() else arrivals.get_nowait()
    except TimeoutError:
        some = ", ".join(sorted(pending)[:3]) + ("…" if len(pending) > 3 else "")
        raise TimeoutError(f"no result for {len(pending)} tasks ({some}) within {timeout:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result
