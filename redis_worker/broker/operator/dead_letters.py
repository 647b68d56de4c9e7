"""Dead letters of a queue: list, requeue, purge."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, NamedTuple

import orjson

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.announced import number, text, text_or_none, whole
from redis_worker.vocabulary.priorities import DEFAULT, is_priority

_PAGE = 200
# The same for a worker that reads beside its work: letters may be large.
_FEW = 50
# The last second of the year 9999, the end of datetime's range.
_END = 253_402_300_799


class DeadLetter(NamedTuple):
    """A dead letter: a task that could not be processed."""

    id: str | None
    """The task's id; None if missing or unreadable."""
    raw: bytes
    """The task as its producer wrote it."""
    reason: str
    attempts: int
    at: float
    """Time of death, in seconds since the epoch."""
    worker: str
    stored: bytes
    """The letter as stored in the list."""
    cut: bool = False
    """True if `raw` is only the beginning of the task, because the server accepted no more: it cannot be requeued."""
    trace: str | None = None
    """The traceback, where one is known."""
    priority: str = DEFAULT
    """The priority of the task, whose list it returns to."""

    @property
    def key(self) -> str:
        """A name of the letter: equal letters have equal keys."""
        return hashlib.sha256(self.stored).hexdigest()[:32]


class DeadLetters(Access):
    """The dead letters of the queue `input_key`; `redis` is a URL, or a client that stays open."""

    def __init__(self, redis: str | Client | Address, input_key: str) -> None:
        self._keys = Keys(input_key, "")
        super().__init__(redis)

    async def count(self) -> int:
        """Return the number of dead letters."""
        return int(await self._connection.call("LLEN", self._keys.dead))

    async def dropped(self) -> int:
        """Return the number of letters dropped because the list was full."""
        counted = await self._connection.call("GET", self._keys.dropped) or b"0"
        return int(counted) if counted.isdigit() else 0

    async def letters(self, ids: Collection[str] = (), reason: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """Yield letters, oldest first, filtered by `ids` and by a substring of the reason, if given.

        Concurrent removals may hide letters; repeat until the result is empty.
        """
        start = 0
        while page := await self._connection.call("LRANGE", self._keys.dead, start, start + _PAGE - 1):
            for stored in page:
                letter = _read(stored)
                if (not ids or letter.id in ids) and (reason is None or reason in letter.reason):
                    yield letter
            start += len(page)

    async def newest(self, most: int) -> AsyncGenerator[DeadLetter, None]:
        """Yield up to `most` letters, newest first. Concurrent changes may hide letters, or repeat some."""
        for end in range(0, most, _FEW):
            page = await self._connection.call("LRANGE", self._keys.dead, -min(most, end + _FEW), -end - 1)
            for stored in reversed(page):
                yield _read(stored)
            if len(page) < _FEW:
                return

    async def requeue(self, letters: Sequence[DeadLetter]) -> int:
        """Put the tasks of `letters` back on the queue, byte for byte, with all attempts and their priorities.

        Return their number.

        Cut letters stay in the list.
        """
        return await self._revive("requeue", [letter for letter in letters if not letter.cut])

    async def purge(self, letters: Sequence[DeadLetter]) -> int:
        """Delete `letters` and return their number."""
        return await self._revive("purge", letters)

    async def _revive(self, action: str, letters: Sequence[DeadLetter]) -> int:
        count = 0
        for priority in dict.fromkeys(letter.priority for letter in letters):
            keys = [self._keys.dead, self._keys.list_with(priority), self._keys.attempts]
            own = [letter for letter in letters if letter.priority == priority]
            for start in range(0, len(own), _PAGE):
                arguments: list[Any] = [action]
                for letter in own[start : start + _PAGE]:
                    arguments += (letter.stored, letter.raw)
                count += int(await self._connection.run("revive", keys, arguments))
        return count


def is_letter(stored: bytes) -> bool:
    """Return True if a worker wrote `stored`."""
    return _read(stored).worker != ""


def _read(stored: bytes) -> DeadLetter:
    """Return the letter; wrap an entry of another program unchanged."""
    try:
        fields = orjson.loads(stored)
        cut = "raw_start" in fields
        if "raw_base64" in fields:
            raw = base64.b64decode(text(fields, "raw_base64"))
        else:
            raw = text(fields, "raw_start" if cut else "raw").encode()
        id, reason, worker = text_or_none(fields, "id"), text(fields, "reason"), text(fields, "worker")
        at, trace = number(fields, "at"), text(fields, "trace") if "trace" in fields else None
        if not 0 <= at < _END:
            raise ValueError(at)
        priority = fields.get("priority")
        known = priority if is_priority(priority) else DEFAULT
        return DeadLetter(id, raw, reason, whole(fields, "attempts"), at, worker, stored, cut, trace, known)
    except (ValueError, KeyError, TypeError):
        return DeadLetter(None, stored, "not a dead letter of a worker", 0, 0.0, "", stored)
