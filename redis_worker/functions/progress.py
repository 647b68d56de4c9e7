"""Progress of tasks: reported by functions, written by a role of their worker, read by handles."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.payload import dumps, loads

# Seconds between writes: the last report of each task counts.
_EVERY = 0.25
# Time for which a report is kept, in ms: a day.
_KEPT_MS = 86_400_000


class Progress(NamedTuple):
    """The last report of a task."""

    done: float
    """How much is done."""
    total: float | None = None
    """How much there is; None if that is unknown."""
    message: str | None = None
    """A text for people."""
    at: float = 0.0
    """The time of the report, in seconds since the epoch, by the worker's clock."""

    def __str__(self) -> str:
        share = f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"
        return share if self.message is None else f"{share} {self.message}"


class Reports:
    """The reports that are not written yet, by the id of the task; any thread may add one."""

    def __init__(self) -> None:
        self._unwritten: dict[str, Progress] = {}
        self.on_first: Callable[[], None] = lambda: None
        """Called when there is a report and there was none."""

    def add(self, id: str, progress: Progress) -> None:
        """Take a report, in the place of an earlier one."""
        is_first = not self._unwritten
        self._unwritten[id] = progress
        if is_first:
            self.on_first()

    def take(self) -> dict[str, Progress]:
        """Return and forget the reports."""
        taken, self._unwritten = self._unwritten, {}
        return taken


class Reporting:
    """The role that writes reports, all of a worker together and four times a second at most."""

    def __init__(self, connection: Connection, keys: Keys, queue: AtLeastOnceQueue, reports: Reports) -> None:
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._reports = reports

    async def run(self) -> None:
        """Write reports until cancelled."""
        loop, reported = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # a thread that goes on when the loop is closed
                loop.call_soon_threadsafe(reported.set)

        self._reports.on_first = wake
        try:
            while True:
                await reported.wait()
                reported.clear()
                with suppress(Disconnected, Refused):  # the worker reports it; the next report may be written
                    await self._write(self._reports.take())
                await asyncio.sleep(_EVERY)
        finally:
            self._reports.on_first = lambda: None

    async def _write(self, reports: dict[str, Progress]) -> None:
        if reports:
            items = [item for id, report in reports.items() for item in (id, dumps(report._asdict()))]
            keys = [self._keys.workers, self._keys.progress]
            await self._connection.run("progress", keys, [self._queue.worker, _KEPT_MS, *items])


def reported(done: float, total: float | None, message: str | None) -> Progress:
    """Return a report of this moment."""
    return Progress(done, total, message, round(time.time(), 3))


def read_progress(raw: bytes | None) -> Progress | None:
    """Return the report in `raw`; None without one, or if it is none."""
    if raw is None:
        return None
    try:
        return Progress(**loads(raw))
    except (ValueError, TypeError):
        return None
