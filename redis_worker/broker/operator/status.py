"""Status of queues, and of all that works on them, read from the server."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import orjson

from redis_worker.broker.client.access import Access
from redis_worker.broker.client.delayed_tasks import with_scores
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import call_on, readable, strangers
from redis_worker.broker.keys import (
    ARRIVED,
    BUNDLES,
    CRON,
    PROCESSES,
    QUEUES,
    SUPERVISORS,
    TASKS,
    TOPICS,
    Keys,
    topic_list,
)
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.broker.operator.run_each import Call, run_each
from redis_worker.broker.operator.supervisors import SupervisorStatus, read_supervisors
from redis_worker.broker.operator.worker_status import WorkerStatus, worker_status
from redis_worker.vocabulary.errors import DamagedKey, Refused, WrongType
from redis_worker.vocabulary.partition import GroupStatus

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Status of a queue."""

    name: str
    waiting: int = 0
    delayed: int = 0
    in_flight: int = 0
    dead: int = 0
    """Dead letters."""
    dropped: int = 0
    """Dead letters dropped because the list was full."""
    rate: float = 0.0
    """Tasks settled per second, by all live workers together."""
    workers: int = 0
    """Number of live workers."""
    paused: bool = False
    problem: str | None = None
    """The reason why the queue, or a part of it, cannot be read."""
    parked: int = 0
    """Steps of flows that wait for other tasks."""


@dataclass(frozen=True, slots=True)
class Status:
    """Status of all queues and workers at one moment."""

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
    kafka: list[GroupStatus] = field(default_factory=list)
    """Topics of the Kafka parts of a file, in its order."""

    def json(self) -> bytes:
        """Return the status as one JSON object."""
        return orjson.dumps(self, default=lambda row: row._asdict())


class StatusReader(Access):
    """Reader of the status of `queues` (input lists), or of all known queues and topics by default.

    `redis` is a URL, or a client that stays open.
    """

    def __init__(self, redis: str | Client | Address, queues: Sequence[str] = ()) -> None:
        """Raises ConfigurationError for an invalid URL."""
        super().__init__(redis)
        self._queues = list(dict.fromkeys(queues))

    async def read(self) -> Status:
        """Return the current status, in few round trips for any number of queues and workers.

        It includes supervisors and cron jobs unless queues are named.
        Raises Disconnected, and Refused if no queue can be read.
        """
        names, problems = (self._queues, []) if self._queues else await self._known()
        replies = await run_each(self._connection, "inspect", [_script_arguments(Keys(name)) for name in names])
        if replies and all(isinstance(reply, Exception) for reply in replies):
            raise replies[0]
        status = _status(zip(names, replies, strict=True), await self._heard())
        if self._queues:
            return status
        supervisors = await self._if_allowed(read_supervisors, SUPERVISORS, problems)
        jobs = await self._if_allowed(read_jobs, CRON, problems)
        return replace(status, queues=[*status.queues, *problems], supervisors=supervisors, jobs=jobs)

    async def supervisors(self) -> list[SupervisorStatus]:
        """Return all supervisors. Raises Disconnected and Refused."""
        return await read_supervisors(self._connection)

    async def _if_allowed(
        self, read: Callable[[Connection], Awaitable[list[T]]], key: str, problems: list[QueueStatus]
    ) -> list[T]:
        """Return the result of `read`; nothing without read permission, so that the queues still are shown."""
        try:
            return await read(self._connection)
        except WrongType as error:
            problems.append(QueueStatus(key, problem=str(error)))
        except Refused:
            pass
        return []

    async def _heard(self) -> dict[str, float]:
        """Return when each process was last heard of, in ms of the server's clock; nothing without permission."""
        try:
            found = await call_on(self._connection, PROCESSES, "zset", "ZRANGE", 0, -1, "WITHSCORES")
        except Refused:
            return {}
        return {name.decode(errors="replace"): at for name, at in with_scores(found)}

    async def _known(self) -> tuple[list[str], list[QueueStatus]]:
        """Return the lists of all known queues and topics, and problems of the registries in place of queues."""
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


def _script_arguments(queue: Keys) -> Call:
    keys = [queue.waiting, queue.delayed, queue.dead, queue.dropped, queue.workers, queue.presence]
    return [*keys, queue.flow, queue.paused], [queue.listed(""), TASKS, ARRIVED, BUNDLES]


def wrong_types(queue: Keys, types: Sequence[bytes]) -> list[DamagedKey]:
    """Return an error for each inspected key of a wrong type; `types` are the types found, in the script's order."""
    expected = {queue.waiting: "list", queue.flow: "hash"} | queue.types  # a pause may hold any type
    return [
        DamagedKey(key, found.decode(), expected[key])
        for key, found in zip(_script_arguments(queue)[0], types, strict=True)
        if key in expected and found.decode() not in (expected[key], "none")
    ]


def _status(replies: Iterable[tuple[str, Any]], heard: Mapping[str, float]) -> Status:
    queues: list[QueueStatus] = []
    workers: list[WorkerStatus] = []
    at = 0.0
    for name, reply in replies:
        if isinstance(reply, Exception):
            queues.append(QueueStatus(name, problem=str(reply)))
            continue
        now, waiting, delayed, dead, dropped, parked, types, *rest = reply
        at = max(at, now / 1000)
        queue_workers = []
        for start in range(0, len(rest), 5):
            worker_name, ends, rests, held, described = rest[start : start + 5]
            worker = worker_status(name, now / 1000, worker_name, ends, held, described, heard)
            # It holds nothing, so that no other worker deletes it.
            if not (rests and worker.is_silent):
                queue_workers.append(worker)
        alive = [worker for worker in queue_workers if worker.alive]
        in_flight, rate = sum(worker.in_flight for worker in queue_workers), sum(worker.rate for worker in alive)
        problem = "; ".join(map(str, wrong_types(Keys(name), types))) or None
        queues.append(
            QueueStatus(
                *(name, waiting, delayed, in_flight, dead, dropped, round(rate, 1), len(alive)),
                paused=types[-1] != b"none",
                problem=problem,
                parked=parked,
            )
        )
        workers += queue_workers
    workers.sort(key=lambda worker: (worker.alive, worker.queue, worker.name))
    return Status(at or time.time(), queues, workers)
