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
from benchmarks.report import Row
from redis_worker import TaskClient

PICKUP = 1.3
CLIENT = 1.5
_PAUSE = (0.005, 0.020)
_TIMEOUT = 10.0


def pickup(bench: Bench, pushes: int, progress: Callable[[str], None]) -> Iterator[Row]:
    """Push tasks one by one, with pauses; measure PING as well, for the machine's share of the time."""
    connection = bench.connection()
    pings = [_timed_ping(connection) for _ in range(pushes)]
    connection.disconnect()
    yield _row("PING alone, the floor", pings)
    bare = None
    for contender in (bare_loop(), worker("sum", "sum", "--concurrency", "4")):
        with bench.warmed_up(contender) as process, closing(_Watch(bench)) as watch:
            times = [watch.timed_task(process, number) for number in range(pushes)]
            bench.verify(contender, pushes)
        progress(f"{contender.name}: {median(times):.3f} ms")
        yield _row(contender.name, times, bare)
        bare = bare or median(times)
    with bench.warmed_up(worker("sum", "sum", "--concurrency", "4")):
        bench.redis.config_set("notify-keyspace-events", "")
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            times = runner.run(_submitted(bench.url, pushes))
    yield _row("a waiting TaskClient", times, bare, CLIENT)


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


def _row(name: str, times: list[float], bare: float | None = None, most: float = PICKUP) -> Row:
    name, figure, spread = f"pick-up, median: {name}", f"{median(times):.2f} ms", f"p99 {_p99(times):.2f} ms"
    if bare is None:
        return Row(name, figure, spread)
    ratio = median(times) / bare
    return Row(name, figure, spread, ratio, f"at most {most}", ratio <= most)


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
