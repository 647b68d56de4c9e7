"""Large tasks in flight: each in a list of its own, which no script reads but the worker itself."""

from __future__ import annotations

from collections.abc import Sequence

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.lease import Lease
from redis_worker.vocabulary.errors import WrongType
from redis_worker.vocabulary.task import Delivery

# Bytes of a large task. A script copies and digests each task that it reads: beyond this size a list is cheaper.
LARGE_BYTES = 8192


async def read_large_tasks(connection: Connection, keys: Keys, lease: Lease, numbers: Sequence[int]) -> list[Delivery]:
    """Return the tasks with these `numbers`, as far as they are there: the lease may have been lost meanwhile.

    Raises Disconnected or Refused.
    """
    reads = [("LINDEX", keys.large_task(lease.name, number), 0) for number in numbers]
    deliveries: list[Delivery] = []
    replies = await connection.together(*reads, patience=PATIENCE, ordered=False)
    for number, reply in zip(numbers, replies, strict=True):
        if isinstance(reply, bytes):
            deliveries.append(Delivery(reply, lease, number=number))
        elif isinstance(reply, Exception) and not isinstance(reply, WrongType):
            raise reply
    return deliveries
