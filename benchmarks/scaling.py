"""Scaling: the rate with more workers, and with more tasks that wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median

from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, running, worker
from benchmarks.drain import drained_by
from benchmarks.report import Row, rated

# The rate with the most tasks waiting, as a share of that with the fewest.
FLAT = 0.9
_WARM_UP = 500


def workers(
    bench: Bench, numbers: tuple[int, ...], count: int, rounds: int, progress: Callable[[str], None]
) -> Iterator[Row]:
    """Drain `count` tasks with so many workers, in turn. They share the cores with the server."""
    rates: dict[int, list[float]] = {number: [] for number in numbers}
    for turn in range(rounds):
        for number in numbers:
            rates[number].append(_with_workers(bench, number, count))
            progress(f"round {turn + 1} of {rounds}: {number} workers: {rates[number][-1]:,.0f}/s")
    alone = median(rates[1])
    for number, measured in rates.items():
        rate = median(measured)
        each = f"{rate / number:,.0f}/s each, {_spread(measured)} in all"
        yield Row(f"workers: sum, {number} at once", f"{rate:,.0f}/s", each, rate / alone if number > 1 else None)


def backlog(
    bench: Bench, sizes: tuple[int, ...], count: int, rounds: int, progress: Callable[[str], None]
) -> Iterator[Row]:
    """Measure the rate of the first `count` tasks while so many more wait behind them."""
    contender = worker("sum", "sum")
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    for turn in range(rounds):
        for size in sizes:
            rates[size].append(_with_backlog(bench, size, count))
            progress(f"round {turn + 1} of {rounds}: {size:,} waiting: {rates[size][-1]:,.0f}/s")
    for size, measured in rates.items():
        name = f"backlog: {contender.name}, {size:,} waiting"
        yield rated(name, measured, None if size == sizes[0] else rates[sizes[0]], FLAT)


def _with_workers(bench: Bench, number: int, count: int) -> float:
    contender = worker("sum", "sum")
    if number == 1:
        return drained_by(bench, contender, count).rate
    bench.redis.flushall()
    with ExitStack() as stack:
        processes = [stack.enter_context(running(contender, bench.url)) for _ in range(number)]
        bench.wait(processes[0], lambda: bench.redis.info("clients")["blocked_clients"] == number)
        bench.fill(_WARM_UP * number)
        bench.drain(processes[0], _WARM_UP * number)
        bench.redis.delete(OUTPUT)
        bench.fill(count)
        rate = bench.drain(processes[0], count).rate
        bench.verify(contender, count)
        return rate


def _with_backlog(bench: Bench, size: int, count: int) -> float:
    """Return the rate of the first `count` of `size` tasks and as many more; the others stay."""
    with bench.warmed_up(worker("sum", "sum")) as process:
        bench.fill(size + count)
        bench.enqueue()
        begun = time.perf_counter()
        bench.wait(process, lambda: bench.redis.hlen(OUTPUT) >= count)
        done, seconds = bench.redis.hlen(OUTPUT), time.perf_counter() - begun
    bench.redis.delete(INPUT)
    return float(done / seconds)


def _spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f} to {max(rates):,.0f}"
