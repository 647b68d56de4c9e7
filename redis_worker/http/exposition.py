"""Metrics in Prometheus's words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from redis_worker.broker.operator.depth import Depth
from redis_worker.http.buckets import buckets
from redis_worker.http.metrics import Measured, Metrics, QueueMetrics
from redis_worker.http.processes import processes
from redis_worker.http.subject import Served, Supervised, not_ready
from redis_worker.http.supervised import jobs, parts
from redis_worker.vocabulary.service import Consuming
from redis_worker.vocabulary.stamps import made_at

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABELS = ("queue", "processor")
Queues = Mapping[Measured, QueueMetrics]
Depths = Mapping[tuple[str, str], Depth]
"""By part and queue."""


class Exposition:
    """The metrics of a worker, or of a supervisor, at one moment, as text."""

    def __init__(self, service: Served, metrics: Metrics, depths: Depths, lag: float) -> None:
        labels = (*_LABELS, "part") if isinstance(service, Supervised) else _LABELS
        queues = metrics.queues
        self._families = [
            *processes(metrics.processes), *_process(service, lag),
            *_counted(queues, labels), *_measured(queues, labels), *_gauges(service, depths, labels),
        ]  # fmt: skip
        if isinstance(service, Supervised):
            self._families += [*parts(service), *jobs(metrics.jobs)]

    def text(self) -> bytes:
        """In the text format, in UTF-8."""
        # One of its own, for the moment: what the host application keeps in the global one is no concern of ours.
        registry = CollectorRegistry()
        registry.register(_Given(self._families))
        return generate_latest(registry)


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _process(service: Served, lag: float) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "redis_worker_ready", "1 while connected and claiming, else 0.", float(not_ready(service) is None)
    )
    yield CounterMetricFamily(
        "redis_worker_reconnects", "Connections to Redis found again after they were lost.", service.counters.reconnects
    )
    yield GaugeMetricFamily("redis_worker_loop_lag_seconds", "The latest that the event loop was of late.", lag)


def _counted(queues: Queues, names: Sequence[str]) -> Iterator[Metric]:
    tasks = CounterMetricFamily(
        "redis_worker_tasks", "Tasks handled, by what became of them.", labels=(*names, "outcome")
    )
    for measured, metrics in queues.items():
        labels = measured[: len(names)]
        for outcome, count in metrics.outcomes.items():
            tasks.add_metric((*labels, outcome), count)
    retries, dead, redeliveries, recovered = (
        CounterMetricFamily(f"redis_worker_{name}", text, labels=names)
        for name, text in (
            ("retries", "Tasks put off, to be tried again."),
            ("dead_letters", "Tasks that became dead letters."),
            ("redeliveries", "Tasks claimed after a worker had died holding them."),
            ("recovered", "Tasks of dead workers returned to the queue."),
        )
    )
    for measured, metrics in queues.items():
        labels = measured[: len(names)]
        retries.add_metric(labels, metrics.outcomes["retried"])
        dead.add_metric(labels, metrics.outcomes["dead"])
        redeliveries.add_metric(labels, metrics.counters.redelivered)
        recovered.add_metric(labels, metrics.counters.recovered)
    yield from (tasks, retries, dead, redeliveries, recovered)


def _measured(queues: Queues, names: Sequence[str]) -> Iterator[Metric]:
    processing = HistogramMetricFamily(
        "redis_worker_processing_seconds", "How long tasks ran, whatever became of them.", labels=names
    )
    latency = HistogramMetricFamily(
        "redis_worker_queue_latency_seconds",
        "From the time a task says it was made to its first claim; of a sample of at most 10 tasks a claim.",
        labels=names,
    )
    for measured, metrics in queues.items():
        labels = measured[: len(names)]
        processing.add_metric(labels, buckets(metrics.processing), metrics.processing.sum)
        latency.add_metric(labels, buckets(metrics.latency), metrics.latency.sum)
    yield processing
    yield latency


def _gauges(service: Served, depths: Depths, names: Sequence[str]) -> Iterator[Metric]:
    in_flight, waiting, delayed, dead, oldest = (
        GaugeMetricFamily(f"redis_worker_{name}", text, labels=names)
        for name, text in (
            ("in_flight", "Tasks claimed by this process and not settled."),
            ("queue_depth", "Tasks that wait in the queue."),
            ("delayed", "Tasks put off, waiting for their time."),
            ("dead_letters", "Dead letters there are."),
            ("oldest_waiting_age_seconds", "How long ago the task that is next says it was made; 0 when none waits."),
        )
    )
    for measured, held in _in_flight(service.consuming()).items():
        labels = measured[: len(names)]
        in_flight.add_metric(labels, held)
        if depth := depths.get((measured.part, measured.queue)):
            for family, value in ((waiting, depth.waiting), (delayed, depth.delayed), (dead, depth.dead)):
                if value is not None:
                    family.add_metric(labels, value)
            if (age := _age(depth)) is not None:
                oldest.add_metric(labels, age)
    yield from (in_flight, waiting, delayed, dead, oldest)


def _in_flight(consuming: Iterable[Consuming]) -> dict[Measured, int]:
    """Of all processes of a part together."""
    held: dict[Measured, int] = {}
    for each in consuming:
        measured = Measured(each.queue, each.processor, each.part)
        held[measured] = held.get(measured, 0) + each.in_flight
    return held


def _age(depth: Depth) -> float | None:
    if depth.waiting == 0:
        return 0.0
    made = None if depth.head is None else made_at(depth.head)
    return None if made is None else max(0.0, time.time() - made)
