"""Functions as operators see them: in metrics, in log lines, in status; and the ids of tasks of pools in log lines."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from redis_worker import TaskQueue, WorkerPool, current_task, processor
from redis_worker.broker.operator.status import StatusReader
from redis_worker.cli.tables import plain, tables
from redis_worker.embedded import EmbeddedServer
from redis_worker.log_lines import JsonFormatter, TextFormatter
from tests.functions.conftest import Start, end
from tests.support import PATIENCE, Queue, wait_until

logger = logging.getLogger("shop")


@pytest.fixture
def lines() -> Iterator[Callable[[], tuple[str, list[dict[str, Any]]]]]:
    """The log of the library and of the program, as text and as JSON."""
    text, objects = io.StringIO(), io.StringIO()
    handlers = [logging.StreamHandler(text), logging.StreamHandler(objects)]
    handlers[0].setFormatter(TextFormatter())
    handlers[1].setFormatter(JsonFormatter())
    names = [logger, logging.getLogger("redis_worker")]
    for each in names:
        each.setLevel("INFO")
        for handler in handlers:
            each.addHandler(handler)
    yield lambda: (text.getvalue(), [json.loads(line) for line in objects.getvalue().splitlines()])
    for each in names:
        for handler in handlers:
            each.removeHandler(handler)


async def test_log_lines_name_the_task_and_its_function(
    tasks: TaskQueue, lines: Callable[[], tuple[str, list[dict[str, Any]]]]
) -> None:
    @tasks.task
    async def coroutine() -> None:
        logger.info("in a coroutine")
        await asyncio.create_task(helper())

    async def helper() -> None:
        logger.info("in a task of it")

    @tasks.task
    def thread() -> None:
        logger.info("in a thread")
        raise ValueError("no")

    @tasks.task(execution="inline")
    def inline() -> None:
        logger.info("inline")

    functions = (coroutine, thread, inline)
    async with tasks.worker(1):
        handles = await tasks.submit_many([function.options(id=function.name[0]).call() for function in functions])
        await wait_until(lambda: _answered(handles))
        logger.info("outside")
    text, objects = lines()
    seen = {line["message"]: (line.get("task"), line.get("function")) for line in objects}
    assert seen["in a coroutine"] == seen["in a task of it"] == ("c", "coroutine")
    assert seen["in a thread"] == ("t", "thread")
    assert seen["inline"] == ("i", "inline")
    assert seen["outside"] == (None, None)
    (failed,) = [line for line in objects if "failed" in line["message"]]
    assert (failed["task"], failed["function"]) == ("t", "thread")
    assert " [coroutine c] in a coroutine\n" in text
    assert " warning: task t (thread) failed in " in text
    assert text.endswith(" outside\n")


async def _answered(handles: list[Any]) -> bool:
    return [await handle.status() for handle in handles].count("pending") == 0


@pytest.mark.parametrize("execution", ["inline", "thread", "async"])
async def test_log_lines_name_the_task_of_a_pool(
    execution: Any, queue: Queue, server: EmbeddedServer, lines: Callable[[], tuple[str, list[dict[str, Any]]]]
) -> None:
    def plain(arguments: list[Any]) -> None:
        logger.info("at work on %s", arguments[0])

    async def coroutine(arguments: list[Any]) -> None:
        plain(arguments)

    await queue.push_tasks([[number] for number in range(20)])
    call = processor(execution=execution)(coroutine if execution == "async" else plain)
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", call, concurrency=2):
        await wait_until(lambda: queue.answered(20))
    text, objects = lines()
    seen = {line["task"]: line["message"] for line in objects if line["logger"] == "shop"}
    assert seen == {str(number): f"at work on {number}" for number in range(20)}
    assert " [task 7] at work on 7\n" in text


async def test_metrics_and_status_name_the_function(tasks: TaskQueue, queue: Queue, server: EmbeddedServer) -> None:
    go = threading.Event()

    @tasks.task(retries=1, retry_backoff=0.01)
    async def fail() -> None:
        raise ValueError("no")

    @tasks.task
    def slow() -> None:
        current_task().progress(1, 2, "half")
        go.wait(30)

    @tasks.task
    async def unused() -> None: ...

    async with tasks.worker(4, http="127.0.0.1:0") as worker, StatusReader(server.url) as reader:
        failed, running = await tasks.submit_many([fail.call(), slow.options(id="s").call()])
        await queue.push({"id": "u", "task": {"name": "of nobody"}})
        await wait_until(lambda: queue.answered(2))

        async def shown() -> list[tuple[str | None, str | None, str | None]]:
            status = await reader.read()
            return [(task.function, task.progress, task.id) for each in status.workers for task in each.tasks]

        await wait_until(lambda: _equals(shown, [("slow", "1/2 half", "s")]))
        assert " slow 1/2 half s " in "\n".join(map(plain, tables(await reader.read(), 100)))
        go.set()
        await running.result(PATIENCE)
        await wait_until(lambda: worker.counters.processed == 3)
        with await asyncio.to_thread(urlopen, f"http://{worker.http_address}/metrics") as answer:
            metrics = answer.read().decode()

        def count(processor: str, outcome: str) -> float:
            name = f'redis_worker_tasks_total{{outcome="{outcome}",processor="{processor}",queue="{tasks.name}"}} '
            return float(metrics.partition(name)[2].partition("\n")[0])

        assert (count("fail", "dead"), count("fail", "retried"), count("slow", "success")) == (1, 1, 1)
        assert count("unused", "success") == 0
        assert count(tasks.name, "error") == 1  # no series for what a producer makes up
        assert "of nobody" not in metrics
    assert await failed.status() == "failed"
    await queue.redis.delete(queue.keys.dead)
    async for key in queue.redis.scan_iter(f"{queue.keys.progress}:*"):
        await queue.redis.delete(key)


async def _equals(call: Callable[[], Any], value: Any) -> bool:
    return bool(await call() == value)


async def test_a_file_of_functions_alone_is_announced_on_the_server_of_its_queue(
    start: Start, server: EmbeddedServer, queue: Queue, tmp_path: Path
) -> None:
    file = tmp_path / "workers.toml"
    file.write_text('[worker]\nname = "lonely"\n[tasks.shop]\nqueue = "tests.functions.shop:queue"\n', encoding="utf-8")
    process = start("serve", str(file))
    async with StatusReader(server.url) as reader:

        async def parts() -> list[str]:
            found = [each.parts for each in (await reader.read()).supervisors if each.name == "lonely"]
            return [f"{part.name} {part.state}" for parts in found for part in parts]

        await wait_until(lambda: _equals(parts, ["shop running"]))
        await end(process)
        assert await parts() == []
