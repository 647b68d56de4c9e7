"""Tasks of the same bytes, settled differently in one settlement. Found by test_model.py."""

from __future__ import annotations

import pytest

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.broker.queue.settlement import Limits
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from redis_worker.vocabulary.task import Outcome
from tests.support import Queue


@pytest.mark.parametrize("others", [{}, {b"r0": b"1"}], ids=["no counts before", "counts of others"])
async def test_a_death_forgets_the_counts_of_its_bytes_whether_or_not_there_were_any_before(
    server: EmbeddedServer, queue: Queue, others: dict[bytes, bytes]
) -> None:
    keys, redis = queue.keys, queue.redis
    address = address_of(server.url)
    line, keeper = Connection(redis, owned=False), LeaseKeeper(address, 6.0)
    parts = (line, line, Doorbell(address), keys, keeper, Observer())
    worker = AtLeastOnceQueue(*parts, max_deliveries=3, limits=Limits(dead=10_000))
    await worker.open()
    try:
        if others:
            await redis.hset(keys.attempts, mapping=others)
        await queue.push(*[{"id": 1, "task": [1]}] * 2)
        first, second = await worker.claim(2, wait=False)
        retried = Outcome(first, "1", None, "it failed", again=0.0)
        await worker.settle([retried, Outcome(second, "1", b"1", "it failed", dead=True)])
        assert await redis.hgetall(keys.attempts) == others
        assert await redis.zcard(keys.delayed) == 1
    finally:
        await worker.close()
        await keeper.close()
        await redis.delete(keys.attempts, keys.delayed)
