"""Large tasks in flight: in lists, the bundles, which no script reads but the worker itself."""

from __future__ import annotations

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import BUNDLE, Keys, bundled
from redis_worker.broker.queue.lease import Lease
from redis_worker.vocabulary.errors import WrongType
from redis_worker.vocabulary.payload import are_plain
from redis_worker.vocabulary.task import Delivery

# Bytes of a large task. A script copies and digests each task that it reads: beyond this size a bundle is cheaper.
LARGE_BYTES = 512


async def read_large_tasks(connection: Connection, keys: Keys, lease: Lease, numbers: range) -> list[Delivery]:
    """Return the tasks with these `numbers`, as far as they are there: the lease may have been lost meanwhile.

    Raises Disconnected or Refused.
    """
    firsts = numbers[::BUNDLE]
    reads = [("LRANGE", keys.bundle(lease.name, first), 0, -1) for first in firsts]
    found: list[int] = []
    tasks: list[bytes] = []
    replies = await connection.together(*reads, patience=PATIENCE, ordered=False)
    for first, reply in zip(firsts, replies, strict=True):
        if isinstance(reply, list):
            found += range(first, first + len(reply))
            tasks += reply
        elif not isinstance(reply, WrongType):
            raise reply
    plain = are_plain(tasks)
    return [Delivery(raw, lease, 0, 0, plain, False, number) for number, raw in zip(found, tasks, strict=True)]


async def large_in_flight(connection: Connection, keys: Keys, worker: str) -> list[int]:
    """Return the numbers of the large tasks in flight of `worker`. Raises Disconnected or Refused."""
    firsts = [int(first) for first in await connection.call("HKEYS", keys.bundles(worker)) if first.isdigit()]
    found = await connection.call("HMGET", keys.bundles(worker), *firsts) if firsts else []
    return [number for first, marks in zip(firsts, found, strict=True) if marks for number in bundled(first, marks)]


async def read_large(connection: Connection, keys: Keys, worker: str, number: int) -> bytes | None:
    """Return the large task of `worker` with this number; None if it has none. Raises Disconnected or Refused."""
    position = number % BUNDLE
    raw: bytes | None = await connection.call("LINDEX", keys.bundle(worker, number - position), position)
    return raw
