"""Metrics in Prometheus's text format."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from redis_worker.broker.operator.depth import Depth
from redis_worker.http.metrics import Measured, Metrics, QueueMetrics
from redis_worker.http.processes import processes
from redis_worker.http.push.hub import Hub
from redis_worker.http.staged import staged
from redis_worker.http.streams import lags, streams
from redis_worker.http.subject import Served, Supervised, not_ready
from redis_worker.http.supervised import jobs, parts
from redis_worker.vocabulary.service import Consuming
from redis_worker.vocabulary.stamps import made_at

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_LABELS = ("queue", "processor")
Queues = Mapping[tuple[str, ...], QueueMetrics]
"""By labels."""
Depths = Mapping[tuple[str, str], Depth]
"""By part and queue."""


class Exposition:
    """The metrics of a worker, or of a supervisor, at one moment, as text."""

    def __init__(self, service: Served, metrics: Metrics, depths: Depths, lag: float, hub: Hub | None = None) -> None:
        labels = (*_LABELS, "part") if isinstance(service, Supervised) else _LABELS
        queues = {measured[: len(labels)]: of_queue for measured, of_queue in metrics.queues.items()}
        self._families = [
            *processes(metrics.processes), *_process(service, lag),
            *_counted(queues, labels), *_measured(queues, labels), *_gauges(service, depths, labels),
            *streams(queues, labels), *lags(service.consuming(), labels), *staged(queues, labels),
        ]  # fmt: skip
        if isinstance(service, Supervised):
            self._families += [*parts(service), *jobs(metrics.jobs)]
        if hub is not None:
            self._families += _push(hub)

    def text(self) -> bytes:
        """Return the text format, in UTF-8."""
        # Without a registry: the global one belongs to the host application.
        return generate_latest(_Families(self._families))


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _process(service: Served, lag: float) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "redis_worker_ready", "1 while connected and claiming, else 0.", float(not_ready(service) is None)
    )
    yield CounterMetricFamily("redis_worker_reconnects", "Reconnections to Redis.", service.counters.reconnects)
    yield GaugeMetricFamily("redis_worker_loop_lag_seconds", "The largest recent delay of the event loop.", lag)


def _push(hub: Hub) -> Iterator[Metric]:
    yield GaugeMetricFamily("redis_worker_push_clients", "Connected WebSocket clients.", len(hub.clients))
    counts = hub.counts
    yield CounterMetricFamily("redis_worker_push_events", "Events passed to WebSocket clients.", counts.events)
    yield CounterMetricFamily("redis_worker_push_lost", "Events that slow WebSocket clients lost.", counts.lost)
    yield CounterMetricFamily("redis_worker_push_cut", "Slow WebSocket clients that were cut off.", counts.cut)


def _counted(queues: Queues, names: Sequence[str]) -> Iterator[Metric]:
    tasks = CounterMetricFamily("redis_worker_tasks", "Tasks handled, by outcome.", labels=(*names, "outcome"))
    retries, dead, redeliveries, recovered = (
        CounterMetricFamily(f"redis_worker_{name}", text, labels=names)
        for name, text in (
            ("retries", "Retries of failed tasks."),
            ("dead_letters", "Tasks that became dead letters."),
            ("redeliveries", "Tasks claimed after a worker died holding them."),
            ("recovered", "Tasks of dead workers returned to the queue."),
        )
    )
    for labels, metrics in queues.items():
        outcomes, counters = metrics.outcomes, metrics.counters
        for outcome, count in outcomes.items():
            tasks.add_metric((*labels, outcome), count)
        retries.add_metric(labels, outcomes["retried"])
        dead.add_metric(labels, outcomes["dead"])
        redeliveries.add_metric(labels, counters.redelivered)
        recovered.add_metric(labels, counters.recovered)
    yield from (tasks, retries, dead, redeliveries, recovered)


def _measured(queues: Queues, names: Sequence[str]) -> Iterator[Metric]:
    processing = HistogramMetricFamily(
        "redis_worker_processing_seconds", "Run time of tasks, for every outcome.", labels=names
    )
    latency = HistogramMetricFamily(
        "redis_worker_queue_latency_seconds",
        "From a task's time of creation to its first claim; sampled, at most 10 tasks a claim.",
        labels=names,
    )
    for labels, metrics in queues.items():
        processing.add_metric(labels, metrics.processing.cumulative(), metrics.processing.sum)
        latency.add_metric(labels, metrics.latency.cumulative(), metrics.latency.sum)
    yield processing
    yield latency


def _gauges(service: Served, depths: Depths, names: Sequence[str]) -> Iterator[Metric]:
    in_flight, waiting, delayed, dead, oldest = (
        GaugeMetricFamily(f"redis_worker_{name}", text, labels=names)
        for name, text in (
            ("in_flight", "Tasks claimed by this process and not settled."),
            ("queue_depth", "Tasks waiting in the queue."),
            ("delayed", "Delayed tasks."),
            ("dead_letters", "Dead letters of the queue."),
            ("oldest_waiting_age_seconds", "Age of the next task, by its time of creation; 0 if none waits."),
        )
    )
    for measured, count in _in_flight(service.consuming()).items():
        labels = measured[: len(names)]
        in_flight.add_metric(labels, count)
        if depth := depths.get((measured.part, measured.queue)):
            for family, value in ((waiting, depth.waiting), (delayed, depth.delayed), (dead, depth.dead)):
                if value is not None:
                    family.add_metric(labels, value)
            if (age := _age(depth)) is not None:
                oldest.add_metric(labels, age)
    yield from (in_flight, waiting, delayed, dead, oldest)


def _in_flight(consuming: Iterable[Consuming]) -> dict[Measured, int]:
    """Return the tasks in flight, summed over the processes of each part."""
    totals: dict[Measured, int] = {}
    for queue in consuming:
        measured = Measured(queue.queue, queue.processor, queue.part)
        totals[measured] = totals.get(measured, 0) + queue.in_flight
    return totals


def _age(depth: Depth) -> float | None:
    if depth.waiting == 0:
        return 0.0
    made = None if depth.head is None else made_at(depth.head)
    return None if made is None else max(0.0, time.time() - made)
