"""The measuring side: fills the queue, waits for contenders and checks what they have written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from benchmarks.contenders import INPUT, OUTPUT, Contender, Running, running

# Tasks are made ready under this key, and become the queue by being renamed.
_FILLED = "bench:filled"
_PUSH = 1000
_WARM_UP = 500
_SAMPLE = 1000
_TIMEOUT = 120.0
# The measuring process shares two cores with the contender and the server: it looks rarely enough to
# take about one hundredth of one, and what that costs in exactness is as little.
_LOOK_EVERY = 0.005


class WrongResult(Exception):
    """A contender has written something else than the right result."""


class Bench:
    """The queue on one server, and what can be done to it from outside."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Any = Redis.from_url(url)

    def close(self) -> None:
        """Close the connections."""
        self.redis.close()

    def line(self) -> Any:
        """A connection with nothing around it, to be disconnected by the caller."""
        line: Any = Redis.from_url(self.url, protocol=2).connection_pool.make_connection()
        line.connect()
        return line

    @contextmanager
    def warmed_up(self, contender: Contender) -> Iterator[Running]:
        """Start the contender on an empty server, let it work a little, and wait until it idles."""
        self.redis.flushall()
        with running(contender, self.url) as process:
            self.fill(_WARM_UP)
            self.drain(process, _WARM_UP)
            self.redis.delete(OUTPUT)
            self.wait(process, self.idles)
            yield process

    def fill(self, count: int, padding: int = 0) -> None:
        """Make `count` tasks of three integers ready, each with so many bytes that no processor looks at."""
        self.redis.delete(_FILLED)
        for first in range(0, count, _PUSH):
            numbers = range(first, min(first + _PUSH, count))
            self.redis.rpush(_FILLED, *(task(number, padding) for number in numbers))

    def drain(self, process: Running, count: int) -> float:
        """The seconds from when the `count` ready tasks become the queue until all their results are written."""
        begun = time.perf_counter()
        # One step, so that neither the filling nor the start of an interpreter is measured: the
        # contender waits in its blocking pop, and finds the whole queue.
        self.redis.rename(_FILLED, INPUT)
        self.wait(process, lambda: self.redis.hlen(OUTPUT) >= count)
        return time.perf_counter() - begun

    def verify(self, contender: Contender, count: int) -> None:
        """Raises WrongResult where there are not exactly `count` results or one of a sample is wrong."""
        found = self.redis.hlen(OUTPUT)
        if found != count or self.redis.exists(INPUT):
            raise WrongResult(f"{contender.name}: {found} results of {count} tasks")
        sample = range(0, count, max(1, count // _SAMPLE))
        for number, result in zip(sample, self.redis.hmget(OUTPUT, [f"t{n}" for n in sample]), strict=True):
            if result != contender.result(number):
                raise WrongResult(f"{contender.name}: the result of task {number} is {result!r}")

    def wait(self, process: Running, condition: Callable[[], bool]) -> None:
        """Wait for `condition`. Raises ContenderDied, and TimeoutError after two minutes."""
        end = time.monotonic() + _TIMEOUT
        while not condition():
            process.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{process.contender.name} is not done after {_TIMEOUT:g} s")
            time.sleep(_LOOK_EVERY)

    def idles(self) -> bool:
        """Whether the contender waits in a blocking pop: there is nobody else who would."""
        return bool(self.redis.info("clients")["blocked_clients"])


def task(number: int, padding: int = 0) -> bytes:
    """Task `number`, whose sum is five more."""
    rest = b',"padding":"%b"' % (b"x" * padding) if padding else b""
    return b'{"id":"t%d","task":[%d,2,3],"emit_ts":%.3f%b}' % (number, number, time.time(), rest)
