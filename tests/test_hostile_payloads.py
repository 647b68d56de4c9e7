"""Payloads and values that one reader of JSON takes and another does not, or that take seconds to read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from redis_worker import TopicWorker, start_worker_pool
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.long_integers import MAX_DIGITS
from tests.support import Queue, Topic, wait_until

LONG = "1234567890123456789012"
DIGITS = "7" * 10_000_000
UNREADABLE = [
    f'{{"id":"\\ud800","task":[1,2],"data":1,"pad":{LONG}}}',
    f'{{"id":"a","task":["\\udfff"],"data":"\\udfff","pad":{LONG}}}',
    f'{{"id":"b","task":[1],"data":1,"\\ud800":{LONG}}}',
    f'{{"id":"c","task":[1],"data":1,"pad":{DIGITS}}}',
    f'{{"id":"d","task":[1],"data":1,"pad":0.{DIGITS}}}',
    f'{{"id":{DIGITS},"task":[1],"data":1}}',
    f'{{"id":"e","task":{"[" * 1_000_000}{LONG}{"]" * 1_000_000},"data":1}}',
]
VALUES = {
    "half": lambda: "\ud800",
    "half key": lambda: {"\udfff": 1},
    "nested": lambda: {"a": [int(LONG), {"b": "\ud800"}]},
    "digits": lambda: 1 << 40_000_000,
    "nested digits": lambda: {"a": [1, 10**MAX_DIGITS]},
}


def value(arguments: list[Any]) -> Any:
    made = VALUES.get(arguments[0])
    return made() if made else arguments[0]


async def value_later(arguments: list[Any]) -> Any:
    return value(arguments)


async def drain(server: EmbeddedServer, queue: Queue, processor: Any, **options: Any) -> None:
    keys = queue.keys
    await start_worker_pool(server.url, keys.waiting, keys.output, "list", processor, burst=True, **options)


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_unreadable_payloads_become_dead_letters_and_neighbours_are_answered(
    server: EmbeddedServer, queue: Queue, delivery: str
) -> None:
    payloads = [payload.encode() for payload in UNREADABLE]
    good = [b'{"id":"g%d","task":[%d]}' % (number, number) for number in range(len(payloads))]
    await queue.push(*(raw for pair in zip(payloads, good, strict=True) for raw in pair))
    async with asyncio.timeout(60):
        await drain(server, queue, value, delivery=delivery)
    assert await queue.results() == {f"g{n}": {"status": "success", "result": n} for n in range(len(payloads))}
    letters = await queue.dead()
    assert sorted(letter["raw"] for letter in letters) == sorted(UNREADABLE)
    assert all(letter["reason"].startswith("not JSON: ") for letter in letters)


@pytest.mark.parametrize("execution", ["inline", "thread", "process", "coroutine"])
async def test_a_value_that_json_does_not_hold_is_an_error_of_its_task_alone(
    server: EmbeddedServer, queue: Queue, execution: str
) -> None:
    await queue.push_tasks([[name] for name in (*VALUES, "good")])
    options = {} if execution == "coroutine" else {"execution": execution}
    async with asyncio.timeout(60):
        await drain(server, queue, value_later if execution == "coroutine" else value, **options)
    results = await queue.results()
    assert results.pop(str(len(VALUES))) == {"status": "success", "result": "good"}
    assert len(results) == len(VALUES)
    for number, name in enumerate(VALUES):
        result = results[str(number)]
        assert result["status"] == "error"
        assert result["error"].startswith("Processing error: ")
        assert ("digits" in name) == (f"more than {MAX_DIGITS} digits" in result["error"])


@pytest.mark.parametrize("batches", [False, True])
async def test_messages_too(server: EmbeddedServer, topic: Topic, batches: bool) -> None:
    worker, seen = TopicWorker(server.url), []

    if batches:

        @worker.batch_handler(topic.name, size=3, within=0.05)
        async def handle_all(messages: Any) -> None:
            seen.extend(message.id for message in messages)
    else:

        @worker.handler(topic.name)
        async def handle(message: Any) -> None:
            seen.append(message.id)

    good = [b'{"id":"g%d","data":1}' % number for number in range(len(UNREADABLE))]
    await topic.push(*(raw for pair in zip(map(str.encode, UNREADABLE), good, strict=True) for raw in pair))
    async with asyncio.timeout(60):
        work = asyncio.create_task(worker.run())
        await wait_until(lambda: len(seen) == len(good) or work.done())
        worker.stop()
        await work
    assert sorted(seen) == sorted(f"g{number}" for number in range(len(good)))
    assert sorted(letter["raw"] for letter in await topic.dead()) == sorted(UNREADABLE)
