"""The metrics of Kafka sources and of their sinks, as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from redis_worker.http.metrics import Measured, QueueMetrics
from redis_worker.vocabulary.service import Consuming

_COUNTED = {
    "kafka_rebalances": "Assignments and revocations of partitions.",
    "kafka_commits": "Commits of offsets, to Kafka or with the rows.",
    "sink_rows": "Values that the sink has written.",
    "sink_refused": "Values that the database has refused; each became a dead letter.",
}


def streams(queues: Mapping[tuple[str, ...], QueueMetrics], names: Sequence[str]) -> Iterator[Metric]:
    """Yield the metrics of each source that has partitions; `names` are the labels' names."""
    counted = {name: CounterMetricFamily(f"redis_worker_{name}", text, labels=names) for name, text in _COUNTED.items()}
    rows = HistogramMetricFamily("redis_worker_sink_flush_rows", "Values of one flush of the sink.", labels=names)
    seconds = HistogramMetricFamily("redis_worker_sink_flush_seconds", "Duration of one flush.", labels=names)
    for labels, metrics in queues.items():
        if (stream := metrics.stream) is not None:
            counts = (stream.rebalances, stream.commits, stream.written, stream.refused)
            for family, count in zip(counted.values(), counts, strict=True):
                family.add_metric(labels, count)
            rows.add_metric(labels, stream.rows.cumulative(), stream.rows.sum)
            seconds.add_metric(labels, stream.seconds.cumulative(), stream.seconds.sum)
    yield from (*counted.values(), rows, seconds)


def lags(consuming: Iterable[Consuming], names: Sequence[str]) -> Iterator[Metric]:
    """Yield the lag of each partition that a worker owns; `names` are the labels' names."""
    lag = GaugeMetricFamily(
        "redis_worker_kafka_lag", "Messages of the partition that are not settled.", labels=(*names, "partition")
    )
    for queue in consuming:
        labels = Measured(queue.queue, queue.processor, queue.part)[: len(names)]
        for partition in queue.partitions:
            if partition.lag is not None:
                lag.add_metric((*labels, str(partition.partition)), partition.lag)
    yield lag
