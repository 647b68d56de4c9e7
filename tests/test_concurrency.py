"""Concurrency is a hard cap; the event loop stays free; time limits end what can be ended."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from redis_worker import ConfigurationError, Observer, WorkerPool, processor, start_worker_pool
from redis_worker.embedded import EmbeddedServer
from tests import processors
from tests.support import PATIENCE, Queue, WorkerProcess, ended_in_time, rounds_until, wait_until

Start = Callable[..., WorkerProcess]


class Gauge:
    """How many run at once, at the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@pytest.fixture
def drain(server: EmbeddedServer, queue: Queue) -> Any:
    async def drain(processor: Any, concurrency: int = 4, **options: Any) -> Any:
        return await start_worker_pool(
            server.url, queue.keys.waiting, queue.keys.output, "list", processor, concurrency, burst=True, **options
        )

    return drain


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_never_more_coroutines_than_slots(queue: Queue, drain: Any, concurrency: int) -> None:
    gauge = Gauge()

    async def work(arguments: list[int]) -> None:
        with gauge:
            if arguments[0] < concurrency:
                await wait_until(lambda: gauge.most == concurrency, "all slots to be in use")
            await asyncio.sleep(0.001 * (arguments[0] % 7))

    await queue.push_tasks([[n] for n in range(300)])
    await drain(work, concurrency)
    assert gauge.most == concurrency
    assert len(await queue.results()) == 300


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_never_more_threads_than_slots(queue: Queue, drain: Any, concurrency: int) -> None:
    gauge = Gauge()

    def work(arguments: list[int]) -> None:
        with gauge:
            if arguments[0] < concurrency:
                assert ended_in_time(lambda: gauge.most == concurrency, PATIENCE), "all slots to be in use"
            time.sleep(0.001 * (arguments[0] % 7))

    await queue.push_tasks([[n] for n in range(300)])
    await drain(work, concurrency)
    assert gauge.most == concurrency


async def test_never_more_processes_than_slots(queue: Queue, drain: Any) -> None:
    await queue.push_tasks([["pid"]] * 60)
    await drain(processors.in_process, 3)
    pids = {result["result"] for result in (await queue.results()).values()}
    assert 1 <= len(pids) <= 3
    assert os.getpid() not in pids


async def test_a_thread_past_its_time_limit_keeps_its_slot(queue: Queue, drain: Any) -> None:
    gauge = Gauge()

    def work(arguments: list[float]) -> str:
        with gauge:
            time.sleep(arguments[0])
        return "done"

    await queue.push_tasks([[1.5], [1.5], [0], [0]])
    await drain(work, 2, timeout=0.5)
    results = await queue.results()
    assert results["0"] == {"status": "error", "error": "Processing error: timed out after 0.5 s"}
    assert results["2"] == {"status": "success", "result": "done"}
    assert gauge.most == 2


async def test_the_time_limit_of_a_thread_holds_for_the_parser_too(server: EmbeddedServer, queue: Queue) -> None:
    gate = threading.Event()

    def parser(task: str) -> list[Any]:
        if task == "slow":
            gate.wait()
        return [task]

    keys = (server.url, queue.keys.waiting, queue.keys.output, parser, lambda arguments: arguments[0], 2)
    await queue.push_tasks(["slow", "quick"])
    async with WorkerPool(*keys, execution="thread", timeout=1):
        try:
            await wait_until(lambda: queue.answered(2))
            assert await queue.result(0) == {"status": "error", "error": "Processing error: timed out after 1 s"}
            assert await queue.result(1) == {"status": "success", "result": "quick"}
        finally:
            gate.set()


async def test_a_coroutine_past_its_time_limit_is_cancelled(queue: Queue, drain: Any) -> None:
    cancelled = asyncio.Event()

    async def work(arguments: list[float]) -> None:
        try:
            await asyncio.sleep(arguments[0])
        except asyncio.CancelledError:
            cancelled.set()
            raise

    await queue.push_tasks([[600]])
    await drain(work, timeout=0.05)
    assert cancelled.is_set()
    assert await queue.result(0) == {"status": "error", "error": "Processing error: timed out after 0.05 s"}


async def test_one_time_limit_holds_for_a_thread_and_for_what_it_returns(queue: Queue, drain: Any) -> None:
    """Each takes less than the limit, and both together more, however fast the machine."""

    def work(arguments: list[float]) -> Any:
        time.sleep(arguments[0])
        return asyncio.sleep(arguments[0], "done")

    await queue.push_tasks([[0.6]])
    await drain(work, timeout=1)
    assert await queue.result(0) == {"status": "error", "error": "Processing error: timed out after 1 s"}


async def test_a_timeout_of_the_processor_itself_is_its_error(queue: Queue, drain: Any) -> None:
    async def work(_: list[Any]) -> None:
        raise TimeoutError("the other side is slow")

    await queue.push_tasks([[]])
    await drain(work, timeout=60)
    assert await queue.result(0) == {"status": "error", "error": "Processing error: the other side is slow"}


async def test_a_process_past_its_time_limit_is_killed(queue: Queue, drain: Any) -> None:
    await queue.push_tasks([["sleep", 600], ["pid"]])
    await drain(processors.in_process, 1, timeout=3.0)
    results = await queue.results()
    assert results["0"]["error"] == "Processing error: timed out after 3 s"
    assert results["1"]["status"] == "success"


