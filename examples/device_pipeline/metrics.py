"""The metrics of the consumer, for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from redis_worker import Observer
from redis_worker.pipeline import StageStatus

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds."""


class ConsumerMetrics(Observer, Collector):
    """Counts of settled messages, by what the worker reports."""

    def __init__(self, stages: Callable[[], Sequence[StageStatus]]) -> None:
        self.settled_messages = 0
        self.dead = 0
        self.partitions: Callable[[], Iterable[Any]] = list
        self._stages = stages
        self._consumed: Counter[str] = Counter()
        """By "topic[partition]", the first part of a message's id."""
        self._registry = CollectorRegistry()
        self._durations = Histogram(
            "kafka_consumer_processing_duration_seconds",
            "Time of a message in the pipeline: its share of the time of its batch.",
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._registry.register(self)

    def settled(self, outcomes: Sequence[Any]) -> None:
        """See Observer."""
        for outcome in outcomes:
            if outcome.again is not None:
                continue
            self.settled_messages += 1
            self.dead += outcome.dead
            partition, _, _ = outcome.id.rpartition("@")
            self._consumed[partition] += 1
            self._durations.observe(outcome.seconds)

    def text(self) -> bytes:
        """Return the metrics in Prometheus's text format; call it on the event loop."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """See Collector."""
        by_partition = ("topic", "partition")
        consumed = CounterMetricFamily(
            "kafka_consumer_messages_consumed", "Messages handled and settled.", labels=by_partition
        )
        for partition, count in self._consumed.items():
            topic, _, number = partition.removesuffix("]").rpartition("[")
            consumed.add_metric([topic, number], count)
        lag = GaugeMetricFamily("kafka_consumer_lag_messages", "Messages that are not settled.", labels=by_partition)
        partitions = list(self.partitions())
        for each in partitions:
            if each.lag is not None:
                lag.add_metric([each.topic, str(each.partition)], each.lag)
        errors = CounterMetricFamily(
            "kafka_consumer_processing_errors", "Messages that a stage rejected or failed.", labels=("stage", "kind")
        )
        seconds = CounterMetricFamily("kafka_consumer_stage_seconds", "Time of each stage.", labels=("stage",))
        for stage in self._stages():
            errors.add_metric([stage.name, "rejected"], stage.rejected)
            errors.add_metric([stage.name, "failed"], stage.failed)
            seconds.add_metric([stage.name], stage.seconds)
        active = GaugeMetricFamily("kafka_consumer_active_partitions", "Partitions of this process.", len(partitions))
        yield from (consumed, lag, errors, seconds, active)
