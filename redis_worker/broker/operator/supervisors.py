"""Supervisors: each publishes the state of its parts; readers list all of them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypedDict

import orjson

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints
from redis_worker.broker.keys import SUPERVISORS
from redis_worker.broker.operator.announced import number, text, text_or_none, whole, whole_or_none
from redis_worker.broker.operator.announcing import clean, keep_announced, process_members
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.service import PartStatus

# Timeout of a reply, in seconds: readers consider a supervisor dead after _ALIVE.
_PATIENCE = 5.0
# A supervisor silent for this many seconds counts as dead.
_ALIVE = 10.0
# A supervisor silent for this many seconds is deleted.
_FORGOTTEN = 3600
# Interval of that deletion, in seconds.
_LOOK_EVERY = 60.0
# Timeout of `withdraw`, in seconds.
_WITHDRAW_TIMEOUT = 2.0
# Longer errors are truncated: every reader fetches whole descriptions.
_MOST_CHARACTERS = 500


class Description(TypedDict):
    """A supervisor's name and parts; the announcer adds host, pid and version."""

    name: str
    parts: Sequence[PartStatus]


class Announcer:
    """Publisher of a supervisor's description, about once a second. Errors here do not affect the parts."""

    def __init__(self, connection: Connection, describe: Callable[[], Description]) -> None:
        """`describe` is called for each announcement, on the event loop."""
        self._constant = process_members()
        self.id = f"{self._constant['host']}-{self._constant['pid']}-{secrets.token_hex(3)}"
        self._connection = connection
        self._describe = describe
        self._born = time.monotonic()
        self._looked = float("-inf")
        self._publishing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Announce until cancelled; after a graceful stop, call `withdraw`."""
        await keep_announced(self._announce, Complaints().log)

    async def withdraw(self) -> None:
        """Stop announcing and delete the description. Takes about two seconds at most; raises nothing."""
        if self._publishing is not None:
            await asyncio.wait({self._publishing}, timeout=_WITHDRAW_TIMEOUT)
            if not self._publishing.done():  # the server hangs
                self._publishing.cancel()
                return
            if not self._publishing.cancelled():
                self._publishing.exception()  # retrieved, or asyncio logs it
        try:
            await self._connection.call("HDEL", SUPERVISORS, self.id, patience=_WITHDRAW_TIMEOUT)
        except (Disconnected, Refused):
            pass  # readers show it as dead for an hour, or until its successor starts

    async def _announce(self) -> None:
        # A separate task: a call survives the cancellation of its caller, and `withdraw` waits for it.
        self._publishing = asyncio.create_task(self._publish())
        await asyncio.wait({self._publishing})
        self._publishing.result()

    async def _publish(self) -> None:
        description = self._constant | {**self._describe()}
        description["name"] = clean(description["name"])
        description["parts"] = [_part(part) for part in description["parts"]]
        looks = time.monotonic() - self._looked >= _LOOK_EVERY
        forgotten = _FORGOTTEN if looks else 0
        # A supervisor of the same name and host, silent since this one started, was its predecessor.
        replaced = max(_ALIVE, time.monotonic() - self._born)
        name, host = description["name"], description["host"]
        arguments = [self.id, orjson.dumps(description), forgotten, replaced, name, host]
        await self._connection.run("announce", [SUPERVISORS], arguments, patience=_PATIENCE)
        if looks:
            self._looked = time.monotonic()


@asynccontextmanager
async def announced(address: Address, describe: Callable[[], Description]) -> AsyncIterator[None]:
    """Announce what `describe` returns on the server at `address`, and withdraw it at the end."""
    connection = Connection(address.open(), owned=True)
    announcer = Announcer(connection, describe)
    task = asyncio.create_task(announcer.run(), name="redis-worker announcer")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        await announcer.withdraw()
        await connection.close()


def _part(part: PartStatus) -> dict[str, Any]:
    error = None if part.error is None else clean(part.error)[:_MOST_CHARACTERS]
    return part._asdict() | {"name": clean(part.name), "error": error}


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """A supervisor that announced itself within the last hour and has not withdrawn."""

    id: str
    name: str
    alive: bool
    """True if it announced itself within 10 s, by the server's clock; else it died, or its event loop is blocked."""
    seen: float
    """Seconds since its last announcement."""
    host: str
    pid: int
    version: str
    started_at: float
    """In seconds since the epoch, by the supervisor's clock."""
    parts: list[PartStatus] = field(default_factory=list)
    """In file order."""


async def read_supervisors(connection: Connection) -> list[SupervisorStatus]:
    """Return all supervisors, by name, host and id. Raises Disconnected or Refused."""
    now, *entries = await connection.run("supervisors", [SUPERVISORS], [])
    found = [_supervisor(now / 1000, *entries[at : at + 2]) for at in range(0, len(entries), 2)]
    return sorted(filter(None, found), key=lambda each: (each.name, each.host, each.id))


def is_description(id: bytes, described: bytes) -> bool:
    """Return True if a registry entry is a supervisor's description in this version's format."""
    return _supervisor(0.0, id, described) is not None


def _supervisor(now: float, id: bytes, described: bytes) -> SupervisorStatus | None:
    """Return the status, or None for a description in another version's format."""
    try:
        members: Mapping[str, Any] = orjson.loads(described)
        seen = max(0.0, round(now - number(members, "published_at"), 3))
        return SupervisorStatus(
            id.decode(errors="replace"),
            name=text(members, "name"),
            alive=seen < _ALIVE,
            seen=seen,
            host=text(members, "host"),
            pid=whole(members, "pid"),
            version=text(members, "version"),
            started_at=number(members, "started_at"),
            parts=[_part_of(part) for part in members["parts"]],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _part_of(members: Mapping[str, Any]) -> PartStatus:
    """Return the part's status. Raises KeyError, TypeError, ValueError."""
    part = PartStatus(**{name: members[name] for name in PartStatus._fields if name in members})
    checked = part._asdict()
    for name, read in _PART.items():
        read(checked, name)
    return part


_PART = {
    **dict.fromkeys(("name", "kind", "state"), text),
    **dict.fromkeys(("restarts", "processes"), whole),
    "error": text_or_none,
    "lag": whole_or_none,
}