async def test_a_process_that_dies_takes_no_other_task_along(queue: Queue, drain: Any) -> None:
    await queue.push_tasks([["pid"], ["die"], ["raise"], *[["sleep", 0.1]] * 5])
    await drain(processors.in_process, 2)
    results = await queue.results()
    assert results.pop("1")["error"] == "Processing error: the process that ran the task died, 3 times"
    assert results.pop("2")["error"] == "Processing error: no"
    assert {result["status"] for result in results.values()} == {"success"}


class Blocked(Observer):
    def __init__(self) -> None:
        self.reports: list[tuple[float, str]] = []

    def blocked(self, seconds: float, stack: str) -> None:
        self.reports.append((seconds, stack))


async def test_a_blocked_loop_is_reported_with_the_stack_that_blocks_it(queue: Queue, drain: Any) -> None:
    observer = Blocked()
    async for id in rounds_until(lambda: observer.reports, "a block to be noticed"):
        await queue.push_tasks([[1.5]], first=id)
        await drain(processors.block, observers=[observer])
    [(seconds, stack)] = observer.reports
    assert seconds >= 1
    assert "in block" in stack
    assert "processors.py" in stack


async def test_a_blocked_loop_does_not_cost_the_lease(queue: Queue, worker: Start) -> None:
    """A loop blocked for longer than a lease: the other worker sees a living one, and the task is done once.

    The lease is as long as a machine may stand still without harm: two thirds of it.
    """
    processes = [await worker("--lease", "5", processor="tests.processors:block").started() for _ in range(2)]
    await queue.push_tasks([[7.5]])
    await wait_until(lambda: queue.answered(1))
    assert sum("the event loop has been blocked" in process.log for process in processes) == 1
    for process in processes:
        assert "recovered" not in process.log
        process.signal(15)
        assert await process.ended() == 0
        assert "presumed dead" not in process.log


def sleeper() -> tuple[Any, list[int]]:
    """Return a processor that sleeps for its first argument, and the second arguments of those that have ended."""
    done: list[int] = []

    async def work(arguments: list[Any]) -> None:
        await asyncio.sleep(arguments[0])
        done.append(arguments[1])

    return work, done


async def test_a_stalled_worker_hands_back_what_it_claimed_ahead(server: EmbeddedServer, queue: Queue) -> None:
    """Quick tasks make the worker claim ahead; when slow ones fill its slots, the surplus goes to others."""

    work, done = sleeper()
    other, others = sleeper()
    names = (queue.keys.waiting, queue.keys.output, "list")
    await queue.push_tasks(
        [[0, n] for n in range(2000)] + [[600, 2000], [600, 2001]] + [[0, n] for n in range(2002, 2100)]
    )
    async with WorkerPool(server.url, *names, work, 2, shutdown_timeout=0) as pool:
        await wait_until(lambda: len(done) == 2000 and pool.running == 2)
        async with WorkerPool(server.url, *names, other, 2, shutdown_timeout=0):
            await wait_until(lambda: len(others) == 98)
    await queue.redis.delete(queue.keys.waiting)


async def test_what_a_slow_task_delays_goes_to_others_though_another_slot_turns(
    server: EmbeddedServer, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one slot that is left would start the rest, one after the other, while other workers idle."""
    # On a busy machine the slot may stand still.
    monkeypatch.setattr("redis_worker.engine.runner.Runner._stands_still", lambda _, __: False)

    work, done = sleeper()
    other, others = sleeper()
    names = (queue.keys.waiting, queue.keys.output, "list")
    # Quick tasks make the worker claim ahead, all that follow the slow one.
    await queue.push_tasks([[0, n] for n in range(2000)] + [[600, 2000]] + [[0.01, n] for n in range(2001, 2201)])
    async with WorkerPool(server.url, *names, work, 2, shutdown_timeout=0) as pool:
        await wait_until(lambda: len(done) >= 2000 and pool.running == 2)
        async with WorkerPool(server.url, *names, other, 2, shutdown_timeout=0):
            await wait_until(lambda: len(done) + len(others) == 2200)
    assert len(others) > 50


@pytest.mark.parametrize(
    "raised",
    [SystemExit(3), asyncio.CancelledError(), StopIteration("x"), KeyError("k"), GeneratorExit(), ValueError()],
)
@pytest.mark.parametrize("kind", ["inline", "thread", "async"])
async def test_whatever_a_processor_raises_is_its_error(
    queue: Queue, drain: Any, raised: BaseException, kind: Any
) -> None:
    if kind == "async":

        async def work(arguments: list[Any]) -> Any:
            if arguments:
                raise raised
            return "fine"
    else:

        @processor(execution=kind)
        def work(arguments: list[Any]) -> Any:
            if arguments:
                raise raised
            return "fine"

    await queue.push_tasks([[1], []])
    await drain(work, 1)
    results = await queue.results()
    assert results["0"]["error"].startswith("Processing error: ")
    assert len(results["0"]["error"]) > len("Processing error: ")
    assert results["1"] == {"status": "success", "result": "fine"}


async def test_what_cannot_be_sent_to_a_process_is_refused_at_start(drain: Any) -> None:
    with pytest.raises(ConfigurationError, match="top level of a module"):
        await drain(lambda arguments: arguments, execution="process")
