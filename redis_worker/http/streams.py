"""The metrics of Kafka sources and of their sinks, as Prometheus families."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from redis_worker.http.metrics import Measured, QueueMetrics
from redis_worker.vocabulary.service import Consuming

_COUNTED = {
    "commits": ("kafka_commits", "Commits of offsets, to Kafka or with the rows."),
    "written": ("sink_rows", "Values that the sink has written."),
    "refused": ("sink_refused", "Values that the database has refused: each becomes a dead letter."),
}


def streams(queues: Mapping[tuple[str, ...], QueueMetrics], names: Sequence[str]) -> Iterator[Metric]:
    """Yield the metrics of each queue that has partitions; `names` are the labels' names."""
    rebalances = CounterMetricFamily(
        "redis_worker_kafka_rebalances", "Rebalances that concerned this worker, by event.", labels=(*names, "event")
    )
    counted = {
        key: CounterMetricFamily(f"redis_worker_{name}", text, labels=names) for key, (name, text) in _COUNTED.items()
    }
    rows = HistogramMetricFamily("redis_worker_sink_flush_rows", "Values of one write to the sink.", labels=names)
    seconds = HistogramMetricFamily("redis_worker_sink_flush_seconds", "Duration of one write.", labels=names)
    for labels, metrics in queues.items():
        if (stream := metrics.stream) is None:
            continue
        for event in ("assigned", "revoked", "lost"):
            rebalances.add_metric((*labels, event), stream.counts[event])
        for key, family in counted.items():
            family.add_metric(labels, stream.counts[key])
        rows.add_metric(labels, stream.rows.cumulative(), stream.rows.sum)
        seconds.add_metric(labels, stream.seconds.cumulative(), stream.seconds.sum)
    yield from (rebalances, *counted.values(), rows, seconds)


def lags(consuming: Iterable[Consuming], names: Sequence[str]) -> Iterator[Metric]:
    """Yield the lag of each partition that a worker owns; `names` are the labels' names."""
    lag = GaugeMetricFamily(
        "redis_worker_kafka_lag",
        "Messages of the partition that are not settled.",
        labels=(*names, "topic", "partition"),
    )
    for queue in consuming:
        labels = Measured(queue.queue, queue.processor, queue.part)[: len(names)]
        for partition in queue.partitions:
            if partition.lag is not None:
                lag.add_metric((*labels, partition.topic, str(partition.partition)), partition.lag)
    yield lag
