"""Access to Redis for whoever makes calls now and then: by a connection of its own, or by a caller's client."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from redis_worker.broker.address import Client, address_of
from redis_worker.broker.connection import Connection

if TYPE_CHECKING:
    from typing import Self


class Access:
    """Opened by a URL, or by a client that is used and not closed; closed at the end of its `async with` block."""

    def __init__(self, redis: str | Client) -> None:
        """Raises ConfigurationError where the URL is not valid."""
        given = None if isinstance(redis, str) else redis
        self._connection = Connection(given or address_of(redis).open(), owned=given is None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what has been opened."""
        await self._connection.close()
