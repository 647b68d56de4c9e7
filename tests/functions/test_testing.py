"""`queue.testing()`: submitted tasks run at once, in this process and without a server, with errors as in life."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest

from redis_worker import Handle, TaskError, TaskQueue, current_task
from tests.support import PATIENCE


async def test_submitted_tasks_run_at_once() -> None:
    tasks = TaskQueue("redis://localhost:1", "nothing")  # no server is there
    tries: Counter[str] = Counter()
    opened: list[str] = []

    @tasks.lifespan
    async def resources() -> AsyncIterator[str]:
        opened.append("in")
        yield "the database"
        opened.append("out")

    @tasks.task(retries=2)
    async def flaky(name: str) -> tuple[str, int, str]:
        task = current_task()
        tries[name] += 1
        if tries[name] < 3:
            raise ValueError(name)
        return task.function, task.attempt, task.resources

    @tasks.task(retries=1)
    def nested(number: int) -> int:
        if number == 0:
            raise ValueError("nothing")
        return number + nested.submit_sync(number - 1).result_sync() if number > 1 else number

    @tasks.task(execution="process", timeout=0.01)
    def of_process() -> str:
        return str(current_task().resources)

    async with tasks.testing():
        assert await (await flaky.options(delay="1h", id="a").submit("x")).result() == ("flaky", 3, "the database")
        assert await (await nested.submit(3)).result() == 6
        failed = await nested.submit(0)
        with pytest.raises(TaskError, match="Processing error: nothing"):
            await failed.result(timeout=PATIENCE)
        assert await failed.status() == "failed"
        wrong = await flaky.submit(1)  # type: ignore[arg-type]
        with pytest.raises(TaskError, match="Parse error: flaky: argument name: expected str, got int"):
            await wrong.result()
        assert await Handle(tasks, "a").forget()
        with pytest.raises(TimeoutError):
            await Handle(tasks, "a").result(1)
    assert opened == ["in", "out"]
    tasks.close_sync()


def test_without_an_event_loop_and_with_resources_of_the_test() -> None:
    tasks = TaskQueue("redis://localhost:1", "nothing")

    @tasks.task
    async def work() -> str:
        return str(current_task().resources)

    with tasks.testing(resources="a fake"):
        assert work.submit_sync().result_sync() == "a fake"
    tasks.close_sync()
