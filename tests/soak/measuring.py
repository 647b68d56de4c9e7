"""What a tree of processes holds, from /proc; and whether a series of it grows."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Sample(NamedTuple):
    """What there was at one moment of rest."""

    memory: float
    """MiB, of the supervisor."""
    tree: float
    """MiB, of the supervisor and its processes, what they share counted once."""
    descriptors: int
    threads: int
    processes: int
    connections: int
    """Connections to Redis, as the server counts them."""
    keys: int


class Growth(NamedTuple):
    """A quantity in the second quarter of the run and in the last one."""

    name: str
    before: float
    after: float
    allowed: float

    @property
    def is_growth(self) -> bool:
        return self.after > self.before + self.allowed

    def __str__(self) -> str:
        return f"{self.name} {self.before:g} -> {self.after:g}{' GROWS' if self.is_growth else ''}"


# What may come and go: a connection that is just opened, a process that is just replaced.
_ALLOWED = {"descriptors": 6, "threads": 3, "processes": 1, "connections": 3, "keys": 3}
_MEMORY = 4.0
"""MiB of growth that are allowed, and 5 in 100: allocators keep what they have had."""


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Compare the second quarter of the samples with the last one. The first warms up."""
    quarter = max(1, len(samples) // 4)
    found = []
    for name in Sample._fields:
        values = [float(getattr(sample, name)) for sample in samples]
        before, after = statistics.median(values[quarter : 2 * quarter] or values), statistics.median(values[-quarter:])
        allowed = _ALLOWED[name] if name in _ALLOWED else _MEMORY + before * 0.05
        found.append(Growth(name, round(before, 1), round(after, 1), allowed))
    return found


def tree(pid: int) -> list[int]:
    """Return the ids of a process and of all that it has started."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        try:
            for child in (thread / "children").read_text().split():
                found += tree(int(child))
        except OSError:  # it has ended
            continue
    return found


def measure(pid: int, connections: int, keys: int) -> Sample:
    """Measure the tree of processes of `pid`."""
    proportional, descriptors, threads, processes = 0.0, 0, 0, 0
    for process in tree(pid):
        try:
            shares = _fields(process, "smaps_rollup", "Pss")
            descriptors += len(os.listdir(f"/proc/{process}/fd"))
            threads += _fields(process, "status", "Threads")
        except OSError:  # it has ended
            continue
        proportional += shares / 1024
        processes += 1
    memory = _fields(pid, "status", "VmRSS") / 1024
    return Sample(memory, proportional, descriptors, threads, processes, connections, keys)


def _fields(pid: int, file: str, name: str) -> int:
    for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0])
    raise OSError(f"/proc/{pid}/{file} has no {name}")
