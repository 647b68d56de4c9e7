"""The metrics of a supervisor's parts and cron jobs, as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from redis_worker.http.metrics import JobMetrics
from redis_worker.http.subject import Supervised
from redis_worker.vocabulary.service import READY

_LABELS = ("part", "kind")


def parts(service: Supervised) -> Iterator[Metric]:
    """Return the metrics of each part."""
    ready = GaugeMetricFamily(
        "redis_worker_part_ready", "1 while the part runs, or after it returned, else 0.", labels=_LABELS
    )
    restarts = CounterMetricFamily("redis_worker_part_restarts", "Restarts of the part.", labels=_LABELS)
    for part in service.parts():
        ready.add_metric((part.name, part.kind), float(part.state in READY))
        restarts.add_metric((part.name, part.kind), part.restarts)
    yield ready
    yield restarts


def jobs(jobs: Mapping[str, JobMetrics]) -> Iterator[Metric]:
    """Return the metrics of each cron job, labelled `part`: Prometheus uses `job` for its targets."""
    runs = CounterMetricFamily(
        "redis_worker_cron_runs", "Runs of the job here, by outcome.", labels=("part", "outcome")
    )
    seconds = HistogramMetricFamily("redis_worker_cron_run_seconds", "Run time of the job.", labels=("part",))
    succeeded = GaugeMetricFamily(
        "redis_worker_cron_last_success_timestamp_seconds",
        "Time of the last success here, in seconds since the epoch.",
        labels=("part",),
    )
    for name, job in jobs.items():
        for outcome, count in job.outcomes.items():
            runs.add_metric((name, outcome), count)
        seconds.add_metric((name,), job.seconds.cumulative(), job.seconds.sum)
        if job.succeeded_at is not None:
            succeeded.add_metric((name,), job.succeeded_at)
    yield from (runs, seconds, succeeded)
