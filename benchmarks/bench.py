"""The measuring side: fills the queue, waits for contenders and verifies their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from redis import Redis

from benchmarks.contenders import INPUT, OUTPUT, Contender, Running, running
from redis_worker.broker.keys import tagged

# Tasks are prepared under this key, which is then renamed to the queue.
_FILLED = "bench:filled"
_PUSH = 1000
_WARM_UP = 500
_SAMPLE = 1000
_TIMEOUT = 120.0
# The measuring process shares two cores with the contender and the server: at this interval it takes about one
# hundredth of a core, and the error of the measurement is as small.
LOOK_EVERY = 0.005


class WrongResult(Exception):
    """Raised when a contender wrote a wrong result."""


class Drained(NamedTuple):
    """What a drain has measured."""

    rate: float
    """Tasks per second."""
    cost: tuple[float, float]
    """CPU time for each task, in microseconds: of the contender with its child processes, and of the server."""


class Bench:
    """The queue on one server, with the operations of the measuring process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Any = Redis.from_url(url)

    def close(self) -> None:
        """Close the client."""
        self.redis.close()

    def connection(self) -> Any:
        """Return a bare connection; the caller disconnects it."""
        connection: Any = Redis.from_url(self.url, protocol=2).connection_pool.make_connection()
        connection.connect()
        return connection

    @contextmanager
    def warmed_up(self, contender: Contender) -> Iterator[Running]:
        """Start the contender on an empty server, warm it up, and wait until it idles."""
        self.redis.flushall()
        with running(contender, self.url) as process:
            self.fill(_WARM_UP, contender=contender)
            self.drain(process, _WARM_UP)
            self.redis.delete(OUTPUT)
            self.wait(process, self.idles)
            yield process

    def fill(self, count: int, padding: int = 0, contender: Contender | None = None) -> None:
        """Prepare `count` tasks of three integers, each with `padding` bytes that processors ignore.

        For a contender with functions they are calls of these.
        """
        self.redis.delete(_FILLED)
        if contender is not None and contender.functions:
            from benchmarks.function_tasks import fill

            fill(self.url, _FILLED, contender, count)
            return
        for first in range(0, count, _PUSH):
            numbers = range(first, min(first + _PUSH, count))
            self.redis.rpush(_FILLED, *(task(number, padding) for number in numbers))

    def drain(self, process: Running, count: int, look_every: float = LOOK_EVERY) -> Drained:
        """Enqueue the `count` prepared tasks at once; return when all results are written, at most a look later."""
        worker, server = process.cpu(), self.server_cpu()
        begun = time.perf_counter()
        # One step, so that neither the filling nor the start of an interpreter is measured: the contender waits in its
        # blocking pop, and finds the whole queue.
        self.enqueue()
        self.wait(process, lambda: self.redis.hlen(OUTPUT) >= count, look_every)
        seconds = time.perf_counter() - begun
        return Drained(
            count / seconds, ((process.cpu() - worker) * 1e6 / count, (self.server_cpu() - server) * 1e6 / count)
        )

    def enqueue(self) -> None:
        """Enqueue all prepared tasks, with the records of unique ones and the lists of other priorities."""
        for key in self.redis.keys(f"{tagged(_FILLED)}:*"):
            self.redis.rename(key, key.replace(_FILLED.encode(), INPUT.encode()))
        self.redis.rename(_FILLED, INPUT)

    def server_cpu(self) -> float:
        """Return the CPU time of the server so far, in seconds."""
        used = self.redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def verify(self, contender: Contender, count: int) -> None:
        """Verify the number of results and a sample of them. Raises WrongResult."""
        found = self.redis.hlen(OUTPUT)
        if found != count or self.redis.exists(INPUT):
            raise WrongResult(f"{contender.name}: {found} results of {count} tasks")
        if contender.functions:  # its tasks have ids of their own
            results = self.redis.hrandfield(OUTPUT, _SAMPLE, withvalues=True)[1::2]
            if wrong := [result for result in results if result != contender.result(0)]:
                raise WrongResult(f"{contender.name}: the result of a task is {wrong[0]!r}")
            return
        sample = range(0, count, max(1, count // _SAMPLE))
        for number, result in zip(sample, self.redis.hmget(OUTPUT, [f"t{n}" for n in sample]), strict=True):
            if result != contender.result(number):
                raise WrongResult(f"{contender.name}: the result of task {number} is {result!r}")

    def wait(self, process: Running, condition: Callable[[], bool], look_every: float = LOOK_EVERY) -> None:
        """Wait for `condition`. Raises ContenderDied, or TimeoutError after two minutes."""
        end = time.monotonic() + _TIMEOUT
        while not condition():
            process.check()
            if time.monotonic() > end:
                raise TimeoutError(f"{process.contender.name} is not done after {_TIMEOUT:g} s")
            time.sleep(look_every)

    def idles(self) -> bool:
        """Return True if the contender, the only client that blocks, waits in a blocking pop.

        One with priorities waits at the doorbell: it follows changes of the lists.
        """
        clients = self.redis.info("clients")
        return bool(clients["blocked_clients"] or self.redis.exists(f"{tagged(INPUT)}:priorities"))


def task(number: int, padding: int = 0) -> bytes:
    """Return task `number`; its result is `number` plus five."""
    rest = b',"padding":"%b"' % (b"x" * padding) if padding else b""
    return b'{"id":"t%d","task":[%d,2,3],"emit_ts":%.3f%b}' % (number, number, time.time(), rest)
