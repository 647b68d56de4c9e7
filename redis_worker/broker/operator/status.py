"""The status of queues and of the workers at work on them, as they themselves and the server tell it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.connection.damaged_keys import call_on, readable, strangers
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.keys import ARRIVED, CRON, QUEUES, SUPERVISORS, TOPICS, Keys, topic_list
from redis_worker.broker.operator.announced import number, text, text_or_none, whole
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.broker.operator.supervisors import SupervisorStatus, read_supervisors
from redis_worker.broker.scripts import script
from redis_worker.vocabulary.errors import DamagedKey, Refused, WrongType
from redis_worker.vocabulary.service import PartStatus

T = TypeVar("T")

# So many queues are asked about at once.
_PAGE = 200


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a worker runs."""

    id: str | None
    """None when it has none, or is too large to read in passing."""
    seconds: float
    """For how long."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker that has a lease, or whose lease has ended and that no other one has noticed yet.

    What it says of itself is None, empty or 0 where it has said nothing yet, or may not.
    """

    queue: str
    name: str
    alive: bool
    """Whether its lease lasts, by the server's clock; if not, it is stale: its tasks go to others soon."""
    lease: float
    """In how many seconds the lease ends; 0 or below when it has ended."""
    in_flight: int
    """Tasks it has claimed and not settled: those that run, and those about to."""
    seen: float | None = None
    """How many seconds ago it described itself. It does so every second, unless its event loop is blocked."""
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    processor: str | None = None
    """The name of its processor, or of its handler."""
    concurrency: int | None = None
    running: int = 0
    """How many tasks (or batches) run."""
    tasks: list[RunningTask] = field(default_factory=list)
    """Up to 20 of them, those that have run longest first."""
    rate: float = 0.0
    """Tasks settled per second."""
    counters: dict[str, int] = field(default_factory=dict)
    """As in Counters, and `processed`."""
    started_at: float | None = None
    """In seconds since the epoch, by the worker's clock."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How a queue stands."""

    name: str
    waiting: int = 0
    delayed: int = 0
    in_flight: int = 0
    dead: int = 0
    """Dead letters."""
    dropped: int = 0
    """Dead letters dropped because there were too many."""
    rate: float = 0.0
    """Tasks settled per second, by all of its living workers together."""
    workers: int = 0
    """How many are alive."""
    problem: str | None = None
    """Why it, or some of it, cannot be looked into."""


@dataclass(frozen=True, slots=True)
class Status:
    """All queues and workers at one moment."""

    at: float
    """In seconds since the epoch, by the server's clock."""
    queues: list[QueueStatus]
    """By name."""
    workers: list[WorkerStatus]
    """Stale ones first, then by queue and name."""
    supervisors: list[SupervisorStatus] = field(default_factory=list)
    """By name."""
    jobs: list[JobStatus] = field(default_factory=list)
    """Cron jobs, by application and name."""

    def json(self) -> bytes:
        """The same as one JSON object."""
        return orjson.dumps(self, default=_members)


class StatusReader(Access):
    """Reads the status of `queues` (input lists), or of all known queues and topics if none are named.

    `redis` is a URL, or a client that is used and not closed.
    """

    def __init__(self, redis: str | Client, queues: Sequence[str] = ()) -> None:
        """Raises ConfigurationError where the URL is not valid."""
        super().__init__(redis)
        self._queues = list(dict.fromkeys(queues))

    async def read(self) -> Status:
        """The status just now, in few round trips, however many queues and workers there are.

        Supervisors and cron jobs belong to it where no queues are named.
        Raises Disconnected, and Refused where no queue can be looked into.
        """
        names, problems = (self._queues, []) if self._queues else await self._known()
        replies: list[Any] = []
        for start in range(0, len(names), _PAGE):
            replies += await self._inspect([Keys(name) for name in names[start : start + _PAGE]])
        if replies and all(isinstance(reply, Exception) for reply in replies):
            raise replies[0]
        status = _status(zip(names, replies, strict=True))
        if self._queues:
            return status
        supervisors = await self._if_allowed(read_supervisors, SUPERVISORS, problems)
        jobs = await self._if_allowed(read_jobs, CRON, problems)
        return replace(status, queues=[*status.queues, *problems], supervisors=supervisors, jobs=jobs)

    async def _if_allowed(
        self, read: Callable[[Connection], Awaitable[list[T]]], key: str, problems: list[QueueStatus]
    ) -> list[T]:
        """What `read` returns; nothing for a user who may not look there, and still is shown the queues."""
        try:
            return await read(self._connection)
        except WrongType as error:
            problems.append(QueueStatus(key, problem=str(error)))
        except Refused:
            pass
        return []

    async def _known(self) -> tuple[list[str], list[QueueStatus]]:
        """The lists of all known queues and topics, and in place of queues what is wrong with the registries."""
        names: set[str] = set()
        problems: list[QueueStatus] = []
        for key, list_of in ((QUEUES, str), (TOPICS, topic_list)):
            try:
                known, strange = readable(await call_on(self._connection, key, "set", "SMEMBERS"))
            except DamagedKey as damaged:
                problems.append(QueueStatus(key, problem=str(damaged)))
                continue
            except Refused as error:
                raise Refused(f"the known queues cannot be read, so name some with --input: {error}") from error
            names.update(map(list_of, known))
            problems += [QueueStatus(key, problem=text) for text in strangers(key, strange)]
        return sorted(names), problems

    async def _inspect(self, queues: list[Keys]) -> list[Any]:
        """The reply of the script for each, or its error. The first one brings the script to the server."""
        first = await self._inspect_one(queues[0])
        if len(queues) == 1:
            return [first]
        digest = script("inspect").digest
        commands = []
        for queue in queues[1:]:
            keys, arguments = _asked(queue)
            commands.append(("EVALSHA", digest, len(keys), *keys, *arguments))
        replies = await self._connection.together(*commands, patience=PATIENCE)
        for position, reply in enumerate(replies):
            if isinstance(reply, UnknownScript):  # in a cluster it lies on another node
                replies[position] = await self._inspect_one(queues[1 + position])
        return [first, *replies]

    async def _inspect_one(self, queue: Keys) -> Any:
        keys, arguments = _asked(queue)
        try:
            return await self._connection.run("inspect", keys, arguments)
        except Refused as error:
            return error


