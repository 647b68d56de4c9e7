"""Status of all applications' cron jobs, from the records in Redis."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import call_on, readable
from redis_worker.broker.keys import CRON, CronKeys
from redis_worker.broker.operator.run_each import Call, run_each
from redis_worker.vocabulary.errors import Refused

_COUNT = "count:"
# A number in the record; another program wrote anything else.
_INTEGER = re.compile("-?[0-9]{1,15}")
# Items of the script's reply before the job's record.
_BEFORE_RECORD = 4


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Status of a cron job. Times are in seconds since the epoch, by the server's clock; None if unknown."""

    name: str
    app: str
    schedule: str = ""
    timezone: str = ""
    next: float | None = None
    """The next instant to fire. If long past, no process schedules the job any more."""
    instant: float | None = None
    """The instant of the last finished run; for a run by hand, its start."""
    started: float | None = None
    """Start of that run."""
    finished: float | None = None
    duration: float | None = None
    """Duration of that run in seconds, including all attempts."""
    outcome: str | None = None
    """Its outcome: "success", "error", "timeout", "cancelled" or "lost" (its process died);
    followed by " by hand" for a run by hand."""
    error: str | None = None
    """The error text, in one line."""
    worker: str | None = None
    """Host and process id of that run."""
    running: int = 0
    """Number of current runs in the whole fleet."""
    since: float | None = None
    """Start of the oldest current run."""
    queued: int = 0
    """Number of instants waiting for the current run to end."""
    counts: dict[str, int] = field(default_factory=dict)
    """Count of each outcome; also "skipped" (a run was active) and "missed" (no process fired it in time)."""
    problem: str | None = None
    """The reason why the status cannot be read."""


async def read_jobs(connection: Connection) -> list[JobStatus]:
    """Return all registered jobs, by application and name, in few round trips. Raises Disconnected or Refused."""
    known = await call_on(connection, CRON, "hash", "HGETALL")
    pairs = list(known.items() if isinstance(known, dict) else zip(known[::2], known[1::2], strict=True))
    jobs = sorted((name.decode(), CronKeys(stem.decode())) for name, stem in pairs if _is_text(name, stem))
    replies = await run_each(connection, "cron_read", [_script_arguments(keys) for _, keys in jobs])
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
    """Remove jobs with expired keys from the registry; a process that schedules one registers it again."""
    try:
        await connection.call("HDEL", CRON, *names)
    except Refused:
        pass  # a reader needs no write permission


def _script_arguments(keys: CronKeys) -> Call:
    return [keys.running, keys.runs, keys.queued, keys.record], []


def _status(known_as: str, reply: Any) -> JobStatus:
    app, _, name = known_as.rpartition("/")
    if isinstance(reply, Exception):
        return JobStatus(name, app, problem=str(reply))
    _, running, since, queued, *rest = reply
    record = {_text(rest[at]): _text(rest[at + 1]) for at in range(0, len(rest), 2)}
    counted = {
        key.removeprefix(_COUNT): int(value)
        for key, value in record.items()
        if key.startswith(_COUNT) and _INTEGER.fullmatch(value)
    }
    times: dict[str, Any] = {
        time: _seconds(record.get(time)) for time in ("next", "instant", "started", "finished", "duration")
    }
    return JobStatus(
        name,
        app,
        **times,
        schedule=record.get("schedule", ""),
        timezone=record.get("timezone", ""),
        outcome=record.get("outcome"),
        error=record.get("error") or None,
        worker=record.get("worker"),
        running=running,
        since=since / 1000 if since >= 0 else None,
        queued=queued,
        counts={outcome: number for outcome, number in sorted(counted.items()) if number},
    )


def _seconds(ms: str | None) -> float | None:
    return int(ms) / 1000 if ms and _INTEGER.fullmatch(ms) else None


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
