"""The user's server: keys with unused names, removed afterwards, and an observer of announcements.

Its journal cannot be read here. Instead each result is announced by the script that writes it: an id that is announced
twice was written twice. All other promises are checked at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Self
from urllib.parse import urlsplit

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.subscription import Subscription
from redis_worker.broker.keys import PROCESSES, QUEUES, SUPERVISORS, Keys
from redis_worker.broker.operator.control import tasks_in_flight
from redis_worker.chaos.ledger import Promise, TaskLedger
from redis_worker.chaos.server import open_connection
from redis_worker.embedded import HOST
from redis_worker.vocabulary.payload import loads

# Pause after a subscription that ended, and wait for a message, in seconds.
_PAUSE, _WAIT = 0.1, 1.0
# Keys or fields of one command.
_AT_ONCE = 500


class ForeignServer:
    """The user's server, inside the `async with` block, which removes all keys of the queue at its end."""

    def __init__(self, url: str, keys: Keys, marks: str) -> None:
        """`marks` is the key of the producers."""
        self.url = url
        self.connection: Connection = open_connection(url)
        self._keys = keys
        self._marks = marks

    @property
    def place(self) -> tuple[str, int] | None:
        """Host and port, for a proxy; None if there can be none: with TLS the certificate names the host."""
        parts = urlsplit(self.url)
        if parts.scheme != "redis" or "," in parts.netloc or not parts.hostname:
            return None
        return parts.hostname, parts.port or 6379

    def through(self, port: int) -> str:
        """Return its URL by way of a proxy on `port`."""
        parts = urlsplit(self.url)
        login, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{login}{at}{HOST}:{port}").geturl()

    async def __aenter__(self) -> Self:
        try:
            await self.connection.ping(5.0)
        except BaseException:
            await self.connection.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._remove_keys()
        finally:
            await self.connection.close()

    async def _remove_keys(self) -> None:
        call, keys = self.connection.call, self._keys
        names: set[bytes] = set()
        for key in (keys.claimants, keys.workers, keys.retired):
            names.update(await call("ZRANGE", key, 0, -1))
        held = [key for name in names for key in (keys.inflight(name.decode()), keys.arrived(name.decode()))]
        every = [keys.waiting, keys.output, keys.paused, self._marks, *keys.types, *held]
        for first in range(0, len(every), _AT_ONCE):
            await call("UNLINK", *every[first : first + _AT_ONCE])
        await call("SREM", QUEUES, keys.waiting)
        labels = {name.rpartition(b"-")[0] for name in names}  # of processes that were killed, too
        for process in await call("ZRANGE", PROCESSES, 0, -1):
            if process.rpartition(b"-")[0] in labels:
                await call("ZREM", PROCESSES, process)
        for id in await call("HKEYS", SUPERVISORS):  # those of parents that were killed
            if keys.waiting.encode() in (await call("HGET", SUPERVISORS, id) or b""):
                await call("HDEL", SUPERVISORS, id)


class AnnouncedLedger(TaskLedger):
    """The ledger of one queue, fed by announcements and by the state at the end."""

    def __init__(self, keys: Keys, claimed_again: Callable[[], int]) -> None:
        """`claimed_again` returns the number of tasks of dead workers that others have claimed, by their logs."""
        super().__init__([keys], Promise())
        self._claimed_again = claimed_again
        self._answered = 0

    @property
    def answered(self) -> int:
        """Number of tasks with a result that was announced."""
        return self._answered

    def ids(self) -> list[str]:
        """Return the ids of all tasks."""
        return list(self._by_id)

    def announced(self, id: str, at: float) -> None:
        """Take note of a result that was written."""
        record = self._by_id[id]
        before = record.places.copy()
        self._answered += not before
        self._answer(record, b"")
        self._judge(record, before, at)

    def take_stock(self, answers: dict[str, bytes], places: dict[str, list[bytes]], at: float) -> None:
        """Take note of all results, and of the raw tasks in other places."""
        for id, result in answers.items():
            self._by_id[id].result = result
        for place, raws in places.items():
            for raw in raws:
                self._records[raw].places.append(place)
        for record in self._records.values():
            if record.id in answers and not record.places:  # its announcement was missed
                record.places.append("answered")
            record.history.append((at, " and ".join(record.places) or "nowhere"))

    def close(self) -> None:
        """See Ledger."""
        self.again = self._claimed_again()
        super().close()


class AnnouncementObserver:
    """An observer of the announcements of results, inside the `async with` block."""

    def __init__(self, server: ForeignServer, keys: Keys, ledger: AnnouncedLedger) -> None:
        self.ledger = ledger
        self._server = server
        self._keys = keys
        self._listening = open_connection(server.url)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._listening.close()

    async def observe(self) -> None:
        """See Observer. Tasks that are dead have no announcement."""
        dead = await self._server.connection.call("LLEN", self._keys.dead)
        self.ledger.settled = self.ledger.answered + int(dead)

    async def finish(self) -> None:
        """See Observer."""
        call, keys = self._server.connection.call, self._keys
        ids, answers = self.ledger.ids(), dict[str, bytes]()
        for first in range(0, len(ids), _AT_ONCE):
            batch = ids[first : first + _AT_ONCE]
            found = zip(batch, await call("HMGET", keys.output, *batch), strict=True)
            answers |= {id: answer for id, answer in found if answer is not None}
        names = await call("ZRANGE", keys.claimants, 0, -1)
        places = {
            "dead": [loads(letter)["raw"].encode() for letter in await call("LRANGE", keys.dead, 0, -1)],
            "waiting": await call("LRANGE", keys.waiting, 0, -1),
            "in flight": [
                raw for name in names for raw in await tasks_in_flight(self._server.connection, keys, name.decode())
            ],
        }
        self.ledger.take_stock(answers, places, time.time())

    async def _listen(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # whatever ends a subscription, the next one goes on
                async with Subscription(self._listening, self._keys.channel) as subscription:
                    while True:
                        if (message := await subscription.message(_WAIT)) is not None:
                            for id in loads(message):
                                self.ledger.announced(id, time.time())
            await asyncio.sleep(_PAUSE)
