"""Long tasks: coroutines that sleep, beside the same sleeps alone; a function bound by the CPU, in processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import Pool
from statistics import median

from benchmarks import bare_sleeps
from benchmarks.bench import Bench, Drained
from benchmarks.contenders import worker
from benchmarks.drain import drained_by
from benchmarks.processors import busy
from benchmarks.report import Row, Verdict, judged, rated

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
    yield from _sleeping(bench, count, rounds, progress)
    yield from _computing(bench, max(1, count // 20), rounds, progress)


def _sleeping(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    name, options = f"sleeps of 100 ms, concurrency {_CONCURRENCY:,}", ["--concurrency", str(_CONCURRENCY)]
    contender = worker(name, "benchmarks.processors:nap", *options)
    bare, slept = list[float](), list[float]()
    for number in range(rounds):
        bare.append(bare_sleeps.measured(count, _CONCURRENCY))
        slept.append(drained_by(bench, contender, count).rate)
        progress(f"round {number + 1} of {rounds}: {slept[-1]:,.0f} sleeps/s")
    yield rated("long: the same sleeps in asyncio alone", bare)
    yield rated(f"long: {contender.name}", slept, bare, SLEEPING)


def _computing(bench: Bench, count: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Compare the rates with that of cores whose whole time is spent inside the function."""
    options = ["--concurrency", str(_PROCESSES), "--execution", "process"]
    contender = worker(f"1 ms of computing in {_PROCESSES} processes", "benchmarks.processors:busy", *options)
    alone, drained = list[float](), list[Drained]()
    for number in range(rounds):
        alone.append(_bare_computing(count))
        # The processes need both cores: each look of this one is taken from them.
        drained.append(drained_by(bench, contender, count, look_every=_LOOK_EVERY))
        progress(f"round {number + 1} of {rounds}: {drained[-1].rate:,.0f} computations/s, alone {alone[-1]:,.0f}/s")
    whole = [_PROCESSES / _BUSY]
    yield rated("long: the same computing in processes alone", alone, whole)
    rates = [each.rate for each in drained]
    cost = ", ".join(f"{median(costs):.1f}" for costs in zip(*(each.cost for each in drained), strict=True))
    row = rated(f"long: {contender.name}", rates, whole, INSIDE, cost=cost)
    if row.met is Verdict.MISSED and judged(rates, alone, INSIDE) is not Verdict.MISSED:
        row = replace(row, met=Verdict.NEAR)  # the machine gives nobody more of its cores
    yield row


def _bare_computing(count: int) -> float:
    """Return the rate of `count` computations in the same number of processes, without any queue."""
    with Pool(_PROCESSES) as pool:
        pool.map(busy, [[]] * _PROCESSES)  # they have started
        begun = time.perf_counter()
        pool.map(busy, [[]] * count, chunksize=max(1, count // _PROCESSES // 20))
        return count / (time.perf_counter() - begun)
