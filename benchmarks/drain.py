"""Drain: tasks per second, from a full queue to the last result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

from benchmarks.bench import Bench
from benchmarks.contenders import Contender, bare_loop, supervised, worker
from benchmarks.report import Row

SUM = 0.7
ASYNC = 0.6
THREADS = 0.25
PROCESSES = 0.12


@dataclass
class Entry:
    """A contender with its load, its target and its rates, in tasks per second."""

    contender: Contender
    share: float = 1.0
    """The share of the number of tasks: slow contenders get fewer."""
    padding: int = 0
    target: float | None = None
    rates: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return median(self.rates)


def heats() -> tuple[tuple[Entry, ...], ...]:
    """Return the groups of entries to compare; the first of each is its bare loop."""
    threads = ("--concurrency", "4", "--execution", "thread")
    processes = ("--concurrency", "2", "--execution", "process")
    small = (
        Entry(bare_loop()),
        Entry(worker("sum", "sum"), target=SUM),
        Entry(
            worker("async no-op, concurrency 256", "benchmarks.processors:async_noop", "--concurrency", "256"),
            target=ASYNC,
        ),
        Entry(worker("sum, with --http", "sum", "--http", "127.0.0.1:0")),
        Entry(supervised()),
        Entry(bare_loop(1000)),
        Entry(worker("sum, at-most-once", "sum", "--delivery", "at-most-once")),
        Entry(worker("no-op in 4 threads", "benchmarks.processors:noop", *threads), share=0.5, target=THREADS),
        Entry(worker("no-op in 2 processes", "benchmarks.processors:noop", *processes), share=0.3, target=PROCESSES),
    )
    large = (
        (Entry(bare_loop(), share, padding), Entry(worker("sum", "sum"), share, padding))
        for padding, share in ((1_000, 0.5), (10_000, 0.1))
    )
    return small, *large


def drain(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Run each heat `rounds` times, its entries in turn, so that a slow phase of the machine affects all."""
    for entries in heats():
        for number in range(rounds):
            for entry in entries:
                entry.rates.append(rate(bench, entry.contender, max(1, int(count * entry.share)), entry.padding))
                progress(f"round {number + 1} of {rounds}: {entry.contender.name}: {entry.rates[-1]:,.0f}/s")
        for entry in entries:
            yield _row(entry, entries[0])


def rate(bench: Bench, contender: Contender, count: int, padding: int = 0) -> float:
    """Return the tasks per second of one drain of `count` tasks."""
    with bench.warmed_up(contender) as process:
        bench.fill(count, padding)
        seconds = bench.drain(process, count)
        bench.verify(contender, count)
    return count / seconds


def _row(entry: Entry, bare: Entry) -> Row:
    is_bare = entry is bare
    size = f", tasks of {entry.padding // 1000} kB" if entry.padding else ""
    ratio = None if is_bare else entry.rate / bare.rate
    return Row(
        f"drain: {entry.contender.name}{size}",
        f"{entry.rate:,.0f}/s",
        f"{min(entry.rates):,.0f} to {max(entry.rates):,.0f}",
        ratio,
        "" if entry.target is None else f"at least {entry.target}",
        None if entry.target is None or ratio is None else ratio >= entry.target,
    )
