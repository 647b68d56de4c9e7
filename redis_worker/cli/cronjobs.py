"""Implementation of `redis-worker cron`: listing jobs and running one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import click

from redis_worker.broker.cron import CronStore
from redis_worker.broker.operator.cron_status import JobStatus, read_jobs
from redis_worker.cli.describing import next_firing
from redis_worker.cli.printing import explained, print_json
from redis_worker.cli.table_cells import NONE, age, outcome, when
from redis_worker.cli.tables import Table, plain
from redis_worker.cron.job import CronJob
from redis_worker.cron.schedule import Schedule
from redis_worker.file.mistakes import near
from redis_worker.file.plan import JobPart, Plan
from redis_worker.file.reading import read_plan
from redis_worker.signals import stop_signals
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.text import visible


async def show_jobs(file: str, as_json: bool) -> None:
    """Print the status of each job of a file, in its order. Raises Disconnected, Refused and ConfigurationError."""
    parts = _jobs(read_plan(file))
    statuses: dict[tuple[str, str, str], JobStatus] = {}
    for url in {part.url for part in parts}:
        store = CronStore(url)
        try:
            with explained(url, "cannot read the status of the jobs"):
                statuses |= {(url, job.app, job.name): job for job in await read_jobs(store.connection)}
        finally:
            await store.close()
    now = datetime.now(UTC)
    rows = [_Row(part, statuses.get((part.url, part.settings.app, part.name)), now) for part in parts]
    if as_json:
        for row in rows:
            print_json(dumps(row.members()))
    else:
        cells = [[visible(cell(row)) for cell in _COLUMNS.values()] for row in rows]
        click.echo(plain(Table(list(_COLUMNS), cells, "" if cells else "no cron jobs")))


async def run_job(file: str, name: str) -> int:
    """Run a job of a file now and print the outcome. Return the exit code. Raises as `show_jobs` does."""
    part = _job(read_plan(file), name)
    store = CronStore(part.url)
    try:
        job = CronJob(part.settings, store)
        with explained(part.url, f"cannot run {part.name!r}"), stop_signals(job.cancel, job.cancel):
            ended = await job.run_once()
    finally:
        await store.close()
    error = f": {visible(ended.error)}" if ended.error else ""
    click.echo(f"{part.name}: {ended.outcome} after {ended.seconds:.3f} s{error}")
    return 0 if ended.outcome == "success" else 1


def _jobs(plan: Plan) -> list[JobPart]:
    return [part for part in plan.parts if isinstance(part, JobPart)]


def _job(plan: Plan, name: str) -> JobPart:
    """Return the job called `name`. Raises ConfigurationError if missing."""
    jobs = {job.name: job for job in _jobs(plan)}
    if name in jobs:
        return jobs[name]
    for qualified, reason in plan.left_out:
        if qualified == f"cron.{name}":
            raise ConfigurationError(f"{plan.path}: the cron job {name!r} does not run: {reason}")
    raise ConfigurationError(f"{plan.path}: no cron job {name!r}: {near(name, tuple(jobs))}")


class _Row(NamedTuple):
    part: JobPart
    status: JobStatus | None
    now: datetime

    def members(self) -> dict[str, object]:
        """Return the members of the JSON object."""
        settings, status = self.part.settings, self.status
        due = Schedule(settings.schedule, settings.timezone).next(self.now)
        members: dict[str, object] = {
            "name": settings.name,
            "schedule": settings.schedule,
            "timezone": settings.timezone,
            "next": due.isoformat(),
        }
        names = ("instant", "started", "duration", "outcome", "error", "worker", "running", "queued", "counts")
        return members | {name: None if status is None else getattr(status, name) for name in names}


_COLUMNS: dict[str, Callable[[_Row], str]] = {
    "job": lambda row: row.part.name,
    "schedule": lambda row: row.part.settings.schedule,
    "zone": lambda row: row.part.settings.timezone,
    "due": lambda row: next_firing(row.part, row.now),
    "last": lambda row: NONE if row.status is None else when(row.status.finished, row.now.timestamp()),
    "outcome": lambda row: NONE if row.status is None else outcome(row.status),
    "duration": lambda row: age(None if row.status is None else row.status.duration),
    "error": lambda row: (row.status and (row.status.problem or row.status.error)) or NONE,
}
