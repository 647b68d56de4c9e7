"""What is read from Redis when somebody asks: seldom, and never for longer than they can wait."""

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

# Redis is asked once in so many seconds, however many ask here.
_CACHED = 1.0
# Who asks here waits for so long at the most, in seconds, and then gets what was read before.
_PATIENCE = 0.5
# Redis may take so long to answer, in seconds.
_REDIS_PATIENCE = 2.0
# What was read so many seconds ago is not shown any more: an old depth would be taken for a queue that stands still.
_STALE = 10.0


class Depths:
    """The depths of queues at whatever servers they are."""

    def __init__(self, address: Callable[[Consuming], Address]) -> None:
        self._address = address
        self._readings: dict[Address, Readings] = {}

    async def read(self, consuming: Iterable[Consuming]) -> dict[tuple[str, str], Depth]:
        """By part and queue, those that are known within half a second. Raises nothing."""
        wanted: defaultdict[Address, list[Consuming]] = defaultdict(list)
        for each in consuming:
            wanted[self._address(each)].append(each)
        await asyncio.gather(*(self._readings.pop(gone).close() for gone in self._readings.keys() - wanted.keys()))
        found = await asyncio.gather(*(self._read_at(address, its) for address, its in wanted.items()))
        return {key: depth for at_one in found for key, depth in at_one.items()}

    async def _read_at(self, address: Address, consuming: list[Consuming]) -> dict[tuple[str, str], Depth]:
        readings = self._readings.setdefault(address, Readings(address))
        depths = await readings.depths({each.queue for each in consuming})
        return {(each.part, each.queue): depths[each.queue] for each in consuming if each.queue in depths}

    async def close(self) -> None:
        """Close the connections."""
        await asyncio.gather(*(readings.close() for readings in self._readings.values()))
        self._readings.clear()


class Readings:
    """Reads depths over a connection of its own, so that work waits for no scrape, and no scrape for work."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._connection: Connection | None = None
        self._depths: dict[str, Depth] = {}
        self._read_at = self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def depths(self, queues: Collection[str]) -> dict[str, Depth]:
        """The depths of `queues` that are known, within half a second. Raises nothing."""
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
            pass  # the worker meets the same, and says so
        except Exception:
            logger.exception("the depths of queues cannot be read; the work goes on")
        finally:
            self._reading = None

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self._connection is not None:
            await self._connection.close()
