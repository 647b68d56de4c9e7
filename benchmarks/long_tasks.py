"""Long tasks: coroutines that sleep, beside the same sleeps alone; a function bound by the CPU, in processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from multiprocessing import Pool
from statistics import median

from benchmarks import bare_sleeps
from benchmarks.bench import Bench
from benchmarks.contenders import Contender, worker
from benchmarks.drain import drained_by
from benchmarks.processors import busy
from benchmarks.report import Row

SLEEPING = 0.8
INSIDE = 0.93
# Sleeps at once.
_CONCURRENCY = 10_000
# Computing processes, and the time that a task of `benchmarks.processors:busy` computes, in seconds.
_PROCESSES = min(2, os.cpu_count() or 1)
_BUSY = 0.001
# The interval of looks for the results of computations, in seconds: a fraction of a percent of the time that they take.
_LOOK_EVERY = 0.02


def long_tasks(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Run each benchmark `rounds` times: `count` sleeps, and a twentieth of that of computing tasks."""
    name, options = f"sleeps of 100 ms, concurrency {_CONCURRENCY:,}", ["--concurrency", str(_CONCURRENCY)]
    sleeping = worker(name, "benchmarks.processors:nap", *options)
    name = f"1 ms of computing in {_PROCESSES} processes"
    options = ["--concurrency", str(_PROCESSES), "--execution", "process"]
    computing = worker(name, "benchmarks.processors:busy", *options)
    alone, bare, slept, computed = list[float](), list[float](), list[float](), list[float]()
    computations = max(1, count // 20)
    for number in range(rounds):
        bare.append(bare_sleeps.measured(count, _CONCURRENCY))
        slept.append(drained_by(bench, sleeping, count).rate)
        alone.append(_bare_computing(computations))
        # The processes need both cores: each look of this one is taken from them.
        computed.append(drained_by(bench, computing, computations, look_every=_LOOK_EVERY).rate)
        progress(f"round {number + 1} of {rounds}: {slept[-1]:,.0f} sleeps/s, {computed[-1]:,.0f} computations/s")
    yield Row("long: the same sleeps in asyncio alone", f"{median(bare):,.0f}/s", _spread(bare))
    ratio = median(slept) / median(bare)
    yield _row(sleeping, slept, ratio, f"at least {SLEEPING}", ratio >= SLEEPING)
    share = median(alone) * _BUSY / _PROCESSES
    yield Row("long: the same computing in processes alone", f"{median(alone):,.0f}/s", _spread(alone), share)
    inside = median(computed) * _BUSY / _PROCESSES
    yield _row(computing, computed, inside, f"at least {INSIDE} inside", inside >= INSIDE)


def _bare_computing(count: int) -> float:
    """Return the rate of `count` computations in the same number of processes, without any queue."""
    with Pool(_PROCESSES) as pool:
        pool.map(busy, [[]] * _PROCESSES)  # they have started
        begun = time.perf_counter()
        pool.map(busy, [[]] * count, chunksize=max(1, count // _PROCESSES // 20))
        return count / (time.perf_counter() - begun)


def _row(contender: Contender, rates: list[float], ratio: float, target: str, met: bool) -> Row:
    return Row(f"long: {contender.name}", f"{median(rates):,.0f}/s", _spread(rates), ratio, target, met)


def _spread(rates: list[float]) -> str:
    return f"{min(rates):,.0f} to {max(rates):,.0f}"
