"""What the tables of parts and of cron jobs show."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from redis_worker.broker.operator.cron_status import JobStatus
from redis_worker.broker.operator.status import Status
from redis_worker.broker.operator.supervisors import SupervisorStatus
from redis_worker.vocabulary.service import READY, PartStatus

NONE = "-"
PART_TEXTS = ("supervisor", "part", "kind", "error", "job", "schedule", "zone", "outcome")
"""The headings of what is aligned to the left."""


class Part(NamedTuple):
    """A part, and the supervisor that runs it."""

    supervisor: SupervisorStatus
    part: PartStatus

    @property
    def state(self) -> str:
        """As it was when the supervisor was last heard of; of one that is silent nobody knows."""
        return self.part.state if self.supervisor.alive else "stale"


class Job(NamedTuple):
    """A cron job, at a moment of the server's clock."""

    job: JobStatus
    now: float


def parts_of(status: Status) -> list[Part]:
    """All parts; those that have failed first, then those that nobody knows of, or that are not ready."""
    parts = [Part(supervisor, part) for supervisor in status.supervisors for part in supervisor.parts]
    return sorted(parts, key=_urgency)


def _urgency(part: Part) -> int:
    if part.state in READY:
        return 3
    return {"failed": 0, "stale": 1}.get(part.state, 2)


def jobs_of(status: Status) -> list[Job]:
    """All cron jobs; those first whose last run was no success."""
    jobs = [Job(job, status.at) for job in status.jobs]
    return sorted(jobs, key=lambda job: _is_well(job.job))


def _is_well(job: JobStatus) -> bool:
    return job.problem is None and (job.outcome is None or job.outcome.partition(" ")[0] == "success")


def age(seconds: float | None) -> str:
    """So many seconds, as short as can be."""
    if seconds is None:
        return NONE
    if seconds < 120:
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds < 7200 else f"{seconds / 3600:.0f}h"


def when(at: float | None, now: float) -> str:
    """How long ago that was, or in how long it will be."""
    if at is None:
        return NONE
    return f"in {age(at - now)}" if at > now else f"{age(now - at)} ago"


def outcome(job: JobStatus) -> str:
    """What became of its last run, and what runs."""
    runs = "running" if job.running == 1 else f"{job.running} running"
    return ", ".join(filter(None, (job.outcome, runs if job.running else None))) or NONE


# Those that matter least stand last: a narrow terminal has no room for them.
PART: dict[str, Callable[[Part], str]] = {
    "state": lambda each: each.state,
    "supervisor": lambda each: each.supervisor.name,
    "part": lambda each: each.part.name,
    "kind": lambda each: each.part.kind,
    "restarts": lambda each: f"{each.part.restarts:,}",
    "error": lambda each: each.part.error or NONE,
    "host": lambda each: each.supervisor.host,
    "pid": lambda each: str(each.supervisor.pid),
}
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
