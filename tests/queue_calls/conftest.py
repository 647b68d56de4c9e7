"""Members of a queue, for the tests of its calls.

No worker runs here: the test is its engine, and loses replies, leases and lives where it likes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.queue.lease import LeaseKeeper
from redis_worker.embedded import EmbeddedServer
from tests.queue_calls.members import (
    LEASE,
    Join,
    Member,
    Unkept,
)
from tests.support import Queue


@pytest.fixture
async def join(server: EmbeddedServer, queue: Queue) -> AsyncIterator[Join]:
    """Makes members of the queue; at the end they leave, and nothing they hold is left in flight."""
    members: list[Member] = []
    keepers: list[LeaseKeeper] = []

    async def join(*, lease: float = LEASE, kept: bool = False, beside: Member | None = None, **options: Any) -> Member:
        """`kept` renews its lease; `beside` another member, the same thread renews both."""
        keeper = beside.keeper if beside else (LeaseKeeper if kept else Unkept)(address_of(server.url), lease)
        keepers.append(keeper)
        members.append(Member(server.url, queue.keys, keeper, **options))
        await members[-1].queue.open()
        return members[-1]

    yield join
    for member in members:
        await member.queue.close()
        await member.line.close()
    for keeper in keepers:
        await keeper.close()
    keys = queue.keys
    passing = (keys.attempts, keys.delayed, keys.done, keys.begun, keys.dropped, keys.paused)
    await queue.redis.delete(*passing, keys.waiting)
