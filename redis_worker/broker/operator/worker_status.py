"""Status of a worker, from its lease and its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from redis_worker.broker.operator.announced import number, text, text_or_none, whole
from redis_worker.engine.histogram import LATENCY_BOUNDS, PROCESSING_BOUNDS

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

    @property
    def is_silent(self) -> bool:
        """True if it has not been heard of for so long that an idle worker is taken for dead."""
        return self.seen is not None and self.seen > _SILENT


def worker_status(
    queue: str, now: float, name: bytes, ends: int, in_flight: int, described: bytes, heard: Mapping[str, float]
) -> WorkerStatus:
    """Return the status of the worker `name` on `queue` at the time `now`.

    `ends` is the end of its lease, in ms, `described` its description, and `heard` when its process was heard of.
    """
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
