"""Damaged keys: undecodable names, and warnings logged once per occurrence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.vocabulary.errors import DamagedKey, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


class Complaints:
    """Warnings of one role: each is logged once, and again if the damage returns after a repair."""

    def __init__(self, queue: str | None = None) -> None:
        """`queue` is added to the log records."""
        self._extra = None if queue is None else {"queue": queue}
        self._logged: set[str] = set()

    def log(self, problems: Iterable[object]) -> None:
        """Log those of `problems` that were not in the previous call."""
        texts = dict.fromkeys(map(str, problems))
        for text in texts:
            if text not in self._logged:
                logger.warning("%s", text, extra=self._extra)
        self._logged = set(texts)


def readable(names: Iterable[bytes]) -> tuple[list[str], list[bytes]]:
    """Return the `names` that are UTF-8, as text, and the others, which this project did not write."""
    texts: list[str] = []
    undecodable: list[bytes] = []
    for name in names:
        try:
            texts.append(name.decode())
        except UnicodeDecodeError:
            undecodable.append(name)
    return texts, undecodable


def strangers(key: str, names: Sequence[bytes], flaw: str = "not UTF-8") -> list[str]:
    """Return the warning about members of `key` with a `flaw`; an empty list if `names` is empty."""
    if not names:
        return []
    some = ", ".join(ascii(name)[1:] for name in sorted(names)[:3]) + (", …" if len(names) > 3 else "")
    return [f"the key {key!r} has members that are {flaw}, which are ignored: {some}"]


async def damaged_keys(connection: Connection, types: Mapping[str, str]) -> list[DamagedKey]:
    """Return the keys that do not hold the type given in `types`. Raises Disconnected or Refused."""
    replies = await connection.together(*(("TYPE", key) for key in types), patience=PATIENCE)
    damaged = []
    for (key, expected), reply in zip(types.items(), replies, strict=True):
        if isinstance(reply, Exception):
            raise reply
        if (found := reply.decode()) not in (expected, "none"):
            damaged.append(DamagedKey(key, found, expected))
    return damaged


async def call_on(
    connection: Connection, key: str, expected: str, command: str, *arguments: Any, patience: float = PATIENCE
) -> Any:
    """Return the reply to `command` on `key`. Raises DamagedKey for a wrong type, Disconnected or Refused."""
    try:
        return await connection.call(command, key, *arguments, patience=patience)
    except Refused:
        for damaged in await damaged_keys(connection, {key: expected}):
            raise damaged from None
    # The key was repaired meanwhile, or the refusal has another reason.
    return await connection.call(command, key, *arguments, patience=patience)
