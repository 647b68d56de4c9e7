"""Pick-up: how long a task takes through a worker that idles, from its push until its result can be read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median, quantiles
from typing import Any

from benchmarks.bench import Bench, task
from benchmarks.contenders import INPUT, OUTPUT, Running, bare_loop, worker
from benchmarks.report import Row

MILLISECONDS = 1.0
_PAUSE = (0.005, 0.020)
_TIMEOUT = 10.0


def pickup(bench: Bench, pushes: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Push tasks one by one."""
    bare = None
    for contender in (bare_loop(), worker("sum", "sum", "--concurrency", "4")):
        with bench.warmed_up(contender) as process, _hash_events(bench) as events:
            times = [_push(bench, process, events, number) for number in range(pushes)]
            bench.verify(contender, pushes)
        p50, p99 = median(times), quantiles(times, n=100, method="inclusive")[98]
        say(f"{contender.name}: {p50:.3f} ms")
        yield Row(
            f"pick-up, median: {contender.name}",
            f"{p50:.2f} ms",
            f"p99 {p99:.2f} ms",
            None if bare is None else p50 / bare,
            "" if bare is None else f"below {MILLISECONDS:g} ms",
            None if bare is None else p50 < MILLISECONDS,
        )
        bare = bare or p50


def _push(bench: Bench, process: Running, events: Any, number: int) -> float:
    """The milliseconds from just before the push until HGET has returned the result."""
    # The pauses differ, so that the pushes do not fall in step with anything.
    time.sleep(random.uniform(*_PAUSE))
    raw, field = task(number), f"t{number}"
    begun = time.perf_counter()
    bench.redis.rpush(INPUT, raw)
    while bench.redis.hget(OUTPUT, field) is None:
        # The next look is when the hash has changed: looking all the time would take the server's time
        # and a core from the contender.
        if events.get_message(timeout=_TIMEOUT) is None:
            process.check()
            raise TimeoutError(f"{process.contender.name}: no result after {_TIMEOUT:g} s")
    return (time.perf_counter() - begun) * 1000


@contextmanager
def _hash_events(bench: Bench) -> Iterator[Any]:
    """Be told by the server of each HSET: the same way for the bare loop, which announces nothing."""
    bench.redis.config_set("notify-keyspace-events", "Kh")
    events = bench.redis.pubsub()
    events.subscribe(f"__keyspace@0__:{OUTPUT}")
    events.get_message(timeout=_TIMEOUT)  # the confirmation
    try:
        yield events
    finally:
        events.close()
        bench.redis.config_set("notify-keyspace-events", "")
