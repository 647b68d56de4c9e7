"""How the cron jobs of all applications stand, as the processes that run them have left it in Redis."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.connection.damaged_keys import call_on, readable
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.keys import CRON, CronKeys
from redis_worker.broker.scripts import script
from redis_worker.vocabulary.errors import Refused

# So many jobs are asked about at once.
_PAGE = 200
_COUNT = "count:"
# A number in the record; anything else was not written by a process of ours.
_INTEGER = re.compile("-?[0-9]{1,15}")
# What the script replies before the record of a job.
_BEFORE_RECORD = 4


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A cron job. Times are in seconds since the epoch, by the server's clock; None where there is nothing to tell."""

    name: str
    app: str
    schedule: str = ""
    timezone: str = ""
    next: float | None = None
    """The instant it is to be fired at next. One that is long past: no process has looked after it since."""
    instant: float | None = None
    """The instant that the last run to end was for; of one by hand, when it began."""
    started: float | None = None
    """When that run began."""
    finished: float | None = None
    duration: float | None = None
    """How many seconds it took, all its tries together."""
    outcome: str | None = None
    """What became of it: "success", "error", "timeout", "cancelled" or "lost" (its process died);
    with " by hand" after it where it was."""
    error: str | None = None
    """The text of its error, in one line."""
    worker: str | None = None
    """Where it ran: host and process id."""
    running: int = 0
    """How many runs go on, in the whole fleet."""
    since: float | None = None
    """When the first of them began."""
    queued: int = 0
    """How many instants wait until nothing runs."""
    counts: dict[str, int] = field(default_factory=dict)
    """How often each outcome came about; also "skipped" (something ran) and "missed" (nobody was there in time)."""
    problem: str | None = None
    """Why it cannot be looked into."""


async def read_jobs(connection: Connection) -> list[JobStatus]:
    """All jobs that were ever run, by application and name, in few round trips. Raises Disconnected or Refused."""
    known = await call_on(connection, CRON, "hash", "HGETALL")
    pairs = list(known.items() if isinstance(known, dict) else zip(known[::2], known[1::2], strict=True))
    jobs = sorted((name.decode(), CronKeys(stem.decode())) for name, stem in pairs if _is_text(name, stem))
    replies: list[Any] = []
    for start in range(0, len(jobs), _PAGE):
        replies += await _read(connection, [keys for _, keys in jobs[start : start + _PAGE]])
    forgotten = [name for (name, _), reply in zip(jobs, replies, strict=True) if _is_empty(reply)]
    if forgotten:
        await _forget(connection, forgotten)
    found = [_status(name, reply) for (name, _), reply in zip(jobs, replies, strict=True) if name not in forgotten]
    return [*found, *(_unreadable(name) for name, stem in pairs if not _is_text(name, stem))]


def _is_text(*names: bytes) -> bool:
    return not readable(names)[1]


def _unreadable(known_as: bytes) -> JobStatus:
    app, _, name = _text(known_as).rpartition("/")
    return JobStatus(name, app, problem=f"its name, or the name of its keys, in {CRON} is not UTF-8")


def _is_empty(reply: Any) -> bool:
    return not isinstance(reply, Exception) and len(reply) == _BEFORE_RECORD


async def _forget(connection: Connection, names: list[str]) -> None:
    """Take jobs whose keys have expired out of the registry; who looks after them enters them again."""
    try:
        await connection.call("HDEL", CRON, *names)
    except Refused:
        pass  # who looks need not have the right to change anything


async def _read(connection: Connection, jobs: list[CronKeys]) -> list[Any]:
    """The reply of the script for each, or its error. The first one brings the script to the server."""
    first = await _read_one(connection, jobs[0])
    if len(jobs) == 1:
        return [first]
    digest = script("cron_read").digest
    commands = [("EVALSHA", digest, 4, *_asked(keys)) for keys in jobs[1:]]
    replies = await connection.together(*commands, patience=PATIENCE)
    for position, reply in enumerate(replies):
        if isinstance(reply, UnknownScript):  # in a cluster it lies on another node
            replies[position] = await _read_one(connection, jobs[1 + position])
    return [first, *replies]


async def _read_one(connection: Connection, keys: CronKeys) -> Any:
    try:
        return await connection.run("cron_read", _asked(keys), [])
    except Refused as error:
        return error


def _asked(keys: CronKeys) -> list[str]:
    return [keys.running, keys.runs, keys.queued, keys.record]


def _status(known_as: str, reply: Any) -> JobStatus:
    app, _, name = known_as.rpartition("/")
    if isinstance(reply, Exception):
        return JobStatus(name, app, problem=str(reply))
    _, running, since, queued, *rest = reply
    said = {_text(rest[at]): _text(rest[at + 1]) for at in range(0, len(rest), 2)}
    counted = {
        key.removeprefix(_COUNT): int(value)
        for key, value in said.items()
        if key.startswith(_COUNT) and _INTEGER.fullmatch(value)
    }
    return JobStatus(
        name,
        app,
        schedule=said.get("schedule", ""),
        timezone=said.get("timezone", ""),
        next=_seconds(said.get("next")),
        instant=_seconds(said.get("instant")),
        started=_seconds(said.get("started")),
        finished=_seconds(said.get("finished")),
        duration=_seconds(said.get("duration")),
        outcome=said.get("outcome"),
        error=said.get("error") or None,
        worker=said.get("worker"),
        running=running,
        since=since / 1000 if since >= 0 else None,
        queued=queued,
        counts={outcome: number for outcome, number in sorted(counted.items()) if number},
    )


def _seconds(ms: str | None) -> float | None:
    return int(ms) / 1000 if ms and _INTEGER.fullmatch(ms) else None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
