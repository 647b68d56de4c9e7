"""Pick-up: the time of a task through an idle worker, from its push until its result is in the hash."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from statistics import median, quantiles
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from benchmarks.bare_loop import loop_factory
from benchmarks.bench import Bench, task
from benchmarks.contenders import INPUT, OUTPUT, Running, bare_loop, worker
from benchmarks.report import Row, judged
from redis_worker import TaskClient

PICKUP = 1.3
CLIENT = 1.5
_PAUSE = (0.005, 0.020)
_TIMEOUT = 10.0


def pickup(bench: Bench, pushes: int, rounds: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Push single tasks to the idle bare loop, to an idle worker, and through a client, in turn, in `rounds`."""
    times: dict[str, list[list[float]]] = {}
    for number in range(rounds):
        for name, round_times in _round(bench, max(2, pushes // rounds)):
            times.setdefault(name, []).append(round_times)
            progress(f"round {number + 1} of {rounds}: {name}: {median(round_times):.3f} ms")
    targets = {"sum": PICKUP, "a waiting TaskClient": CLIENT}
    bare = [median(each) for each in times[bare_loop().name]]
    for name, each in times.items():
        yield _row(name, each, bare, targets.get(name))


def _round(bench: Bench, pushes: int) -> Iterator[tuple[str, list[float]]]:
    """Yield each name with the milliseconds of its pushes."""
    connection = bench.connection()
    yield "PING alone, the floor", [_timed_ping(connection) for _ in range(pushes)]
    connection.disconnect()
    contender = worker("sum", "sum", "--concurrency", "4")
    for pushed_to in (bare_loop(), contender):
        with bench.warmed_up(pushed_to) as process, closing(_Watch(bench)) as watch:
            yield pushed_to.name, [watch.timed_task(process, number) for number in range(pushes)]
            bench.verify(pushed_to, pushes)
    bench.redis.config_set("notify-keyspace-events", "")
    with bench.warmed_up(contender), asyncio.Runner(loop_factory=loop_factory()) as runner:
        yield "a waiting TaskClient", runner.run(_submitted(bench.url, pushes))


async def _submitted(url: str, pushes: int) -> list[float]:
    """Return the milliseconds from each call of `submit` until `result` has returned."""
    times = []
    async with TaskClient(url, INPUT, OUTPUT) as client:
        await client.run([1, 2, 3])  # it connects and subscribes
        for number in range(pushes):
            await asyncio.sleep(random.uniform(*_PAUSE))
            begun = time.perf_counter()
            found = await client.result(await client.submit([number, 2, 3]))
            times.append((time.perf_counter() - begun) * 1000)
            assert found == number + 5
    return times


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100, method="inclusive")[98]


def _row(name: str, times: list[list[float]], bare: list[float], target: float | None) -> Row:
    every, medians = [one for each in times for one in each], [median(each) for each in times]
    return Row(
        f"pick-up, median: {name}",
        f"{median(medians):.2f} ms",
        f"{min(medians):.2f} to {max(medians):.2f}, p99 {_p99(every):.2f} ms",
        None if target is None else median(medians) / median(bare),
        "" if target is None else f"at most {target}",
        None if target is None else judged(medians, bare, target, at_most=True),
    )


def _timed_ping(connection: Any) -> float:
    """Return the milliseconds of a round trip to an idle server: a virtual machine's core is slow to wake."""
    _pause()
    begun = time.perf_counter()
    connection.send_command("PING")
    connection.read_response()
    return (time.perf_counter() - begun) * 1000


class _Watch:
    """A client that pushes tasks, and is notified by the server when the output hash changes.

    It sleeps until then: polling would keep the server and one of two cores busy while the worker needs them.
    """

    def __init__(self, bench: Bench) -> None:
        self._pusher, self._listener = bench.connection(), bench.connection()
        bench.redis.config_set("notify-keyspace-events", "Kh")
        self._listener.send_command("SUBSCRIBE", f"__keyspace@0__:{OUTPUT}")
        self._listener.read_response()

    def timed_task(self, process: Running, number: int) -> float:
        """Return the milliseconds from just before the push until the notification of the result."""
        _pause()
        packed = self._pusher.pack_command("RPUSH", INPUT, task(number))
        begun = time.perf_counter()
        self._pusher.send_packed_command(packed)
        try:
            self._listener.read_response(timeout=_TIMEOUT)
        except RedisTimeoutError:
            process.check()
            raise TimeoutError(f"{process.contender.name}: no result after {_TIMEOUT:g} s") from None
        ended = time.perf_counter()
        self._pusher.read_response()
        return (ended - begun) * 1000

    def close(self) -> None:
        """Close the connections."""
        self._pusher.disconnect()
        self._listener.disconnect()


def _pause() -> None:
    """Sleep for a random time, so that the pushes do not synchronise with anything."""
    time.sleep(random.uniform(*_PAUSE))
