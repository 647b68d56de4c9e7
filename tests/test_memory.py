"""A worker's memory does not depend on what it has done: neither tasks nor garbage stay behind (docs/benchmarks.md)."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Sequence
from typing import Any

import pytest

from redis_worker import TaskClient, WorkerPool, processor
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import Queue, wait_until

SIZE = 200_000
TASKS = 10_000


@processor
def in_threads(arguments: list[Any]) -> int:
    return len(arguments)


@processor(execution="inline")
def on_the_loop(arguments: list[Any]) -> int:
    return len(arguments)


@processor
async def as_coroutines(arguments: list[Any]) -> int:
    await asyncio.sleep(0)
    return len(arguments)


PLACES = [in_threads, on_the_loop, as_coroutines]


def held(but: Sequence[Any] = ()) -> list[Any]:
    """Return the tasks and outcomes that something refers to, and replies with large ones, `but` what others left."""
    kinds, others = {Delivery, Outcome}, {*map(id, but)}
    return [
        each
        for each in gc.get_objects()
        if (type(each) in kinds or (type(each) is list and has_large(each))) and id(each) not in others
    ]


def has_large(reply: list[Any]) -> bool:
    return any(type(item) is bytes and len(item) > SIZE for item in reply)


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("work", PLACES)
async def test_an_idle_worker_holds_no_task(server: EmbeddedServer, queue: Queue, work: Any, delivery: str) -> None:
    keys, earlier = queue.keys, held()
    async with WorkerPool(server.url, keys.waiting, keys.output, "list", work, 4, delivery=delivery):
        await queue.push_tasks([[n] for n in range(3000)])
        await queue.push_tasks([["x" * SIZE]] * 20, 3000)
        await wait_until(lambda: queue.answered(3020), "all results")
        await wait_until(lambda: not held(earlier), "the last task to be forgotten")


async def test_a_client_keeps_no_reply(server: EmbeddedServer, queue: Queue) -> None:
    earlier = held()
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        await queue.redis.hset(queue.keys.output, "1", json.dumps({"status": "success", "result": "x" * SIZE}))
        assert len(await client.result(1)) == SIZE
        await wait_until(lambda: not held(earlier), "the reply to be forgotten")


@pytest.mark.parametrize("work", PLACES)
async def test_tasks_leave_no_cyclic_garbage(server: EmbeddedServer, queue: Queue, work: Any) -> None:
    """A collection finds nothing of them, and may come seldom. A cycle would have two objects at least."""
    keys = queue.keys
    async with WorkerPool(server.url, keys.waiting, keys.output, "list", work, 4):
        await queue.push_tasks([[n] for n in range(100)])
        await wait_until(lambda: queue.answered(100), "the first results")
        gc.collect()
        gc.disable()
        try:
            await queue.push_tasks([[n] for n in range(TASKS)], 100)
            await wait_until(lambda: queue.answered(100 + TASKS), "all results")
            found = gc.collect()
        finally:
            gc.enable()
    assert found < TASKS
