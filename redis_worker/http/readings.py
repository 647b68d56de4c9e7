"""Queue depths, read from Redis on request: cached, and within a time limit."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.operator.depth import Depth, read_depths
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming

logger = library_logger()

# The minimum interval of queries to Redis, in seconds.
_CACHED = 1.0
# A caller waits for so long at most, in seconds, and then gets the last reading.
_PATIENCE = 0.5
# The time limit of a query to Redis, in seconds.
_REDIS_PATIENCE = 2.0
# Older readings, in seconds, are dropped: an old depth looks like a queue that stands still.
_STALE = 10.0


class Depths:
    """The depths of queues, on one or more servers."""

    def __init__(self, address: Callable[[Consuming], Address | None]) -> None:
        """`address` returns the server of a queue; None if it is not in Redis."""
        self._address = address
        self._readings: dict[Address, Readings] = {}

    async def read(self, consuming: Iterable[Consuming]) -> dict[tuple[str, str], Depth]:
        """Return the depths known within half a second, by part and queue. Raises nothing."""
        wanted: defaultdict[Address, list[Consuming]] = defaultdict(list)
        for queue in consuming:
            if (address := self._address(queue)) is not None:
                wanted[address].append(queue)
        await asyncio.gather(*(self._readings.pop(unused).close() for unused in self._readings.keys() - wanted.keys()))
        found = await asyncio.gather(*(self._read_at(address, queues) for address, queues in wanted.items()))
        return {key: depth for depths in found for key, depth in depths.items()}

    async def _read_at(self, address: Address, consuming: list[Consuming]) -> dict[tuple[str, str], Depth]:
        readings = self._readings.setdefault(address, Readings(address))
        depths = await readings.depths({queue.queue for queue in consuming})
        return {(queue.part, queue.queue): depths[queue.queue] for queue in consuming if queue.queue in depths}

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(readings.close() for readings in self._readings.values()))
        self._readings.clear()


class Readings:
    """A reader of depths with a separate connection, so that work and scrapes never wait for each other."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._depths: dict[str, Depth] = {}
        self._read_at = self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def depths(self, queues: Collection[str]) -> dict[str, Depth]:
        """Return the known depths of `queues`, within half a second. Raises nothing."""
        now = time.monotonic()
        if self._reading is None and now - self._asked_at >= _CACHED:
            self._asked_at = now
            self._reading = asyncio.create_task(self._read(queues))
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=_PATIENCE)
        return self._depths if time.monotonic() - self._read_at < _STALE else {}

    async def _read(self, queues: Collection[str]) -> None:
        try:
            if self._connection is None:
                self._connection = Connection(self._address.open(), owned=True)
            self._depths = await read_depths(self._connection, queues, _REDIS_PATIENCE)
            self._read_at = time.monotonic()
        except (Disconnected, Refused):
            pass  # the worker meets and logs the same error
        except Exception:
            logger.exception("cannot read queue depths; the work continues")
        finally:
            self._reading = None

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self._connection is not None:
            await self._connection.close()
