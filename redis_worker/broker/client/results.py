"""Results on arrival: announced on a channel, and polled, since workers of other programs do not announce them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from itertools import islice

from redis_worker.broker.client.arrivals import Arrivals, end_of, next_arrival, remaining
from redis_worker.broker.client.result import Result, read_result, result_of
from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.error_translation import is_defect
from redis_worker.broker.connection.subscription import Subscription
from redis_worker.broker.keys import results_channel
from redis_worker.engine.waiting import happens
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.payload import loads

# Most results fetched in one call.
_BATCH = 500
# Most tasks submitted and not yet awaited whose announced results are kept.
_EXPECTED = 1000
# Intervals of polling, in seconds, for the unannounced results of other programs' workers: in silence, and otherwise.
_POLL, _BUSY_POLL = 0.2, 1.0


class Results:
    """The results in the hash `output`: all waiters share one listener and its subscription."""

    def __init__(self, connection: Connection, address: Address, output: str) -> None:
        self._connection = connection
        self._address = address
        self._output = output
        self._waiting: defaultdict[str, set[Arrivals]] = defaultdict(set)
        self._expected: dict[str, Result | None] = {}
        """Ids drawn here, pushed while the listener was subscribed; with results that were announced before awaited."""
        self._is_subscribed = False
        self._is_busy = False
        """True once an announcement was taken on arrival; the listener clears it."""
        self._listener: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        self._listener_connection: Connection | None = None
        """The listener's connection."""

    def expect(self, id: str) -> None:
        """Note an id that was never used before, and whose task is pushed after this call.

        The announcement of its result cannot be missed, or be that of an earlier task: nobody needs to look for it.
        """
        if self._is_subscribed:
            if len(self._expected) == _EXPECTED:
                del self._expected[next(iter(self._expected))]
            self._expected[id] = None

    def forget(self, ids: Iterable[str]) -> None:
        """Drop announced results that are deleted."""
        for id in ids:
            self._expected.pop(id, None)

    async def one(self, id: str, timeout: float | None) -> Result:
        """Return the result of the task `id`. Raises as `of` does. The hot path of a lone task."""
        if timeout == 0 or id not in self._expected:
            async with contextlib.aclosing(self.of({id}, timeout)) as results:
                return await anext(results)
        arrivals = Arrivals()
        self._waiting[id].add(arrivals)
        try:
            self._unknown((id,), arrivals)
            return await next_arrival(arrivals, end_of(timeout), (id,), timeout)
        finally:
            self._withdraw((id,), arrivals)

    async def of(self, ids: Collection[str], timeout: float | None) -> AsyncGenerator[Result, None]:
        """Yield the results of the tasks `ids` as they arrive.

        Raises TimeoutError if some are missing after `timeout` seconds (None: no limit), Refused, and Disconnected
        if Redis is away at the start; a caller already waiting continues to wait.
        """
        pending = set(ids)
        arrivals = Arrivals()
        for id in pending:
            self._waiting[id].add(arrivals)
        end = end_of(timeout)
        try:
            if timeout != 0:
                await self._listen(end)
            if unknown := self._unknown(pending, arrivals) if timeout != 0 else pending:
                with contextlib.suppress(TimeoutError):
                    # A server that hangs must not block the caller beyond the timeout.
                    async with asyncio.timeout(None if end is None else max(1.0, remaining(end) or 0.0)):
                        await self._fetch_first(unknown)
            while pending:
                result = await next_arrival(arrivals, end, pending, timeout)
                pending.discard(result.id)
                yield result
        finally:
            self._withdraw(pending, arrivals)

    def _withdraw(self, ids: Iterable[str], arrivals: Arrivals) -> None:
        for id in ids:
            # Results delivered but not consumed may have new waiters since.
            if waiting := self._waiting.get(id):
                waiting.discard(arrivals)
                if not waiting:
                    del self._waiting[id]

    def _unknown(self, ids: Collection[str], arrivals: Arrivals) -> list[str]:
        """Return those of `ids` that must be looked for; of others the result has arrived, or will be announced."""
        unknown = []
        for id in ids:
            if id not in self._expected:
                unknown.append(id)
            elif result := self._expected[id]:
                self._deliver(result, frozenset((arrivals,)))
        return unknown

    async def close(self) -> None:
        """Stop listening. Waiting callers get Disconnected."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait({self._listener})
            self._listener = None
        self._fail_all(Disconnected("the client was closed"))

    def leave(self, *, forked: bool) -> None:
        """See Closable."""
        if self._listener_connection is not None:
            self._listener_connection.leave(forked=forked)
        if self._listener is not None:
            # It never runs again: suppress the warning that it was not cancelled before its loop was closed.
            self._listener._log_destroy_pending = False  # type: ignore[attr-defined]
            self._listener = None

    async def _listen(self, end: float | None) -> None:
        """Start the listener if needed; wait until it has subscribed or failed."""
        if self._listener is None or self._listener.done():
            self._listening.clear()
            self._listener = asyncio.create_task(self._run_listener(), name="redis-worker results")
        if not self._listening.is_set():
            await happens(self._listening, remaining(end))

    async def _run_listener(self) -> None:
        """Receive results until closed. An error that ends it is passed to all waiters."""
        try:
            await self._receive()
        except Exception as error:
            # No await from here on: a later caller finds the listener ended, and starts another.
            self._fail_all(error)
        finally:
            self._listening.set()

    async def _receive(self) -> None:
        """Fetch announced results, and periodically all awaited ones."""
        connection = self._listener_connection = Connection(self._address.open(), owned=True)
        is_abandoned = False
        try:
            while True:
                try:
                    async with Subscription(connection, results_channel(self._output), self._take) as subscription:
                        looked_at = time.monotonic()
                        while True:
                            self._listening.set()
                            message = await subscription.message(_POLL)
                            self._is_subscribed = subscription.is_confirmed
                            if message is not None and (announced := self._announced(message)):
                                await self._fetch(announced)
                            is_silent, self._is_busy = message is None and not self._is_busy, False
                            if is_silent or time.monotonic() - looked_at > _BUSY_POLL:
                                await self._fetch(list(self._waiting))
                                looked_at = time.monotonic()
                except Exception as error:
                    self._lose_subscription()
                    await self._poll_once(error)
        except GeneratorExit:
            is_abandoned = True  # the event loop is gone, and nothing can be awaited; see leave()
            raise
        finally:
            self._lose_subscription()
            if not is_abandoned:
                await connection.close()

    def _lose_subscription(self) -> None:
        """Look for all results again: announcements are missed."""
        self._is_subscribed = False
        self._expected.clear()

    def _take(self, message: bytes) -> bool:
        """Deliver, or keep, the announced result of a lone expected task; return False for any other announcement.

        It is called as bytes arrive: the caller that waits is woken without a turn of the listener.
        """
        try:
            [(id, content)] = loads(message).items()
        except (ValueError, AttributeError):
            return False
        if id not in self._expected:
            return False
        self._is_busy = True
        self._expected[id] = result = result_of(id, content)
        self._deliver(result, frozenset(self._waiting.get(id, ())))
        return True

    def _announced(self, message: bytes) -> list[str]:
        """Return the announced ids to look for."""
        if self._take(message):
            return []
        try:
            found = loads(message)
        except ValueError:
            return []
        ids = [str(id) for id in found] if isinstance(found, (dict, list)) else []
        self.forget(ids)
        return ids

    async def _poll_once(self, error: Exception) -> None:
        """Fetch without the subscription: perhaps only that has failed. Raises `error` if it is a defect."""
        if is_defect(error):
            raise error
        self._listening.set()  # a waiter finds out by itself
        try:
            await self._fetch(list(self._waiting))
        except Refused as refused:
            self._fail_all(refused)
        except Disconnected:
            pass
        await asyncio.sleep(_POLL)

    def _fail_all(self, error: Exception) -> None:
        for queues in self._waiting.values():
            for arrivals in queues:
                arrivals.put(error)

    async def _fetch_first(self, ids: Collection[str]) -> None:
        """Fetch before waiting. Raises Disconnected if the server is away, not for a single cut connection."""
        try:
            await self._fetch(ids)
        except Disconnected:
            await self._fetch(ids)

    async def _fetch(self, ids: Iterable[str]) -> None:
        """Deliver those results of `ids` that exist and are awaited."""
        for batch in _batches(id for id in ids if id in self._waiting):
            # A caller that starts to wait meanwhile waits for another result: this one may be deleted by now.
            callers = [frozenset(self._waiting[id]) for id in batch]
            found = await self._connection.call("HMGET", self._output, *batch)
            for id, raw, asking in zip(batch, found, callers, strict=True):
                if raw is not None:
                    self._deliver(read_result(id, raw), asking)

    def _deliver(self, result: Result, callers: frozenset[Arrivals]) -> None:
        waiting = self._waiting.get(result.id, set())
        for arrivals in callers & waiting:
            arrivals.put(result)
            self._expected.pop(result.id, None)
        waiting -= callers
        if not waiting:
            self._waiting.pop(result.id, None)


def _batches(ids: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(list(ids))
    while batch := list(islice(iterator, _BATCH)):
        yield batch
