"""Functions of one queue that run in different places: one number of slots, one order, each kind as it promises."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from typing import Any

from redis_worker import TaskError, TaskQueue, current_task
from redis_worker.embedded import EmbeddedServer
from tests.functions.children import die, hang, in_process, pid, slept
from tests.support import PATIENCE, Queue, wait_until

SLOTS = 3


async def test_one_number_of_slots_for_all(tasks: TaskQueue, queue: Queue) -> None:
    late: list[list[float]] = []

    @tasks.task
    async def coroutine(seconds: float) -> list[float]:
        begun = time.monotonic()
        await asyncio.sleep(seconds)
        return [begun, time.monotonic()]

    @tasks.task
    def thread(seconds: float) -> list[float]:
        return slept(seconds)

    @tasks.task(timeout=0.02)
    def too_late(seconds: float) -> None:
        late.append(slept(seconds + 0.05))  # and keeps its slot until here

    @tasks.task(execution="inline")
    def inline(seconds: float) -> list[float]:
        return slept(seconds / 10)

    tasks.functions["in_process"] = in_process
    kinds = (coroutine, thread, too_late, inline, in_process)
    chance = random.Random(7)
    calls = [chance.choice(kinds).call(chance.choice((0.0, 0.003, 0.03))) for _ in range(150)]
    calls += [kind.call(0.0) for kind in kinds for _ in range(20)]  # many of a kind in a row
    async with tasks.worker(SLOTS) as worker:
        handles = await tasks.submit_many(calls)
        values: list[Any] = [await _answer(handle) for handle in handles]
        await wait_until(lambda: worker.running == 0)
    spans = late + [value for value in values if isinstance(value, list)]
    assert len(spans) == len(calls)
    others = {value for value in values if not isinstance(value, list)}
    # A machine that is busy looks at the limit after the end: None is the result of `too_late`.
    assert "Processing error: timed out after 0.02 s" in others
    assert others <= {"Processing error: timed out after 0.02 s", None}
    begins_and_ends = sorted(itertools.chain(*(((begun, 1), (ended, -1)) for begun, ended in spans)))
    assert max(itertools.accumulate(step for _, step in begins_and_ends)) == SLOTS


async def _answer(handle: Any) -> Any:
    try:
        return await handle.result(PATIENCE)
    except TaskError as error:
        return error.error


async def test_with_one_slot_they_start_in_order(tasks: TaskQueue) -> None:
    started: list[int] = []

    @tasks.task
    async def coroutine(number: int) -> None:
        started.append(number)

    @tasks.task
    def thread(number: int) -> None:
        started.append(number)

    @tasks.task(execution="inline")
    def inline(number: int) -> None:
        started.append(number)

    kinds = (coroutine, thread, inline)
    chance = random.Random(7)
    handles = await tasks.submit_many([chance.choice(kinds).call(number) for number in range(1000)])
    async with tasks.worker(1):
        await handles[-1].result(PATIENCE)
    assert started == [*range(1000)]


async def test_functions_share_children_and_each_is_blamed_for_itself_only(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task
    async def coroutine() -> str:
        return "well"

    for function in (in_process, pid, die, hang):
        tasks.functions[function.name] = function
    calls = [pid.call(), in_process.call(0.0), pid.call(), die.call(), pid.call(), hang.call(), pid.call()]
    async with tasks.worker(1):
        handles = await tasks.submit_many([*calls, coroutine.call()])
        first, _, second, died, third, hung, fourth, well = [await _answer(handle) for handle in handles]
    assert first == second
    assert len({second, third, fourth}) == 3
    assert died == "Processing error: the process that ran the task died, 3 times"
    assert hung == "Processing error: timed out after 0.1 s"
    assert well == "well"


async def test_a_stop_returns_what_has_not_started_and_all_show_while_they_run(
    tasks: TaskQueue, queue: Queue, server: EmbeddedServer
) -> None:
    go, leave = asyncio.Event(), threading.Event()

    @tasks.task
    async def coroutine() -> str:
        await go.wait()
        return current_task().function

    @tasks.task
    def thread() -> str:
        leave.wait(30)
        return current_task().function

    async with tasks.worker(2) as worker:
        running = await tasks.submit_many([coroutine.call(), thread.call()])
        await wait_until(lambda: "leave.wait" in "".join(task.stack for task in worker.running_tasks()))
        await wait_until(lambda: "go.wait" in "".join(task.stack for task in worker.running_tasks()))
        assert [(task.id, task.function) for task in worker.running_tasks()] == [
            (handle.id, function.name) for handle, function in zip(running, (coroutine, thread), strict=True)
        ]
        others = await tasks.submit_many([thread.call(), coroutine.call(), thread.call()])
        worker.stop()
        go.set()
        leave.set()
        assert [await handle.result(PATIENCE) for handle in running] == ["coroutine", "thread"]
    assert [handle.id in task.decode() for handle, task in zip(others, await queue.waiting(), strict=True)] == [
        True
    ] * 3
    async with tasks.worker(2):
        assert [await handle.result(PATIENCE) for handle in others] == ["thread", "coroutine", "thread"]
