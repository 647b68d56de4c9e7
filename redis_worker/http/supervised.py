"""The metrics that only a supervisor has, in Prometheus's words: of its parts and of its cron jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from redis_worker.http.buckets import buckets
from redis_worker.http.metrics import JobMetrics
from redis_worker.http.subject import Supervised
from redis_worker.vocabulary.service import READY

_LABELS = ("part", "kind")


def parts(service: Supervised) -> Iterator[Metric]:
    """Of each part."""
    ready = GaugeMetricFamily(
        "redis_worker_part_ready", "1 while the part runs, or has ended as it should, else 0.", labels=_LABELS
    )
    restarts = CounterMetricFamily(
        "redis_worker_part_restarts", "How often the part was started again.", labels=_LABELS
    )
    for part in service.parts():
        ready.add_metric((part.name, part.kind), float(part.state in READY))
        restarts.add_metric((part.name, part.kind), part.restarts)
    yield ready
    yield restarts


def jobs(jobs: Mapping[str, JobMetrics]) -> Iterator[Metric]:
    """Of each cron job, which is a part; a label `job` is Prometheus's own, for what it scrapes."""
    runs = CounterMetricFamily(
        "redis_worker_cron_runs", "Runs of the job here, by what became of them.", labels=("part", "outcome")
    )
    seconds = HistogramMetricFamily("redis_worker_cron_run_seconds", "How long runs took.", labels=("part",))
    succeeded = GaugeMetricFamily(
        "redis_worker_cron_last_success_timestamp_seconds",
        "When a run here last succeeded, in seconds since the epoch.",
        labels=("part",),
    )
    for name, job in jobs.items():
        for outcome, count in job.outcomes.items():
            runs.add_metric((name, outcome), count)
        seconds.add_metric((name,), buckets(job.seconds), job.seconds.sum)
        if job.succeeded_at is not None:
            succeeded.add_metric((name,), job.succeeded_at)
    yield from (runs, seconds, succeeded)
