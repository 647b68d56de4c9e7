"""Slow tasks among fast ones: how much longer a fast one waits than an ideal scheduler lets it.

The ideal scheduler has the slots of all workers, knows each task at its push, starts them in their order and takes no
time itself.
"""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import NamedTuple

import orjson

from benchmarks.bench import Bench
from benchmarks.contenders import INPUT, OUTPUT, Contender, running, worker
from benchmarks.report import Row, Verdict
from redis_worker.broker.keys import Keys

EXCESS = 0.050
WORKERS, CONCURRENCY = 4, 4
SLOTS = WORKERS * CONCURRENCY
FAST, SLOW = 0.002, 1.0
_BLINK = 0.001
# Every so many seconds a few tasks are pushed, and sometimes many. Slow ones take half of all slots on average.
_PUSH_EVERY, _FEW, _MANY, _MANY_EVERY = 0.02, 6, 200, 25
_SLOW_SHARE = 0.5 * SLOTS / SLOW * _PUSH_EVERY / (_FEW + _MANY / _MANY_EVERY)


class Pushed(NamedTuple):
    """A task, the time of its push and its run time, in seconds."""

    id: str
    at: float
    seconds: float


def slow(bench: Bench, seconds: float, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Push tasks for so many seconds in each round, for coroutines, for threads, and for the reference."""
    contenders = [
        Contender("threads that pop", ("benchmarks.bare_threads", "URL", INPUT, OUTPUT, str(CONCURRENCY)), sums=False),
        *(
            worker(kind, f"benchmarks.processors:{processor}", "--concurrency", str(CONCURRENCY))
            for kind, processor in (("coroutines", "timed_sleep"), ("threads", "timed_wait"))
        ),
    ]
    found: dict[str, list[_Round]] = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders:
            with _longest_pause() as pause:
                excess = _excess(bench, contender, seconds, number)
            found[contender.name].append(_Round(excess, pause[0]))
            progress(f"round {number + 1} of {rounds}: {contender.name}: {_shown(found[contender.name])}")
    for contender in contenders:
        yield _row(contender.name, found[contender.name], has_target=contender is not contenders[0])


class _Round(NamedTuple):
    excess: list[float]
    pause: float
    """The longest time, in seconds, for which the machine did not run this process, which was ready."""


@contextmanager
def _longest_pause() -> Iterator[list[float]]:
    """Yield a list whose one entry grows to the longest lateness of a thread that sleeps for a millisecond."""
    longest, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.is_set():
            begun = time.perf_counter()
            time.sleep(_BLINK)
            longest[0] = max(longest[0], time.perf_counter() - begun - _BLINK)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield longest
    finally:
        ended.set()
        thread.join()


def _shown(rounds: list[_Round]) -> str:
    each = (f"{max(one.excess) * 1000:.0f} ({one.pause * 1000:.0f})" for one in rounds)
    return f"{', '.join(each)} ms (pauses of the machine)"


def _row(name: str, rounds: list[_Round], has_target: bool) -> Row:
    every = [one for each in rounds for one in each.excess]
    p99 = quantiles(every, n=100, method="inclusive")[98]
    return Row(
        f"slow among fast: wait beyond the ideal, {name}",
        f"{max(every) * 1000:.0f} ms",
        f"{_shown(rounds)}, p99 {p99 * 1000:.0f} ms, median {median(every) * 1000:.1f} ms",
        None,
        f"at most {EXCESS * 1000:g} ms" if has_target else "",
        _verdict(rounds) if has_target else None,
    )


def _verdict(rounds: list[_Round]) -> Verdict:
    """Compare the longest wait of each round with the target, and then without the longest pause of the machine."""
    longest = [max(one.excess) for one in rounds]
    if max(longest) <= EXCESS:
        return Verdict.MET
    is_noise = all(wait - one.pause <= EXCESS for wait, one in zip(longest, rounds, strict=True))
    return Verdict.NEAR if is_noise else Verdict.MISSED


def ideal_starts(pushed: list[Pushed], slots: int) -> dict[str, float]:
    """Return when an ideal scheduler starts each task."""
    free, starts = [0.0] * slots, dict[str, float]()
    for task in pushed:
        starts[task.id] = begun = max(task.at, free[0])
        heapq.heapreplace(free, begun + task.seconds)
    return starts


def _excess(bench: Bench, contender: Contender, seconds: float, seed: int) -> list[float]:
    """Return how much later than in the ideal schedule each fast task started, in seconds."""
    redis = bench.redis
    redis.flushall()
    with ExitStack() as stack:
        processes = [stack.enter_context(running(contender, bench.url)) for _ in range(WORKERS)]
        bench.wait(processes[0], lambda: _are_ready(bench))
        pushed = _push(bench, seconds, random.Random(seed))
        bench.wait(processes[0], lambda: redis.hlen(OUTPUT) == len(pushed))
        begun = {id.decode(): orjson.loads(raw)["result"] for id, raw in redis.hgetall(OUTPUT).items()}
    ideal = ideal_starts(pushed, SLOTS)
    return [begun[task.id] - ideal[task.id] for task in pushed if task.seconds == FAST]


def _are_ready(bench: Bench) -> bool:
    """Return True once all workers have registered, or all threads of the reference wait."""
    waiting = bench.redis.info("clients")["blocked_clients"]
    return bool(waiting == SLOTS or bench.redis.zcard(Keys(INPUT, OUTPUT).workers) == WORKERS)


def arrivals(seconds: float, chance: random.Random) -> Iterator[tuple[float, list[float]]]:
    """Yield times from the start, in seconds, each with the run times of the tasks that are pushed then."""
    for turn in range(int(seconds / _PUSH_EVERY)):
        count = _MANY if turn % _MANY_EVERY == _MANY_EVERY - 1 else _FEW
        yield turn * _PUSH_EVERY, [SLOW if chance.random() < _SLOW_SHARE else FAST for _ in range(count)]


def _push(bench: Bench, seconds: float, chance: random.Random) -> list[Pushed]:
    pushed = list[Pushed]()
    begun = time.time()
    for at, times in arrivals(seconds, chance):
        time.sleep(max(0.0, begun + at - time.time()))
        now = time.time()
        tasks = [Pushed(f"t{number}", now, seconds) for number, seconds in enumerate(times, len(pushed))]
        bench.redis.rpush(INPUT, *(b'{"id":"%b","task":[%g]}' % (task.id.encode(), task.seconds) for task in tasks))
        pushed += tasks
    return pushed
