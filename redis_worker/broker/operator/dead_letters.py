"""The dead letters of a queue, for an operator: look, put back, throw away."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any, NamedTuple

import orjson

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Client
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.announced import number, text, text_or_none, whole

_PAGE = 200
# The last second that a calendar knows of.
_END = 253_402_300_799


class DeadLetter(NamedTuple):
    """One task that could not be done."""

    id: str | None
    """The task's id; None when it has none that can be read."""
    raw: bytes
    """The task as its producer wrote it."""
    reason: str
    attempts: int
    at: float
    """When it died, in seconds since the epoch."""
    worker: str
    stored: bytes
    """The letter as it stands in the list."""
    cut: bool = False
    """True where `raw` is only the beginning of the task, for the server did not take more: it cannot be put back."""


class DeadLetters(Access):
    """The dead letters of the queue `input_key`; `redis` is a URL, or a client that is used and not closed."""

    def __init__(self, redis: str | Client, input_key: str) -> None:
        self._keys = Keys(input_key, "")
        super().__init__(redis)

    async def count(self) -> int:
        """How many there are."""
        return int(await self._connection.call("LLEN", self._keys.dead))

    async def dropped(self) -> int:
        """How many were dropped because there were too many."""
        counted = await self._connection.call("GET", self._keys.dropped) or b"0"
        return int(counted) if counted.isdigit() else 0

    async def letters(self, ids: Collection[str] = (), reason: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """The letters, oldest first: those of `ids`, if any are given, whose reason contains `reason`.

        Letters taken off the list meanwhile may hide others; look again until there are none.
        """
        start = 0
        while page := await self._connection.call("LRANGE", self._keys.dead, start, start + _PAGE - 1):
            for stored in page:
                letter = _read(stored)
                if (not ids or letter.id in ids) and (reason is None or reason in letter.reason):
                    yield letter
            start += len(page)

    async def requeue(self, letters: Sequence[DeadLetter]) -> int:
        """Put the tasks of `letters` back on the queue, byte for byte and with all their attempts. Returns how many.

        Letters that are cut stay where they are.
        """
        return await self._revive("requeue", [letter for letter in letters if not letter.cut])

    async def purge(self, letters: Sequence[DeadLetter]) -> int:
        """Throw `letters` away. How many."""
        return await self._revive("purge", letters)

    async def _revive(self, what: str, letters: Sequence[DeadLetter]) -> int:
        count = 0
        keys = [self._keys.dead, self._keys.waiting, self._keys.attempts]
        for start in range(0, len(letters), _PAGE):
            arguments: list[Any] = [what]
            for letter in letters[start : start + _PAGE]:
                arguments += (letter.stored, letter.raw)
            count += int(await self._connection.run("revive", keys, arguments))
        return count


def is_letter(stored: bytes) -> bool:
    """Whether `stored` was written by a worker."""
    return _read(stored).worker != ""


def _read(stored: bytes) -> DeadLetter:
    """The letter; one that another program has put there is shown as it is."""
    try:
        fields = orjson.loads(stored)
        cut = "raw_start" in fields
        if "raw_base64" in fields:
            raw = base64.b64decode(text(fields, "raw_base64"))
        else:
            raw = text(fields, "raw_start" if cut else "raw").encode()
        id, reason, worker = text_or_none(fields, "id"), text(fields, "reason"), text(fields, "worker")
        at = number(fields, "at")
        if not 0 <= at < _END:
            raise ValueError(at)
        return DeadLetter(id, raw, reason, whole(fields, "attempts"), at, worker, stored, cut)
    except (ValueError, KeyError, TypeError):
        return DeadLetter(None, stored, "no dead letter of a worker", 0, 0.0, "", stored)
