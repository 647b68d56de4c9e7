"""Large tasks in flight, and many at once: in lists, the bundles, which no script reads but the worker itself."""

from __future__ import annotations

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import BUNDLE, Keys, bundled
from redis_worker.broker.queue.lease import Lease
from redis_worker.vocabulary.errors import WrongType
from redis_worker.vocabulary.payload import are_plain
from redis_worker.vocabulary.task import Delivery

# Bytes of a large task. A script copies and digests each task that it reads: beyond this size a bundle is cheaper.
LARGE_BYTES = 512
# So many tasks go into bundles, however small they are, while tasks end in their order: whole bundles then cost the
# server half of what single tasks do, and are worth another call of the worker. In any other order they cost more.
MANY = 4 * BUNDLE


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


async def numbers_in_bundles(connection: Connection, keys: Keys, worker: str) -> dict[int, list[int]]:
    """Return the numbers of the tasks in flight of `worker` that are in bundles, by the first number of each bundle.

    Raises Disconnected or Refused.
    """
    firsts = [int(first) for first in await connection.call("HKEYS", keys.bundles(worker)) if first.isdigit()]
    found = await connection.call("HMGET", keys.bundles(worker), *firsts) if firsts else []
    return {first: [*bundled(first, marks)] for first, marks in zip(firsts, found, strict=True) if marks}


async def read_bundle(connection: Connection, keys: Keys, worker: str, first: int) -> dict[int, bytes]:
    """Return the tasks of a bundle by their numbers; empty if they have ended. Raises Disconnected or Refused."""
    return dict(enumerate(await connection.call("LRANGE", keys.bundle(worker, first), 0, -1), first))
