"""Pick-up: how long a task takes through a worker that idles, from its push until its result can be read."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from statistics import median, quantiles

from benchmarks.bench import Bench, task
from benchmarks.contenders import INPUT, OUTPUT, Running, bare_loop, worker
from benchmarks.report import Row

MILLISECONDS = 1.0
_PAUSE = (0.005, 0.020)
_TIMEOUT = 10.0


def pickup(bench: Bench, pushes: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Push tasks one by one, with pauses, and see what of the time is the machine's own."""
    pings = [_timed_ping(bench) for _ in range(pushes)]
    yield _row("PING alone, the floor", pings)
    bare = None
    for contender in (bare_loop(), worker("sum", "sum", "--concurrency", "4")):
        with bench.warmed_up(contender) as process:
            times = [_timed_task(bench, process, number) for number in range(pushes)]
            bench.verify(contender, pushes)
        say(f"{contender.name}: {median(times):.3f} ms")
        yield _row(contender.name, times, bare)
        bare = bare or median(times)


def _row(name: str, times: list[float], bare: float | None = None) -> Row:
    p50, p99 = median(times), quantiles(times, n=100, method="inclusive")[98]
    return Row(
        f"pick-up, median: {name}",
        f"{p50:.2f} ms",
        f"p99 {p99:.2f} ms",
        None if bare is None else p50 / bare,
        "" if bare is None else f"below {MILLISECONDS:g} ms",
        None if bare is None else p50 < MILLISECONDS,
    )


def _timed_ping(bench: Bench) -> float:
    """The milliseconds of one round trip to an idle server: a virtual machine's core is slow to wake."""
    _pause()
    begun = time.perf_counter()
    bench.redis.ping()
    return (time.perf_counter() - begun) * 1000


def _timed_task(bench: Bench, process: Running, number: int) -> float:
    """The milliseconds from just before the push until HGET has returned the result."""
    _pause()
    raw, field = task(number), f"t{number}"
    begun = time.perf_counter()
    bench.redis.rpush(INPUT, raw)
    # One look after the other: this process sleeps in between, until the server has answered.
    while bench.redis.hget(OUTPUT, field) is None:
        if time.perf_counter() - begun > _TIMEOUT:
            process.check()
            raise TimeoutError(f"{process.contender.name}: no result after {_TIMEOUT:g} s")
    return (time.perf_counter() - begun) * 1000


def _pause() -> None:
    """A pause that differs, so that the pushes do not fall in step with anything."""
    time.sleep(random.uniform(*_PAUSE))
