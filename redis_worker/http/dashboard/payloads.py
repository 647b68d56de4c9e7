"""Payloads of a queue: waiting tasks, delayed tasks and dead letters, as the page lists them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from redis_worker.broker.client.delayed_tasks import DelayedTask, DelayedTasks
from redis_worker.broker.connection.address import Address
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.dead_letters import DeadLetter, DeadLetters

MOST_SEARCHED: Final = 10_000
"""The number of letters, the newest, that a search reads."""
MOST_BYTES: Final = 100 * 1024 * 1024
"""The same in bytes: a search ends with the letter that goes beyond."""
# Entries of a list, and characters of a payload in it; the payload of one letter alone.
_MOST_LISTED, _START, _WHOLE = 100, 1_000, 1024 * 1024
# Waiting tasks of a list: nothing can be done with one of them.
_MOST_WAITING = 20
_MOST_GROUPS = 50
_NUMBERS = re.compile(r"\b0x[0-9a-fA-F]+|\d+")


def group_of(reason: str) -> str:
    """Return the group of a reason: its first line, with `N` for each number."""
    return _NUMBERS.sub("N", reason.partition("\n")[0][:200])


class Filter:
    """A choice of letters: of a group, with a text in id, reason or payload, or with a key."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        """`wanted` has `group`, `search` and `keys`, each optional."""
        self._group = str(wanted.get("group") or "")
        self._search = str(wanted.get("search") or "").casefold()
        self._keys = frozenset(map(str, wanted.get("keys") or ()))

    def chooses(self, letter: DeadLetter) -> bool:
        """Return True if `letter` is chosen."""
        if self._keys and letter.key not in self._keys:
            return False
        if self._group and group_of(letter.reason) != self._group:
            return False
        return not self._search or any(self._search in text.casefold() for text in _texts(letter))


def _texts(letter: DeadLetter) -> tuple[str, ...]:
    return letter.id or "", letter.reason, _text(letter.raw), letter.worker


async def waiting(fleet: Address, queue: str) -> dict[str, Any]:
    """Return the first waiting tasks."""
    async with QueueControl(fleet, queue) as control:
        found = await control.peek(_MOST_WAITING)
        return {"total": await control.count(), "tasks": [{"payload": _start(raw), "size": len(raw)} for raw in found]}


async def delayed(fleet: Address, queue: str, id: str) -> dict[str, Any]:
    """Return the delayed tasks that are due first, or those with `id`."""
    async with DelayedTasks(fleet, queue) as tasks:
        found = await (tasks.here.find([id]) if id else tasks.here.first(_MOST_LISTED))
        return {"total": await tasks.here.count(), "tasks": list(map(_delayed, found[:_MOST_LISTED]))}


async def dead(fleet: Address, queue: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the newest letters that `wanted` chooses, and the groups of all that were read."""
    chooses = Filter(wanted).chooses
    groups, listed, matching, read = Counter[str](), list[dict[str, Any]](), 0, 0
    async with DeadLetters(fleet, queue) as letters:
        async for letter in _newest(letters):
            read += 1
            groups[group_of(letter.reason)] += 1
            if chooses(letter):
                matching += 1
                if len(listed) < _MOST_LISTED:
                    listed.append(_dead(letter, _START))
        return {
            "total": await letters.count(), "read": read, "matching": matching, "letters": listed,
            "groups": groups.most_common(_MOST_GROUPS),
        }  # fmt: skip


async def letter(fleet: Address, queue: str, key: str) -> dict[str, Any] | None:
    """Return one letter with its whole payload; None if it is gone."""
    async with DeadLetters(fleet, queue) as letters:
        async for found in chosen(letters, {"keys": [key]}):
            return _dead(found, _WHOLE)
    return None


async def chosen(letters: DeadLetters, wanted: Mapping[str, Any]) -> AsyncGenerator[DeadLetter, None]:
    """Yield the letters that `wanted` chooses, of those that a search reads, newest first."""
    chooses = Filter(wanted).chooses
    async for found in _newest(letters):
        if chooses(found):
            yield found


async def _newest(letters: DeadLetters) -> AsyncGenerator[DeadLetter, None]:
    size = 0
    async for letter in letters.newest(MOST_SEARCHED):
        yield letter
        size += len(letter.stored)
        if size > MOST_BYTES:
            return


def _dead(letter: DeadLetter, limit: int) -> dict[str, Any]:
    return {
        "key": letter.key, "id": letter.id, "reason": letter.reason, "attempts": letter.attempts, "at": letter.at,
        "worker": letter.worker, "trace": letter.trace, "cut": letter.cut, "size": len(letter.raw),
        "payload": _start(letter.raw, limit),
    }  # fmt: skip


def _delayed(task: DelayedTask) -> dict[str, Any]:
    return {"key": task.key, "id": task.id, "due": task.due, "size": len(task.raw), "payload": _start(task.raw)}


def _start(raw: bytes, limit: int = _START) -> str:
    return _text(raw[: limit * 4])[:limit]


def _text(raw: bytes) -> str:
    return raw.decode(errors="backslashreplace")