def _asked(queue: Keys) -> tuple[list[str], list[str]]:
    keys = [queue.waiting, queue.delayed, queue.dead, queue.dropped, queue.workers, queue.presence]
    return keys, [queue.inflight(""), ARRIVED]


def wrong_types(queue: Keys, types: Sequence[bytes]) -> list[DamagedKey]:
    """Those of the keys that were looked into that hold another type than they should, `types` being what they hold."""
    expected = {queue.waiting: "list"} | queue.types
    return [
        DamagedKey(key, found.decode(), expected[key])
        for key, found in zip(_asked(queue)[0], types, strict=True)
        if found.decode() not in (expected[key], "none")
    ]


def _members(value: Any) -> Any:
    """A named tuple with its names, which orjson does not know of. Raises TypeError for anything else."""
    if isinstance(value, PartStatus):
        return value._asdict()
    raise TypeError


def _status(replies: Iterable[tuple[str, Any]]) -> Status:
    queues: list[QueueStatus] = []
    workers: list[WorkerStatus] = []
    at = 0.0
    for name, reply in replies:
        if isinstance(reply, Exception):
            queues.append(QueueStatus(name, problem=str(reply)))
            continue
        now, waiting, delayed, dead, dropped, types, *rest = reply
        at = max(at, now / 1000)
        its = [_worker(name, now / 1000, *rest[start : start + 4]) for start in range(0, len(rest), 4)]
        alive = [worker for worker in its if worker.alive]
        in_flight, rate = sum(worker.in_flight for worker in its), sum(worker.rate for worker in alive)
        problem = "; ".join(map(str, wrong_types(Keys(name), types))) or None
        queues.append(
            QueueStatus(name, waiting, delayed, in_flight, dead, dropped, round(rate, 1), len(alive), problem)
        )
        workers += its
    workers.sort(key=lambda worker: (worker.alive, worker.queue, worker.name))
    return Status(at or time.time(), queues, workers)


def _worker(queue: str, now: float, name: bytes, ends: int, in_flight: int, described: bytes) -> WorkerStatus:
    lease = round(ends / 1000 - now, 3)
    known = (queue, name.decode(errors="replace"), lease > 0, lease, in_flight)
    try:
        said = orjson.loads(described)
        seen = max(0.0, round(now - number(said, "published_at"), 3))
        return WorkerStatus(
            *known,
            seen=seen,
            host=text(said, "host"),
            pid=whole(said, "pid"),
            version=text(said, "version"),
            processor=text(said, "processor"),
            concurrency=whole(said, "concurrency"),
            running=whole(said, "running"),
            tasks=[_running(task, seen) for task in said["tasks"]],
            rate=number(said, "rate"),
            counters={name: whole(said["counters"], name) for name in said["counters"]},
            started_at=number(said, "started_at"),
        )
    except (ValueError, KeyError, TypeError):
        return WorkerStatus(*known)  # it has said nothing yet, or is of another version


def _running(said: Mapping[str, Any], seen: float) -> RunningTask:
    return RunningTask(text_or_none(said, "id"), round(number(said, "seconds") + seen, 3))
