"""The pool of daemon threads: what the executor of the standard library promises, but for the wait at the end."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from redis_worker.engine.thread_pool import ThreadPool
from tests.support import PATIENCE, ended_in_time


async def test_calls_are_answered_in_as_many_threads_as_allowed() -> None:
    pool = ThreadPool(3, "test")
    lock, running, most = threading.Lock(), 0, 0
    used: set[str] = set()

    def call(n: int, sign: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
            used.add(threading.current_thread().name)
        time.sleep(0.001)
        with lock:
            running -= 1
        return n * sign

    assert await asyncio.gather(*(pool.run(call, n, -1) for n in range(100))) == [-n for n in range(100)]
    assert most == 3
    assert used == {"test_0", "test_1", "test_2"}
    pool.close()


async def test_one_call_after_another_needs_one_thread() -> None:
    pool = ThreadPool(8, "test")
    assert {await pool.run(threading.get_ident) for _ in range(50)} == {await pool.run(threading.get_ident)}
    pool.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError("no")])
async def test_what_a_call_raises_is_raised(error: BaseException) -> None:
    pool = ThreadPool(1, "test")

    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        await pool.run(fail)
    assert await pool.run(lambda: 1) == 1
    pool.close()


async def test_stop_iteration_is_an_error_as_any_other() -> None:
    pool = ThreadPool(1, "test")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await pool.run(next, iter(()))
    pool.close()


async def test_a_call_that_is_cancelled_before_it_begins_is_not_made() -> None:
    pool = ThreadPool(1, "test")
    begun, gate, made = threading.Event(), threading.Event(), list[int]()

    def block() -> None:
        begun.set()
        gate.wait()

    first, second = pool.run(block), pool.run(made.append, 1)
    await asyncio.to_thread(begun.wait)
    second.cancel()
    first.cancel()  # it goes on regardless, and nobody hears of it
    gate.set()
    await pool.run(made.append, 2)
    assert made == [2]
    pool.close()


async def test_a_closed_pool_begins_nothing_and_its_threads_end() -> None:
    pool = ThreadPool(1, "test-close")
    begun, gate, made = threading.Event(), threading.Event(), list[int]()

    def block() -> str:
        begun.set()
        gate.wait()
        return "done"

    first, second = pool.run(block), pool.run(made.append, 1)
    await asyncio.to_thread(begun.wait)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("test-close")]
    pool.close()
    gate.set()
    assert await first == "done"  # what has begun is answered
    await asyncio.wait({second})
    assert second.cancelled()
    assert made == []
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
        assert not thread.is_alive()


async def test_results_of_a_busy_time_wake_the_loop_once() -> None:
    pool = ThreadPool(4, "test")
    loop = asyncio.get_running_loop()
    woken, done = 0, list[int]()
    wake = loop.call_soon_threadsafe

    def work(number: int) -> int:
        done.append(number)
        return number

    def count(*arguments: object, **more: object) -> asyncio.Handle:
        nonlocal woken
        woken += 1
        return wake(*arguments, **more)  # type: ignore[arg-type]

    loop.call_soon_threadsafe = count  # type: ignore[method-assign, assignment]
    try:
        calls = [pool.run(work, n) for n in range(100)]
        assert ended_in_time(lambda: len(done) == 100, PATIENCE)  # the loop is busy
        assert await asyncio.gather(*calls) == [*range(100)]
    finally:
        del loop.call_soon_threadsafe  # type: ignore[method-assign]
    assert woken < 10
    pool.close()
