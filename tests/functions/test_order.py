"""Tasks of a key in the order of their submission, each after the one before is answered."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from redis_worker import ConfigurationError, Handle, Reject, Retry, TaskError, TaskQueue
from tests.functions import limited
from tests.functions.conftest import Start, end
from tests.functions.test_flows import is_clean
from tests.functions.test_limits import WORKER, logged
from tests.support import PATIENCE, Queue, wait_until

KEYS = "abc"


async def is_failed(handle: Handle[int]) -> bool:
    """Return True if the task has failed."""
    try:
        await handle.result(PATIENCE)
    except TaskError:
        return True
    return False


async def test_retries_and_failures_keep_the_order(tasks: TaskQueue, queue: Queue) -> None:
    chance = random.Random(5)
    begun: list[tuple[str, int]] = []

    @tasks.task(per_key=1, in_order=True, retries=50, retry_backoff=0.01, retry_backoff_max=0.02)
    async def work(key: str, number: int) -> int:
        begun.append((key, number))
        if chance.random() < 0.3:
            raise Retry
        if number % 7 == 3:
            raise Reject("no")
        return number

    calls = [work.options(key=key).call(key, number) for number in range(30) for key in KEYS]
    async with tasks.worker(8), tasks.worker(8):
        handles = await tasks.submit_many(calls[:10])
        for call in calls[10:20]:
            handles += await tasks.submit_many([call])
        handles += await tasks.submit_many(calls[20:])
        await wait_until(lambda: queue.answered(len(calls)))
        failed = [await is_failed(handle) for handle in handles]
    for key in KEYS:
        assert list(dict.fromkeys(number for name, number in begun if name == key)) == [*range(30)]
        # Nothing of a key begins again once the next one has begun.
        numbers = [number for name, number in begun if name == key]
        assert numbers == sorted(numbers)
    assert failed == [number % 7 == 3 for number in range(30) for _ in KEYS]
    assert await is_clean(queue)


async def test_a_cancelled_one_lets_nothing_overtake(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task(per_key=1, in_order=True)
    async def work(number: int) -> int:
        return number

    first, second, third, fourth = await work.options(key="k").submit_many([(1,), (2,), (3,), (4,)])
    assert await queue.redis.llen(queue.keys.waiting) == 1
    assert await second.cancel()
    assert not await second.cancel()
    with pytest.raises(TaskError, match="cancelled"):
        await second.result(PATIENCE)
    assert await queue.redis.llen(queue.keys.waiting) == 1
    assert await work.options(key="k", id=third.id).submit(9) == third
    assert await first.cancel()  # it is the one that waits in the list
    async with tasks.worker():
        assert [await third.result(PATIENCE), await fourth.result(PATIENCE)] == [3, 4]
    with pytest.raises(TaskError, match="cancelled"):
        await second.result(PATIENCE)
    assert await is_clean(queue)


async def test_a_kill_keeps_the_order(tasks: TaskQueue, start: Start, tmp_path: Path, queue: Queue) -> None:
    step = tasks.task(name="step", per_key=1, in_order=True)(limited.step.__wrapped__)
    calls = [step.options(key=key).call(key, number) for number in range(20) for key in KEYS]
    handles = await tasks.submit_many(calls)
    doomed = start(*WORKER)
    await wait_until(lambda: len(logged(tmp_path, "end")) >= 6)
    other = start(*WORKER)
    doomed.process.kill()
    assert [await handle.result(PATIENCE) for handle in handles] == [number for number in range(20) for _ in KEYS]
    for key in KEYS:
        ended = [int(words[2]) for words in logged(tmp_path, f"end {key}")]
        assert ended == sorted(ended)
        assert set(ended) == {*range(20)}
    await end(other)
    assert await is_clean(queue)


async def test_what_has_no_order(tasks: TaskQueue) -> None:
    @tasks.task(per_key=1, in_order=True)
    async def work(number: int) -> int:
        return number

    with pytest.raises(ConfigurationError, match="in_order=True needs per_key=1"):
        tasks.task(name="other", per_key=2, in_order=True)(work.__wrapped__)
    for options in ({"delay": 1}, {"after": [tasks.handle("1")]}):
        with pytest.raises(ConfigurationError, match="in the order of their submission: leave out after"):
            await work.options(key="k", **options).submit(1)  # type: ignore[arg-type]
