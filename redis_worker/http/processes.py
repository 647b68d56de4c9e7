"""CPU time, memory and descriptors of this process and its children."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric


def processes(children: Mapping[str, int]) -> list[Metric]:
    """Return Prometheus's usual process metrics; `children` maps "part#number" to process ids.

    Metrics of a child have the labels `part` and `process`. A system without /proc has no metrics.
    """
    families = {family.name: family for family in _collect(None)}
    for title, pid in [*children.items()]:
        part, _, number = title.rpartition("#")
        for family in _collect(pid):
            for sample in family.samples:
                families[family.name].add_sample(sample.name, {"part": part, "process": number}, sample.value)
    return [*families.values()]


def _collect(pid: int | None) -> Iterable[Metric]:
    collector = ProcessCollector(registry=None) if pid is None else ProcessCollector(registry=None, pid=lambda: pid)
    return collector.collect()
