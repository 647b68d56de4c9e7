"""The CPU time, memory and descriptors of this process, and of those that parts have of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import Metric


def processes(children: Mapping[str, int]) -> list[Metric]:
    """Return Prometheus's usual metrics of a process; `children` has the ids of others, by "part#number".

    What is of a child has the labels `part` and `process`. Where there is no /proc there are none.
    """
    families = {family.name: family for family in _of(None)}
    for title, pid in [*children.items()]:
        part, _, number = title.rpartition("#")
        for family in _of(pid):
            for sample in family.samples:
                families[family.name].add_sample(sample.name, {"part": part, "process": number}, sample.value)
    return [*families.values()]


def _of(pid: int | None) -> Iterable[Metric]:
    collector = ProcessCollector(registry=None) if pid is None else ProcessCollector(registry=None, pid=lambda: pid)
    return collector.collect()
