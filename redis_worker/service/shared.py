"""The parts that all services on one server share, while they work in one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from weakref import WeakKeyDictionary

from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.operator.presence import Announcer
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.broker.queue.lease import LeaseKeeper


class SharedParts:
    """The connection for calls that are short, and the roles for any number of queues."""

    def __init__(self, address: Address, given: Client | None, lease: float) -> None:
        """`given` is the caller's client, if there is one; `lease` the length of leases, in seconds."""
        self.users = 0
        """The services that use them."""
        self.connection = Connection(given or address.open(), owned=given is None, lasting=True)
        self.doorbell = Doorbell(address)
        self.announcer = Announcer(self.connection)
        self.keeper = LeaseKeeper(address, lease)
        # They belong to no service, whose context would name it in their log lines.
        self._roles = [asyncio.create_task(role.run(), context=Context()) for role in (self.doorbell, self.announcer)]

    async def defects(self) -> None:
        """Raise the exception that ends a role: nothing but a defect does."""
        await asyncio.wait(self._roles, return_when=asyncio.FIRST_COMPLETED)
        for role in self._roles:
            if role.done() and not role.cancelled():
                role.result()

    async def close(self) -> None:
        """End the roles and close the connection."""
        for role in self._roles:
            role.cancel()
        await asyncio.wait(self._roles)
        await self.announcer.close()
        await self.connection.close()
        await self.keeper.close()


_Places = dict[tuple[str, float], SharedParts]

_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, _Places] = WeakKeyDictionary()


@asynccontextmanager
async def shared_parts(
    redis: str | Client, address: Address, given: Client | None, lease: float
) -> AsyncIterator[SharedParts]:
    """Share the parts of services that name the server by the same URL; the last one closes them.

    A service with a client of the caller has its own.
    """
    if not isinstance(redis, str):
        parts = SharedParts(address, given, lease)
        try:
            yield parts
        finally:
            await parts.close()
        return
    places = _shared.setdefault(asyncio.get_running_loop(), {})
    parts = places.get((redis, lease)) or places.setdefault((redis, lease), SharedParts(address, None, lease))
    parts.users += 1
    try:
        yield parts
    finally:
        parts.users -= 1
        if not parts.users:
            del places[redis, lease]
            await parts.close()
