"""A fast task waits little longer than in an ideal schedule, though slow ones take slots: in simulated time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from benchmarks.slow import CONCURRENCY, EXCESS, FAST, SLOTS, SLOW, WORKERS, Pushed, arrivals, ideal_starts
from redis_worker.engine.handler import Handler
from redis_worker.engine.reading import TaskReader
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.runner import Runner
from redis_worker.engine.settler import Settler
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.engine.thread_runner import ThreadRunner
from redis_worker.engine.worker import Worker
from redis_worker.ports import Observer
from redis_worker.vocabulary.task import Delivery
from tests.simulated import Clock, Receipt, Server, Shelf, Thread, task

# Timers, and threads, are up to this late, in seconds.
_LATE = 0.000_2


class Work:
    """Tasks of known run times, which note when they start."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._chance = random.Random(0)
        self.begun: dict[Any, float] = {}

    def _begin(self, id: Any, seconds: float) -> float:
        self.begun[id] = self._clock.now
        return seconds + self._chance.random() * _LATE

    async def sleep(self, arguments: list[Any]) -> None:
        await asyncio.sleep(self._begin(*arguments))

    def wait(self, arguments: list[Any]) -> None:
        self._clock.sleep_in_thread(self._begin(*arguments))

    def coroutines(self, settler: Settler) -> Runner:
        return TaskRunner(_handler(self.sleep), settler, CONCURRENCY)

    def threads(self, settler: Settler) -> Runner:
        return ThreadRunner(_handler(self.wait), settler, CONCURRENCY)


def _handler(call: Any) -> Handler:
    return Handler(TaskReader(lambda arguments: arguments, 3).read, call, None, None, RetryPolicy())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    clock.holds(monkeypatch)
    with closing(clock.loop):
        yield clock


@pytest.mark.parametrize("kind", ["coroutines", "threads"])
@pytest.mark.parametrize("seed", [5, 6])
def test_a_fast_task_waits_no_longer_than_the_bound(clock: Clock, kind: str, seed: int) -> None:
    """Beyond the ideal schedule, which has all slots of all workers."""
    work = Work(clock)
    run = _run(clock, getattr(work, kind), seconds=3.0, chance=random.Random(seed))
    pushed = clock.loop.run_until_complete(run)
    ideal = ideal_starts(pushed, SLOTS)
    excess = [work.begun[one.id] - ideal[one.id] for one in pushed if one.seconds == FAST]
    assert max(excess) < EXCESS


async def _run(clock: Clock, runner: Any, seconds: float, chance: random.Random) -> list[Pushed]:
    """Push tasks, and have the workers run them all; return these."""
    server, pushed = Server(), list[Pushed]()
    workers = [Worker(Shelf(server), runner, None, Observer(), shutdown_timeout=1.0) for _ in range(WORKERS)]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    start = 0.1
    for at, times in arrivals(seconds, chance):
        await asyncio.sleep(start + at - clock.now)
        tasks = [Pushed(str(number), clock.now, took) for number, took in enumerate(times, len(pushed))]
        for one in tasks:
            server.push(task(one.id, [one.id, one.seconds]))
        pushed += tasks
    while server.settled < len(pushed):
        await asyncio.sleep(0.1)
    for worker in workers:
        worker.stop()
    await asyncio.gather(*running)
    return pushed


def test_what_starts_at_once_is_not_late(clock: Clock) -> None:
    """Beside a slow task; the others behind it are."""

    async def late() -> tuple[int, int]:
        work = Work(clock)
        runner = work.coroutines(Settler(Shelf(Server()), Reconnect(Observer()), Observer()))
        running = asyncio.create_task(runner.run())
        runner.add([_delivery("slow", SLOW)])
        await asyncio.sleep(SLOW / 2)
        running.cancel()  # it starts no more
        runner.add([_delivery("at once", FAST)])
        first = runner.late()
        runner.add([_delivery(str(number), FAST) for number in range(CONCURRENCY)])
        both = first, runner.late()
        await asyncio.sleep(SLOW)  # it ends
        return both

    assert clock.loop.run_until_complete(late()) == (0, 2)


def test_what_no_thread_has_taken_is_claimed_again_at_once(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as it was handed back: slots are free, and no end of a task would show that."""

    start, failures = Thread.start, [RuntimeError("can't start new thread")]

    def fail_once(thread: Any) -> None:
        if failures:
            raise failures.pop()
        start(thread)

    async def begin() -> float:
        server, work = Server(), Work(clock)
        worker = Worker(Shelf(server), work.threads, None, Observer(), shutdown_timeout=1.0)
        running = asyncio.create_task(worker.run())
        for number in range(CONCURRENCY):
            server.push(task(number, [number, FAST]))
        while server.settled < CONCURRENCY:
            await asyncio.sleep(0.001)
        worker.stop()
        await running
        return max(work.begun.values())

    monkeypatch.setattr(Thread, "start", fail_once)
    assert clock.loop.run_until_complete(begin()) < EXCESS


def _delivery(id: str, seconds: float) -> Delivery:
    return Delivery(task(id, [id, seconds]), Receipt())
