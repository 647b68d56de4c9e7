"""The metrics of the stages of pipelines, as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric

from redis_worker.http.metrics import QueueMetrics

_EVENTS = ("received", "emitted", "dropped", "rejected", "failed")


def staged(queues: Mapping[tuple[str, ...], QueueMetrics], names: Sequence[str]) -> Iterator[Metric]:
    """Yield the metrics of each stage of the handlers that are pipelines; `names` are the labels' names."""
    names = (*names, "stage")
    values = CounterMetricFamily(
        "redis_worker_stage_values", "Values of the stage, by what became of them.", labels=(*names, "event")
    )
    calls = CounterMetricFamily("redis_worker_stage_calls", "Batches that the stage handled.", labels=names)
    seconds = CounterMetricFamily("redis_worker_stage_seconds", "Time that these took.", labels=names)
    for labels, metrics in queues.items():
        for stage in metrics.stages:
            for event in _EVENTS:
                values.add_metric((*labels, stage.name, event), getattr(stage, event))
            calls.add_metric((*labels, stage.name), stage.calls)
            seconds.add_metric((*labels, stage.name), stage.seconds)
    yield from (values, calls, seconds)
