"""Slow tasks among fast ones: how much longer a fast one waits than an ideal scheduler lets it.

The ideal scheduler has the slots of all workers, knows each task at its push, starts them in their order and takes no
time itself.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median, quantiles
from typing import NamedTuple

import orjson

from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, Contender, running, worker
from benchmarks.report import Row
from redis_worker.broker.keys import Keys

EXCESS = 0.050
_WORKERS, _CONCURRENCY = 4, 4
_FAST, _SLOW = 0.002, 1.0
# Every so many seconds a few tasks are pushed, and sometimes many. Slow ones take half of all slots on average.
_PUSH_EVERY, _FEW, _MANY, _MANY_EVERY = 0.02, 6, 200, 25
_SLOW_SHARE = 0.5 * _WORKERS * _CONCURRENCY / _SLOW * _PUSH_EVERY / (_FEW + _MANY / _MANY_EVERY)


class Pushed(NamedTuple):
    """A task, the time of its push and its run time, in seconds."""

    id: str
    at: float
    seconds: float


def slow(bench: Bench, seconds: float, progress: Callable[[str], None]) -> Iterator[Row]:
    """Push tasks for so many seconds, for coroutines and for threads."""
    for kind, processor in (("coroutines", "timed_sleep"), ("threads", "timed_wait")):
        contender = worker(kind, f"benchmarks.processors:{processor}", "--concurrency", str(_CONCURRENCY))
        excess = _excess(bench, contender, seconds)
        p99 = quantiles(excess, n=100, method="inclusive")[98]
        progress(f"{kind}: {len(excess)} fast tasks, {max(excess) * 1000:.0f} ms at most")
        spread = f"p99 {p99 * 1000:.0f} ms, median {median(excess) * 1000:.1f} ms"
        name, target = f"slow among fast: wait beyond the ideal, {kind}", f"at most {EXCESS * 1000:g} ms"
        yield Row(name, f"{max(excess) * 1000:.0f} ms", spread, None, target, max(excess) <= EXCESS)


def ideal_starts(pushed: list[Pushed], slots: int) -> dict[str, float]:
    """Return when an ideal scheduler starts each task."""
    free, starts = [0.0] * slots, dict[str, float]()
    for task in pushed:
        starts[task.id] = begun = max(task.at, free[0])
        heapq.heapreplace(free, begun + task.seconds)
    return starts


def _excess(bench: Bench, contender: Contender, seconds: float) -> list[float]:
    """Return how much later than in the ideal schedule each fast task started, in seconds."""
    redis = bench.redis
    redis.flushall()
    with ExitStack() as stack:
        processes = [stack.enter_context(running(contender, bench.url)) for _ in range(_WORKERS)]
        bench.wait(processes[0], lambda: redis.zcard(Keys(INPUT, OUTPUT).workers) == _WORKERS)
        pushed = _push(bench, seconds)
        bench.wait(processes[0], lambda: redis.hlen(OUTPUT) == len(pushed))
        begun = {id.decode(): orjson.loads(raw)["result"] for id, raw in redis.hgetall(OUTPUT).items()}
    ideal = ideal_starts(pushed, _WORKERS * _CONCURRENCY)
    return [begun[task.id] - ideal[task.id] for task in pushed if task.seconds == _FAST]


def _push(bench: Bench, seconds: float) -> list[Pushed]:
    chance, pushed = random.Random(0), list[Pushed]()
    begun = time.time()
    for turn in range(int(seconds / _PUSH_EVERY)):
        time.sleep(max(0.0, begun + turn * _PUSH_EVERY - time.time()))
        now = time.time()
        tasks = [
            Pushed(f"t{len(pushed) + number}", now, _SLOW if chance.random() < _SLOW_SHARE else _FAST)
            for number in range(_MANY if turn % _MANY_EVERY == _MANY_EVERY - 1 else _FEW)
        ]
        bench.redis.rpush(INPUT, *(b'{"id":"%b","task":[%g]}' % (task.id.encode(), task.seconds) for task in tasks))
        pushed += tasks
    return pushed
