"""Calls of functions: submitted from Python or another language, run as declared, answered with types."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from redis.exceptions import ResponseError

from redis_worker import ConfigurationError, Handle, Reject, Retry, TaskError, TaskQueue, current_task
from tests.support import PATIENCE, Queue, wait_until


async def test_a_function_stays_one_and_is_called_by_name(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task
    async def total(price: Decimal, count: int = 1, *, rebate: Decimal = Decimal(0)) -> Decimal:
        """Return the price of all."""
        return price * count - rebate

    @tasks.task(name="of-thread")
    def thread(*numbers: int, **named: float) -> tuple[list[int], dict[str, float], bool]:
        return [*numbers], named, threading.current_thread() is threading.main_thread()

    assert await total(Decimal("1.5"), 2) == 3  # a plain call
    assert (total.__name__, total.__doc__, total.name, thread.name) == (
        *("total", "Return the price of all.", "total", "of-thread"),
    )
    async with tasks.worker(concurrency=4):
        handles = await tasks.submit_many(
            [total.call(Decimal("1.50"), 3), total.call(Decimal(2), rebate=Decimal("0.1")), thread.call(1, 2, x=0.5)]
        )
        assert [await handle.result(PATIENCE) for handle in handles] == [
            *(Decimal("4.50"), Decimal("1.9")),
            ([1, 2], {"x": 0.5}, False),
        ]
        many = await total.submit_many([(Decimal(number),) for number in range(1500)])
        assert [await handle.result(PATIENCE) for handle in many] == [*range(1500)]
        assert await Handle[Any](tasks, many[7].id).result(PATIENCE) == "7"  # from an id alone: the JSON value
        assert await total.handle(many[7].id).result(PATIENCE) == Decimal(7)


async def test_any_language_calls_and_mistakes_are_explained_and_never_retried(tasks: TaskQueue, queue: Queue) -> None:
    @tasks.task(retries=5, retry_backoff=0.01)
    async def send_mail(to: str, body: str, *, copies: int = 1) -> int:
        return len(to) + len(body)

    calls = {
        "1": ({"name": "send_mail", "args": ["a@example.com"], "kwargs": {"body": "hi"}}, 15),
        "2": ({"name": "send_mail", "kwargs": {"to": "a", "body": "b"}}, 2),
        "3": ({"name": "sned_mail"}, "the queue NAME has no function 'sned_mail'; did you mean send_mail?"),
        "4": ({"name": "send_mail", "args": ["a"]}, "send_mail: argument body is missing"),
        "5": ({"name": "send_mail", "args": ["a", 3]}, "send_mail: argument body: expected str, got int"),
        "6": ({"name": "send_mail", "args": ["a", "b", 3]}, "send_mail: takes 2 arguments by position, got 3"),
        "7": ({"name": "send_mail", "args": ["a"], "kwargs": {"to": "b"}}, "send_mail: argument to is given twice"),
        "8": ({"name": "send_mail", "kwargs": {"cc": "b"}}, "send_mail: takes no argument cc by name"),
        "9": ({"name": "send_mail", "args": "a"}, "send_mail: args is a string, not a list"),
        "10": ([1], "task is a list, not an object with name, args and kwargs"),
        "11": ({"name": 1}, "the name of the function is a number, not a string"),
    }
    await queue.push(*(json.dumps({"id": id, "task": task}).encode() for id, (task, _) in calls.items()))
    await queue.push(b'{"id":"12","retries":"x","task":{"name":"send_mail","args":["a","b"]}}')
    async with tasks.worker() as worker:
        await wait_until(lambda: queue.answered(len(calls) + 1))
    results = await queue.results()
    for id, (_, expected) in calls.items():
        if isinstance(expected, int):
            assert results[id] == {"status": "success", "result": expected}
        else:
            assert results[id]["error"] == f"Parse error: {expected}".replace("NAME", queue.keys.waiting)
    assert results["12"]["error"] == "Parse error: retries is a string, not a number"
    assert worker.counters.retried == 0
    assert await queue.dead() == []


async def test_each_function_has_its_own_retries_and_time_limit(tasks: TaskQueue, queue: Queue) -> None:
    tries: Counter[str] = Counter()

    def failing(name: str) -> None:
        tries[name] += 1
        assert current_task().attempt == tries[name]
        raise ValueError(name)

    @tasks.task(retries=2, retry_backoff=0.01)
    async def twice() -> None:
        failing("twice")

    @tasks.task
    def never() -> None:
        failing("never")

    @tasks.task(retries=1, retry_backoff=0.01, execution="inline")
    def rejected() -> None:
        tries["rejected"] += 1
        raise Reject("no")

    @tasks.task
    def wanted() -> int:
        tries["wanted"] += 1
        if tries["wanted"] < 3:
            raise Retry(delay=0.01)
        return tries["wanted"]

    @tasks.task(timeout=0.05)
    async def slow() -> None:
        deadline = current_task().deadline
        assert deadline is not None
        assert deadline - time.time() < 1
        await asyncio.sleep(60)

    @tasks.task(timeout=30)
    async def quick() -> int:
        return 1

    async with tasks.worker(concurrency=8):
        handles = {
            "no": [await never.submit(), await rejected.submit(), await twice.submit()],
            "often": [await never.options(retries=3).submit()],
        }
        assert await (await wanted.submit()).result(PATIENCE) == 3
        assert await (await quick.submit()).result(PATIENCE) == 1
        with pytest.raises(TaskError, match=r"Processing error: timed out after 0\.05 s"):
            await (await slow.submit()).result(PATIENCE)
        for handle in handles["no"]:
            with pytest.raises(TaskError):
                await handle.result(PATIENCE)
        assert (tries["never"], tries["rejected"], tries["twice"]) == (1, 1, 3) or tries["never"] > 1
        tries["never"] = 0
        with pytest.raises(TaskError):
            await handles["often"][0].result(PATIENCE)
    assert len(await queue.dead()) >= 2


async def test_time_limits_of_threads_differ_by_function(tasks: TaskQueue) -> None:
    ends = threading.Event()

    @tasks.task(timeout=0.1)
    def short() -> None:
        ends.wait(60)

    @tasks.task(timeout=60)
    def long() -> int:
        ends.wait(60)
        return 1

    async with tasks.worker(concurrency=3):
        late = await long.submit()
        with pytest.raises(TaskError, match=r"timed out after 0\.1 s"):
            await (await short.submit()).result(PATIENCE)
        assert await late.status() == "pending"
        ends.set()
        assert await late.result(PATIENCE) == 1


async def test_options_of_a_submission(tasks: TaskQueue, queue: Queue) -> None:
    ran: list[str] = []

    @tasks.task
    async def note(name: str) -> None:
        ran.append(name)

    now = datetime.now(UTC)
    late = await note.options(expires=now - timedelta(seconds=1)).submit("expired")
    named = await note.options(id=7, expires="1h").submit("named")
    await note.options(delay=0.2).submit("delayed")
    await note.options(at=now + timedelta(seconds=0.1)).submit("at")
    async with tasks.worker(concurrency=1):
        with pytest.raises(TaskError, match="Processing error: note has expired before it began"):
            await late.result(PATIENCE)
        await wait_until(lambda: len(ran) == 3)
    assert (named.id, await named.status(), await late.status()) == ("7", "succeeded", "failed")
    assert set(ran) == {"named", "delayed", "at"}
    assert await named.forget()
    assert not await named.forget()
    assert await named.status() == "pending"
    for wrong in ({"delay": -1}, {"delay": 1, "at": now}, {"at": datetime(2020, 1, 1)}, {"retries": -1}, {"x": 1}):
        with pytest.raises(ConfigurationError):
            note.options(**wrong)
    with pytest.raises(TypeError, match="note: missing a required argument: 'name'"):
        await note.submit()  # type: ignore[call-arg]


async def test_programs_without_an_event_loop(tasks: TaskQueue) -> None:
    @tasks.task
    async def double(number: int) -> int:
        return 2 * number

    def program() -> list[int]:
        handles = [double.submit_sync(1), *double.submit_many_sync([(2,), (3,)])]
        values = [handle.result_sync(30) for handle in handles]
        assert handles[0].status_sync() == "succeeded"
        assert handles[0].forget_sync()
        tasks.close_sync()
        return values

    with pytest.raises(ConfigurationError, match="cannot be used inside a running event loop"):
        double.submit_sync(1)
    async with tasks.worker():
        assert await asyncio.to_thread(program) == [2, 4, 6]


async def test_results_expire_and_errors_later(tasks: TaskQueue, queue: Queue, server: Any) -> None:
    short = TaskQueue(server.url, tasks.name, results=tasks.results, result_ttl="100s", error_ttl="1000s")

    @short.task
    async def divide(number: int) -> float:
        return 1 / number

    async with short.worker():
        handles = await short.submit_many([divide.call(1), divide.call(0)])
        await wait_until(lambda: queue.answered(2))
    await short.close()
    try:
        ids = [handle.id for handle in handles]
        ttls = await queue.redis.execute_command("HTTL", tasks.results, "FIELDS", 2, *ids)
    except ResponseError:
        return  # a server without HEXPIRE keeps them, and the worker warns of it
    assert 0 < ttls[0] <= 100 < ttls[1] <= 1000


async def test_results_are_kept_while_errors_expire(server: Any, queue: Queue) -> None:
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output, result_ttl=None, error_ttl="1000s")

    @tasks.task
    async def double(number: int) -> int:
        return 2 * number

    async with tasks.worker():
        assert await (await double.submit(1)).result(PATIENCE) == 2
    assert await queue.redis.hlen(queue.keys.output) == 1
    await tasks.close()
