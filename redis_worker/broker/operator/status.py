"""Status of queues and their workers, from the server and from the workers' descriptions."""

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
from redis_worker.broker.operator.announced import number, text, text_or_none, whole
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.broker.operator.run_each import Call, run_each
from redis_worker.broker.operator.supervisors import SupervisorStatus, read_supervisors
from redis_worker.engine.histogram import LATENCY_BOUNDS, PROCESSING_BOUNDS
from redis_worker.vocabulary.errors import DamagedKey, Refused, WrongType
from redis_worker.vocabulary.partition import GroupStatus

T = TypeVar("T")

# Seconds of silence after which an idle worker is taken for dead.
_SILENT = 30.0


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Status of a running task, as its worker publishes it."""

    id: str | None
    """None if missing, or if the task is too large to parse for a description."""
    seconds: float
    """Running time in seconds."""
    progress: str | None = None
    """Its last report, for people to read; None without one."""
    function: str | None = None
    """The function of a TaskQueue that it calls; None for the task of a processor or a handler."""


@dataclass(frozen=True, slots=True)
class FailureStatus:
    """Failures of a worker's tasks for one reason, since its start."""

    reason: str
    """The error's first line; numbers show as `N`."""
    count: int
    at: float
    """The time of the last one, in seconds since the epoch, by the worker's clock."""


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """Status of a worker with a lease, current or expired and not yet recovered by another worker.

    Fields from its description are None, empty or 0 until it publishes one, or if it lacks the permission.
    """

    queue: str
    name: str
    alive: bool
    """True if its lease is current, by the server's clock; else it is stale: other workers soon take its tasks."""
    lease: float
    """Seconds until the lease expires; 0 or below after that. That of an idle worker has up to an hour."""
    in_flight: int
    """Claimed tasks not yet settled: running, or about to run."""
    seen: float | None = None
    """Seconds since it was last heard of: about once a second, unless its event loop is blocked."""
    host: str | None = None
    pid: int | None = None
    version: str | None = None
    processor: str | None = None
    """Name of the processor or handler."""
    concurrency: int | None = None
    running: int = 0
    """Number of running tasks (or batches)."""
    tasks: list[TaskStatus] = field(default_factory=list)
    """Up to 20 running tasks, longest running first."""
    rate: float = 0.0
    """Tasks settled per second."""
    counters: dict[str, int] = field(default_factory=dict)
    """The fields of Counters, and `processed`."""
    started_at: float | None = None
    """In seconds since the epoch, by the worker's clock."""
    processing: list[int] = field(default_factory=list)
    """Counts of sampled run times, by PROCESSING_BOUNDS, and those above."""
    latency: list[int] = field(default_factory=list)
    """Counts of sampled times from creation to the first claim, by LATENCY_BOUNDS, and those above."""
    failures: list[FailureStatus] = field(default_factory=list)
    """The last reasons of failures, the least recent first."""


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
            worker = _worker(name, now / 1000, worker_name, ends, held, described, heard)
            # It holds nothing, so that no other worker deletes it.
            if not (rests and worker.seen is not None and worker.seen > _SILENT):
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


def _worker(
    queue: str, now: float, name: bytes, ends: int, in_flight: int, described: bytes, heard: Mapping[str, float]
) -> WorkerStatus:
    lease = round(ends / 1000 - now, 3)
    known = (queue, name.decode(errors="replace"), lease > 0, lease, in_flight)
    try:
        members = orjson.loads(described)
        age = now - number(members, "published_at")
        # An idle worker does not describe itself again; its process is heard of.
        seen = max(0.0, round(min(age, now - heard.get(members.get("process"), 0.0) / 1000), 3))
        return WorkerStatus(
            *known,
            seen=seen,
            host=text(members, "host"),
            pid=whole(members, "pid"),
            version=text(members, "version"),
            processor=text(members, "processor"),
            concurrency=whole(members, "concurrency"),
            running=whole(members, "running"),
            tasks=[_running(task, age) for task in members["tasks"]],
            rate=number(members, "rate"),
            counters={name: whole(members["counters"], name) for name in members["counters"]},
            started_at=number(members, "started_at"),
            **_vitals(members.get("vitals", {})),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return WorkerStatus(*known)  # no description yet, or one of another version


def _vitals(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that hold vitals; none for a worker of an older version."""
    return {
        "processing": _counts(members.get("processing", ()), PROCESSING_BOUNDS),
        "latency": _counts(members.get("latency", ()), LATENCY_BOUNDS),
        "failures": [
            FailureStatus(str(reason), int(count), float(at)) for reason, count, at in members.get("failures", ())
        ],
    }


def _counts(counts: Sequence[Any], bounds: Sequence[float]) -> list[int]:
    return [int(count) for count in counts] if len(counts) == len(bounds) + 1 else []


def _running(members: Mapping[str, Any], age: float) -> TaskStatus:
    seconds = round(number(members, "seconds") + age, 3)
    members = {"progress": None, "function": None, **members}
    return TaskStatus(
        *(text_or_none(members, "id"), seconds, text_or_none(members, "progress"), text_or_none(members, "function"))
    )
