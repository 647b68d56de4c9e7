"""Supervisors: each tells whoever asks what it runs, and how its parts stand."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import orjson

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints
from redis_worker.broker.keys import SUPERVISORS
from redis_worker.broker.operator.announced import number, text, text_or_none, whole
from redis_worker.vocabulary.errors import Disconnected, Refused, WrongType
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import PartStatus
from redis_worker.vocabulary.version import __version__

logger = library_logger()

# How often to announce, in seconds; spread, so that a fleet does not do it in step.
_EVERY = (1.0, 1.5)
# When to try again after the server has said no, in seconds: each refusal may be a line in its log.
_REFUSED_PAUSE = 30.0
# How long a reply may take, in seconds: who waits for much longer is taken for gone.
_PATIENCE = 5.0
# Who has been silent for so many seconds is taken for gone.
_ALIVE = 10.0
# And after so many is forgotten.
_FORGOTTEN = 3600
# How often to look for those, in seconds.
_LOOK_EVERY = 60.0
# How long a stop may take to withdraw, in seconds.
_LAST_WORDS = 2.0
# Longer errors are cut off: a description is fetched whole by everybody who looks.
_MOST_CHARACTERS = 500


class Description(TypedDict):
    """What a supervisor says of itself; where it runs is added to it."""

    name: str
    parts: Sequence[PartStatus]


class Announcer:
    """Publishes a description of a supervisor every second or so. Nothing that fails here concerns the work."""

    def __init__(self, connection: Connection, describe: Callable[[], Description]) -> None:
        """`describe` is asked each time, on the event loop."""
        host = _clean(socket.gethostname())
        self.id = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        self._connection = connection
        self._describe = describe
        self._constant: dict[str, Any] = {
            "host": host,
            "pid": os.getpid(),
            "version": __version__,
            "started_at": round(time.time(), 3),
        }
        self._born = time.monotonic()
        self._looked = float("-inf")
        self._complaints = Complaints()
        self._announcing: asyncio.Task[float] | None = None

    async def run(self) -> None:
        """Announce, until cancelled; then `withdraw`, if it is a stop in good order."""
        while True:
            # A task of its own, because a call is not cancelled with its caller: `withdraw` waits for it.
            self._announcing = asyncio.create_task(self._announce())
            await asyncio.wait({self._announcing})
            await asyncio.sleep(self._announcing.result())

    async def withdraw(self) -> None:
        """Say nothing more and be forgotten. Takes some two seconds at the most, and raises nothing."""
        if self._announcing is not None and not self._announcing.done():
            await asyncio.wait({self._announcing}, timeout=_LAST_WORDS)
            if not self._announcing.done():  # the server hangs
                self._announcing.cancel()
                return
        try:
            await self._connection.call("HDEL", SUPERVISORS, self.id, patience=_LAST_WORDS)
        except (Disconnected, Refused):
            pass  # it is shown as gone for an hour, or until its successor comes

    async def _announce(self) -> float:
        """Announce once; returns how many seconds to wait for the next time."""
        try:
            await self._tell()
        except Disconnected:
            pass  # the parts meet the same, and say so
        except WrongType as error:
            self._complaints.tell([f"the key {SUPERVISORS!r}: {error}"])
            return _REFUSED_PAUSE
        except Refused:
            return _REFUSED_PAUSE  # a user may lack a right to this key and have all that the work needs
        except Exception:
            logger.exception("the supervisor cannot be announced; the work goes on")
            return _REFUSED_PAUSE
        return random.uniform(*_EVERY)

    async def _tell(self) -> None:
        said = self._constant | {**self._describe()}
        said["name"] = _clean(said["name"])
        said["parts"] = [_part(part) for part in said["parts"]]
        looks = time.monotonic() - self._looked >= _LOOK_EVERY
        forgotten = _FORGOTTEN if looks else 0
        # Whoever of that name has said nothing here for as long as this one lives was its predecessor.
        replaced = max(_ALIVE, time.monotonic() - self._born)
        arguments = [self.id, orjson.dumps(said), forgotten, replaced, said["name"], said["host"]]
        await self._connection.run("announce", [SUPERVISORS], arguments, patience=_PATIENCE)
        if looks:
            self._looked = time.monotonic()


def _part(part: PartStatus) -> dict[str, Any]:
    error = None if part.error is None else _clean(part.error)[:_MOST_CHARACTERS]
    return part._asdict() | {"name": _clean(part.name), "error": error}


def _clean(text: str) -> str:
    """`text` as orjson takes it, which refuses what is not UTF-8."""
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class SupervisorStatus:
    """A supervisor that announces itself, or did so within the last hour and has not withdrawn."""

    id: str
    name: str
    alive: bool
    """Whether it was heard of within 10 s, by the server's clock. If not: it has died, or its event loop is blocked."""
    seen: float
    """How many seconds ago it was heard of."""
    host: str
    pid: int
    version: str
    started_at: float
    """In seconds since the epoch, by its own clock."""
    parts: list[PartStatus] = field(default_factory=list)
    """In the order of its file."""


async def read_supervisors(connection: Connection) -> list[SupervisorStatus]:
    """All supervisors, by name, host and id. Raises Disconnected or Refused."""
    now, *said = await connection.run("supervisors", [SUPERVISORS], [])
    found = [_supervisor(now / 1000, *said[at : at + 2]) for at in range(0, len(said), 2)]
    return sorted(filter(None, found), key=lambda each: (each.name, each.host, each.id))


def is_description(id: bytes, described: bytes) -> bool:
    """Whether a member of the registry is what a supervisor of this version says of itself."""
    return _supervisor(0.0, id, described) is not None


def _supervisor(now: float, id: bytes, described: bytes) -> SupervisorStatus | None:
    """None where it is of a version that says something else."""
    try:
        said: Mapping[str, Any] = orjson.loads(described)
        seen = max(0.0, round(now - number(said, "published_at"), 3))
        return SupervisorStatus(
            id.decode(errors="replace"),
            name=text(said, "name"),
            alive=seen < _ALIVE,
            seen=seen,
            host=text(said, "host"),
            pid=whole(said, "pid"),
            version=text(said, "version"),
            started_at=number(said, "started_at"),
            parts=[_part_of(part) for part in said["parts"]],
        )
    except (ValueError, KeyError, TypeError):
        return None


def _part_of(said: Mapping[str, Any]) -> PartStatus:
    """Raises KeyError, TypeError, ValueError."""
    part = PartStatus(**{name: said[name] for name in PartStatus._fields if name in said})
    members = part._asdict()
    for name, read in _PART.items():
        read(members, name)
    return part


_PART = {"name": text, "kind": text, "state": text, "restarts": whole, "error": text_or_none, "processes": whole}
