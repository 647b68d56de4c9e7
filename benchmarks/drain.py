"""Drain: tasks per second, from a full queue to the last result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from statistics import median

from benchmarks import bare_sleeps
from benchmarks.bench import LOOK_EVERY, Bench, Drained
from benchmarks.contenders import Contender, bare_loop, functions, supervised, worker
from benchmarks.report import Row, rated

SUM = 0.95
DISORDER = 0.9
# Sleeps at once.
_WIDE = 10_000
# Bytes of larger tasks, the share of the number of tasks, and the target.
SIZES = ((1_000, 0.5, 0.8), (10_000, 0.1, 0.6), (100_000, 0.02, 0.6))
ASYNC = 0.6
THREADS = 0.25
PROCESSES = 0.12
FUNCTIONS = 0.6


@dataclass
class Entry:
    """A contender with its load, its target and what was measured."""

    contender: Contender
    share: float = 1.0
    """The share of the number of tasks: slow contenders get fewer."""
    padding: int = 0
    target: float | None = None
    drained: list[Drained] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Tasks per second."""
        return [drained.rate for drained in self.drained]

    @property
    def cost(self) -> str:
        worker, server = (median(costs) for costs in zip(*(drained.cost for drained in self.drained), strict=True))
        return f"{worker:.1f}, {server:.1f}"


def _small() -> list[list[Entry]]:
    threads = ("--concurrency", "4", "--execution", "thread")
    processes = ("--concurrency", "2", "--execution", "process")
    entries = [
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
    ]
    return [entries]


def _sizes() -> list[list[Entry]]:
    return [
        [Entry(bare_loop(), share, padding), Entry(worker("sum", "sum"), share, padding, target)]
        for padding, share, target in SIZES
    ]


def _disorder() -> list[list[Entry]]:
    def ends(order: str, concurrency: int) -> Contender:
        name = f"coroutines end in {order.replace('_', ' ')}, concurrency {concurrency:,}"
        return worker(name, f"benchmarks.processors:in_{order}", "--concurrency", str(concurrency))

    return [
        [
            Entry(ends("order", _WIDE), share=0.5),
            Entry(ends("random_order", _WIDE), share=0.5, target=DISORDER),
            Entry(ends("random_order", 1_000), share=0.2),
            Entry(ends("random_order", 100), share=0.02),
        ]
    ]


def _functions() -> list[list[Entry]]:
    wide, threads = ("--concurrency", "256"), ("--concurrency", "4")
    noops = "benchmarks.processors:async_noop", "benchmarks.processors:noop"
    each = ("async_noop", "noop", "inline_noop")
    coroutine, thread, inline = ((name,) for name in each)
    limits = {
        "functions: under a rate that is never reached": "rated",
        "functions: 1000 at a time, which are never reached": "counted",
        "functions: 1000 at a time for each of 100 keys": "keyed",
        "functions: strict priorities": "strict",
        "functions: weighted priorities": "weighted",
    }.items()
    return [
        [
            Entry(worker("a pool of an async no-op, concurrency 256", noops[0], *wide)),
            Entry(functions("an async no-op as a function", "coroutines", coroutine, *wide), target=FUNCTIONS),
            Entry(functions("the same beside functions of other kinds", "mixed", coroutine, *wide), target=FUNCTIONS),
            Entry(functions("the same with unique ids", "coroutines", coroutine, *wide, unique=True)),
        ],
        [
            Entry(worker("a pool of a no-op in 4 threads", noops[1], *threads), share=0.5),
            Entry(functions("a no-op as a function, 4 threads", "threads", thread, *threads), 0.5, target=FUNCTIONS),
            Entry(functions("the same beside coroutines, 4 at once", "mixed", thread, *threads), 0.5),
            Entry(functions("functions: mixed queue, each kind in turn, 4 at once", "mixed", each, *threads), 0.5),
        ],
        [
            Entry(worker("a pool of an inline no-op", noops[1], "--execution", "inline")),
            Entry(functions("an inline no-op as a function", "inline", inline), target=FUNCTIONS),
            Entry(functions("the same beside coroutines, inline", "mixed", inline)),
        ],
        [
            Entry(functions("functions: an async no-op, no limits", "coroutines", coroutine, *wide), share=0.5),
            *(Entry(functions(name, queue, coroutine, *wide), share=0.5) for name, queue in limits),
        ],
    ]


DRAINS = {"drain": _small, "sizes": _sizes, "disorder": _disorder, "functions": _functions}
"""Groups of entries, by the name of the benchmark; each is compared with the first of its group."""


def drain(name: str, bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Run each group `rounds` times, its entries in turn, so that a slow phase of the machine affects all."""
    for entries in DRAINS[name]():
        for number in range(rounds):
            for entry in entries:
                drained = drained_by(bench, entry.contender, max(1, int(count * entry.share)), entry.padding)
                entry.drained.append(drained)
                progress(f"round {number + 1} of {rounds}: {entry.contender.name}: {entry.rates[-1]:,.0f}/s")
        for entry in entries:
            yield _row(entry, entries[0])
    if name == "disorder":
        yield from _alone(max(1, count // 2), rounds, progress)


def _alone(count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Run the sleeps that end in order and in random order without any queue: the part of asyncio in the difference."""
    rates = dict[str, list[float]](in_order=[], in_random_order=[])
    for number in range(rounds):
        for order, found in rates.items():
            found.append(bare_sleeps.measured(count, _WIDE, order))
        progress(f"round {number + 1} of {rounds}: {found[-1]:,.0f} sleeps in random order/s, in asyncio alone")
    for order, found in rates.items():
        ratio = None if order == "in_order" else median(found) / median(rates["in_order"])
        name = f"drain: the same sleeps in asyncio alone, {order.replace('_', ' ')}"
        yield Row(name, f"{median(found):,.0f}/s", f"{min(found):,.0f} to {max(found):,.0f}", ratio)


def drained_by(
    bench: Bench, contender: Contender, count: int, padding: int = 0, look_every: float = LOOK_EVERY
) -> Drained:
    """Return how a contender drains `count` tasks; the results are counted every so many seconds."""
    with bench.warmed_up(contender) as process:
        bench.fill(count, padding, contender)
        drained = bench.drain(process, count, look_every)
        bench.verify(contender, count)
    return drained


def _row(entry: Entry, bare: Entry) -> Row:
    size = f", tasks of {entry.padding // 1000} kB" if entry.padding else ""
    rates = None if entry is bare else bare.rates
    return rated(f"drain: {entry.contender.name}{size}", entry.rates, rates, entry.target, cost=entry.cost)
