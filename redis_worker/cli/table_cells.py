"""Cells of the tables of parts and cron jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from redis_worker.broker.operator.cron_status import JobStatus
from redis_worker.broker.operator.status import Status
from redis_worker.broker.operator.supervisors import SupervisorStatus
from redis_worker.vocabulary.partition import GroupStatus
from redis_worker.vocabulary.service import READY, PartStatus

NONE = "-"
PART_TEXTS = ("supervisor", "part", "kind", "error", "job", "schedule", "zone", "outcome", "topic", "group")
"""Headings of left-aligned columns."""


class Part(NamedTuple):
    """A part and its supervisor."""

    supervisor: SupervisorStatus
    part: PartStatus

    @property
    def state(self) -> str:
        """The last announced state; "stale" if the supervisor is silent."""
        return self.part.state if self.supervisor.alive else "stale"


class Job(NamedTuple):
    """A cron job, at a time of the server's clock."""

    job: JobStatus
    now: float


def parts_of(status: Status) -> list[Part]:
    """Return all parts: failed ones first, then stale ones, then those not ready."""
    parts = [Part(supervisor, part) for supervisor in status.supervisors for part in supervisor.parts]
    return sorted(parts, key=_urgency)


def _urgency(part: Part) -> int:
    if part.state in READY:
        return 3
    return {"failed": 0, "stale": 1}.get(part.state, 2)


def jobs_of(status: Status) -> list[Job]:
    """Return all cron jobs, those without success in their last run first."""
    jobs = [Job(job, status.at) for job in status.jobs]
    return sorted(jobs, key=lambda job: _is_well(job.job))


def _is_well(job: JobStatus) -> bool:
    return job.problem is None and (job.outcome is None or job.outcome.partition(" ")[0] == "success")


def age(seconds: float | None) -> str:
    """Return a duration as a short text."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.0f}h"


def when(at: float | None, now: float) -> str:
    """Return the time between `at` and `now` as text: "5s ago" or "in 5s"."""
    if at is None:
        return NONE
    return f"in {age(at - now)}" if at > now else f"{age(now - at)} ago"


def outcome(job: JobStatus) -> str:
    """Return the outcome of the last run, and the current runs."""
    runs = "running" if job.running == 1 else f"{job.running} running"
    return ", ".join(filter(None, (job.outcome, runs if job.running else None))) or NONE


# The least important columns come last: a narrow terminal drops them.
PART: dict[str, Callable[[Part], str]] = {
    "state": lambda each: each.state,
    "supervisor": lambda each: each.supervisor.name,
    "part": lambda each: each.part.name,
    "kind": lambda each: each.part.kind,
    "restarts": lambda each: f"{each.part.restarts:,}",
    "lag": lambda each: NONE if each.part.lag is None else f"{each.part.lag:,}",
    "error": lambda each: each.part.error or NONE,
    "host": lambda each: each.supervisor.host,
    "pid": lambda each: str(each.supervisor.pid),
}
GROUP: dict[str, Callable[[GroupStatus], str]] = {
    "part": lambda each: each.part,
    "topic": lambda each: each.topic,
    "group": lambda each: each.group,
    "partitions": lambda each: str(each.partitions),
    "members": lambda each: NONE if each.members is None else str(each.members),
    "lag": lambda each: NONE if each.lag is None else f"{each.lag:,}",
    "problem": lambda each: each.problem or NONE,
}
PART_WITHOUT_LAG = {heading: cell for heading, cell in PART.items() if heading != "lag"}
JOB: dict[str, Callable[[Job], str]] = {
    "job": lambda each: f"{each.job.app}/{each.job.name}",
    "schedule": lambda each: each.job.schedule or NONE,
    "zone": lambda each: each.job.timezone or NONE,
    "last": lambda each: when(each.job.finished, each.now),
    "outcome": lambda each: outcome(each.job),
    "duration": lambda each: age(each.job.duration),
    "next": lambda each: when(each.job.next, each.now),
    "error": lambda each: each.job.problem or each.job.error or NONE,
}
