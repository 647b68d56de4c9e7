"""Cancellation of tasks, wherever they are: removed with an answer, or marked for the worker that runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

from redis_worker.broker.client.access import Access
from redis_worker.broker.client.delayed_tasks import Delayed, needle
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import readable
from redis_worker.broker.keys import LAST, Keys
from redis_worker.broker.queue.announced_priorities import announced_lists
from redis_worker.broker.queue.large_tasks import numbers_in_bundles, read_bundle
from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.ids import id_text
from redis_worker.vocabulary.payload import CANCELLED, failure, read_object

# Searches for a task that moves from one place to another meanwhile.
_SEARCHES = 3
# Time for which a mark holds, in ms: a day. The worker that answers the task removes it.
_MARK_MS = 86_400_000

_UNKNOWN, _ANSWERED = -1, 0


class _Place(NamedTuple):
    """A task in flight."""

    inflight: str
    bundles: str
    number: int


class Cancellation(Access):
    """Cancellation of the tasks of one queue; `redis` is a URL, or a client that is used and not closed."""

    def __init__(self, redis: str | Client | Address, input_key: str, output_key: str) -> None:
        super().__init__(redis)
        self._keys = Keys(input_key, output_key)

    async def cancel(self, id: str | int, ttl: int = 0) -> bool:
        """Cancel the task `id`. Return False if it is answered, or is not found.

        A waiting or delayed task is removed, and its answer says that it was cancelled; the answer expires after `ttl`
        seconds (0: never). The worker of a task in flight is asked to cancel it. The search takes longer the more tasks
        wait, and blocks the server for a page of them at most. Raises Disconnected and Refused.
        """
        return await cancel(self._connection, self._keys, id_text(id), ttl)


async def cancel(connection: Connection, keys: Keys, id: str, ttl: int) -> bool:
    """Cancel the task `id`, see Cancellation."""
    if await connection.call("HEXISTS", keys.output, id):
        return False
    answer = [id, failure(CANCELLED), keys.channel, ttl, _MARK_MS]
    for _ in range(_SEARCHES):
        places = [(place, raw) async for place, raw in _in_flight(connection, keys) if _is(raw, id)]
        delayed = await Delayed(connection, keys.waiting).find([id])
        raws = {raw async for raw in _waiting(connection, keys, id) if _is(raw, id)}
        raws.update(task.raw for task in delayed)
        raws.update(raw for _, raw in places)
        own = [keys.waiting, keys.delayed, keys.attempts, keys.output, keys.cancelled, keys.unique]
        state = await connection.run(
            "cancel",
            [*own, *(key for place, _ in places for key in place[:2])],
            [*answer, len(delayed), *(task.member for task in delayed), *(place.number for place, _ in places), *raws],
        )
        if state != _UNKNOWN:
            return bool(state != _ANSWERED)
    return False


async def _waiting(connection: Connection, keys: Keys, id: str) -> AsyncIterator[bytes]:
    """Yield waiting tasks that may have the `id`."""
    for key in await announced_lists(connection, keys):
        after, count = 0, 1
        while count:
            count, found = await connection.run("seek", [key], [after, needle(id)])
            for raw in found:
                yield raw
            after += count


async def _in_flight(connection: Connection, keys: Keys) -> AsyncIterator[tuple[_Place, bytes]]:
    """Yield the tasks in flight."""
    for registry in (keys.workers, keys.retired):
        for worker in readable(await connection.call("ZRANGE", registry, 0, -1))[0]:
            inflight, bundles = keys.inflight(worker), keys.bundles(worker)
            numbers = [int(number) for number in await connection.call("HKEYS", inflight) if number.decode() != LAST]
            if numbers:
                for number, raw in zip(numbers, await connection.call("HMGET", inflight, *numbers), strict=True):
                    if raw is not None:
                        yield _Place(inflight, bundles, number), raw
            for first, bundled in (await numbers_in_bundles(connection, keys, worker)).items():
                tasks = await read_bundle(connection, keys, worker, first)
                for number in bundled:
                    if number in tasks:
                        yield _Place(inflight, bundles, number), tasks[number]


def _is(raw: bytes, id: str) -> bool:
    try:
        return read_object(raw)[0] == id
    except Unreadable:
        return False
