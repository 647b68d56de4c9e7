"""The registry of workers is damaged under load: no task is stranded, and no living worker is buried."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import pytest

from redis_worker import WorkerPool
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from tests.support import Queue, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]
LEASE = ("--lease", "2")


class Buried(Observer):
    """Notes who was presumed dead."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def recovered(self, worker: str, count: int) -> None:
        self.names.append(worker)

    def lease_lost(self, worker: str) -> None:
        self.names.append(worker)


def pool_on(server: EmbeddedServer, queue: Queue, processor: object = "sum", **options: object) -> WorkerPool:
    keys = queue.keys
    return WorkerPool(server.url, keys.waiting, keys.output, "list", processor, **{"lease": 2.0} | options)  # type: ignore[arg-type]


async def killed(worker: WorkerProcess, queue: Queue, count: int) -> str:
    """The name of `worker`, killed when it holds so many tasks."""
    await worker.started()

    async def holds() -> bool:
        return len(await queue.inflight()) >= count

    await wait_until(holds, "tasks in flight")
    worker.kill()
    [name] = await queue.redis.zrange(queue.keys.workers, 0, -1)
    return str(name.decode())


async def all_gone(queue: Queue, _: str) -> None:
    await queue.redis.delete(queue.keys.workers, queue.keys.retired)


async def entry_gone(queue: Queue, name: str) -> None:
    await queue.redis.zrem(queue.keys.workers, name)


async def replaced(queue: Queue, _: str) -> None:
    await queue.redis.delete(queue.keys.workers)
    await queue.redis.zadd(queue.keys.workers, {b"\xff\xfe": 5})


async def second_registry_gone(queue: Queue, _: str) -> None:
    await queue.redis.delete(queue.keys.claimants)


async def second_registry_is_a_string(queue: Queue, _: str) -> None:
    await queue.redis.set(queue.keys.claimants, "no set")


@pytest.mark.parametrize("damage", [all_gone, entry_gone, replaced, second_registry_gone, second_registry_is_a_string])
async def test_the_tasks_of_a_dead_worker_are_found(
    server: EmbeddedServer, queue: Queue, worker: Start, damage: Callable[[Queue, str], Awaitable[None]]
) -> None:
    keys = queue.keys
    await queue.push_tasks([[60, 1], [60, 2], [60, 3]])
    await damage(queue, await killed(worker(*LEASE, processor="tests.processors:sleep"), queue, 3))
    async with pool_on(server, queue):
        await wait_until(lambda: queue.answered(3), "the tasks to be found again")
    assert await queue.ledger() == {str(id): 1 for id in range(3)}
    await queue.redis.delete(keys.workers, keys.claimants)


async def test_what_comes_late_to_a_retired_worker_is_found_when_the_retired_are_deleted(
    server: EmbeddedServer, queue: Queue, worker: Start
) -> None:
    """By the second copy of its name: the task is answered."""
    keys = queue.keys
    await queue.push_tasks([[60, 1]])
    name = await killed(worker(*LEASE, processor="tests.processors:sleep"), queue, 1)
    async with pool_on(server, queue):
        await wait_until(lambda: queue.answered(1), "the task to be recovered")
        await queue.redis.delete(keys.retired)
        await queue.redis.rpush(keys.arrived(name), b'{"id":"late","task":[2]}')
        await wait_until(lambda: queue.answered(2), "what came late")


async def test_a_living_worker_keeps_what_it_runs(server: EmbeddedServer, queue: Queue) -> None:
    """Its entry vanishes, again and again: it is entered anew, and what runs goes on and runs once."""
    keys, begun, buried, gate = queue.keys, list[int](), Buried(), asyncio.Event()

    async def slow(arguments: list[int]) -> int:
        begun.append(arguments[0])
        await gate.wait()
        return arguments[0]

    async def entered() -> bool:
        return bool(await queue.redis.zcard(keys.workers) == 2)

    async with (  # the first has no slot free, so its keeper has to notice; the second one claims all the time
        pool_on(server, queue, slow, concurrency=3, observers=[buried], lease=6.0),
        pool_on(server, queue, slow, concurrency=8, observers=[buried], lease=6.0),
    ):
        await queue.push_tasks([[number] for number in range(6)])
        await wait_until(lambda: len(begun) == 6, "the tasks to run")
        for _ in range(3):
            await queue.redis.delete(keys.workers)
            await wait_until(entered, "both workers to be entered again")
        gate.set()
        await wait_until(lambda: queue.answered(6), "the results")
    assert (sorted(begun), buried.names) == ([0, 1, 2, 3, 4, 5], [])


async def test_a_worker_that_lost_both_entries_starts_anew(server: EmbeddedServer, queue: Queue) -> None:
    keys = queue.keys
    async with pool_on(server, queue, "tests.processors:sleep"):
        await queue.push_tasks([[3, number] for number in range(4)])
        await wait_until(queue.inflight, "a task in flight")
        await queue.redis.delete(keys.workers, keys.claimants, keys.retired)
        await wait_until(lambda: queue.answered(4), "the results")
    assert await queue.ledger() == {str(id): 1 for id in range(4)}


async def test_names_that_are_no_text_are_left_alone(
    server: EmbeddedServer, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    keys, strange = queue.keys, [b"\xff\xfe", b"caf\xe9"]
    for key in (keys.workers, keys.retired, keys.claimants):
        await queue.redis.zadd(key, dict.fromkeys(strange, time.time() * 1000 + (key != keys.workers) * 600_000))
    with caplog.at_level(logging.WARNING):
        async with pool_on(server, queue):
            await asyncio.sleep(3)
            await queue.push_tasks([[1, 2]])
            await wait_until(lambda: queue.answered(1), "the result")
    for key in (keys.workers, keys.retired):
        assert caplog.text.count(f"the key {key!r} has members that are not UTF-8, which are ignored") == 1
    assert set(strange) <= set(await queue.redis.zrange(keys.workers, 0, -1))
    await queue.redis.delete(keys.workers)
