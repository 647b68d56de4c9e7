"""The watch: reads the status of the fleet while somebody looks, and shows it to all of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

import orjson

from redis_worker.broker.connection.address import Address
from redis_worker.broker.operator.status import Status, StatusReader
from redis_worker.http.dashboard.trends import NAMES, Trends
from redis_worker.http.push.hub import Hub
from redis_worker.vocabulary.channel import OWN
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import PartStatus

logger = library_logger()

CHANNEL: Final = f"{OWN}status"
"""The channel of readings."""
# Interval of readings, in seconds.
_EVERY = 0.5
# Most workers, and tasks of one, in a reading.
_MOST_WORKERS, _MOST_TASKS = 300, 10


class Watch:
    """The reader of a fleet's status for a page. It reads only while somebody looks, unless `always`."""

    def __init__(self, fleet: Address, hub: Hub, always: bool) -> None:
        self._reader = StatusReader(fleet)
        self._hub = hub
        self._always = always
        self._trends = Trends()
        self._shown: dict[str, Any] = {}
        self._read_at = float("-inf")
        self._task: asyncio.Task[None] | None = None

    async def now(self) -> bytes:
        """Return the current reading, with the history of the last minutes, as JSON."""
        if time.monotonic() - self._read_at > 2 * _EVERY:
            await self._read()
        history = {"names": NAMES, "points": list(self._trends.points)}
        return _json(self._shown | {"history": history})

    def start(self) -> None:
        """Start to read."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """End the reading, and close the connection."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._reader.close()

    async def _run(self) -> None:
        while True:
            if self._always or self._hub.is_watched(CHANNEL):
                await self._read()
                self._hub.show(CHANNEL, _json(self._shown))
            await asyncio.sleep(_EVERY)

    async def _read(self) -> None:
        """Read the status; if that fails, the last one stays, with the reason."""
        try:
            status = await self._reader.read()
            numbers = self._trends.add(status)
            self._shown = {"status": _bounded(status), "numbers": numbers, "workers": len(status.workers)}
        except (Disconnected, Refused) as error:
            self._shown = self._shown | {"problem": f"Redis does not answer: {error}"}
        except Exception:
            logger.exception("the status cannot be read")
            self._shown = self._shown | {"problem": "the status cannot be read; the log of this process has the reason"}
        self._read_at = time.monotonic()


def _bounded(status: Status) -> Status:
    workers = [
        replace(worker, tasks=worker.tasks[:_MOST_TASKS], processing=[], latency=[]) for worker in status.workers
    ]
    return replace(status, workers=workers[:_MOST_WORKERS])


def _json(shown: dict[str, Any]) -> bytes:
    return orjson.dumps(shown, default=PartStatus._asdict)
