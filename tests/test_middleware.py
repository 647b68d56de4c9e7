"""Middleware around the calls of pools, topics and functions, wherever they run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest

from redis_worker import (
    CallNext,
    ConfigurationError,
    Message,
    Publisher,
    Reject,
    Retry,
    TaskCall,
    TaskError,
    TaskQueue,
    TopicWorker,
    WorkerPool,
    current_task,
    processor,
)
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.processor import Execution
from tests.support import PATIENCE, Queue, Topic, wait_until

EXECUTIONS = get_args(Execution)


def work(arguments: list[Any]) -> Any:
    """Do what the first argument says."""
    match arguments:
        case ["fail", reason]:
            raise ValueError(reason)
        case ["retry"]:
            raise Retry("not yet", delay=0.01)
        case ["reject"]:
            raise Reject("never")
        case ["nap", seconds]:
            time.sleep(seconds)
        case ["where"]:
            return [threading.current_thread() is threading.main_thread()]
    return arguments


async def work_async(arguments: list[Any]) -> Any:
    if arguments[0] == "nap":
        await asyncio.sleep(arguments[1])
    return work(arguments)


def processor_in(execution: Execution, **options: Any) -> Callable[[list[Any]], Any]:
    async def coroutine(arguments: list[Any]) -> Any:
        return await work_async(arguments)

    return processor(execution=execution, **options)(coroutine if execution == "async" else plain[execution])


def in_process(arguments: list[Any]) -> Any:
    return work(arguments)


def in_thread(arguments: list[Any]) -> Any:
    return work(arguments)


def inline(arguments: list[Any]) -> Any:
    return work(arguments)


plain = {"process": in_process, "thread": in_thread, "inline": inline}


class Noted:
    """A middleware that notes each call and what came of it."""

    def __init__(self) -> None:
        self.calls: list[TaskCall] = []
        self.came: list[Any] = []

    async def __call__(self, task: TaskCall, call_next: CallNext) -> Any:
        self.calls.append(task)
        try:
            value = await call_next(task)
        except BaseException as error:
            self.came.append(error)
            raise
        self.came.append(value)
        return value


class Pooled:
    """Runs a pool with middleware until its tasks are answered."""

    def __init__(self, queue: Queue, server: EmbeddedServer) -> None:
        self._queue = queue
        self._url = server.url

    async def __call__(self, call: Any, middleware: Sequence[Any], *tasks: Any, **options: Any) -> list[Any]:
        keys, options = self._queue.keys, {"concurrency": 4, "middleware": middleware} | options
        await self._queue.push_tasks(tasks)
        pool = WorkerPool(self._url, keys.waiting, keys.output, "list", call, **options)
        async with pool:
            await wait_until(lambda: self._queue.answered(len(tasks)))
        results = await self._queue.results()
        return [results[id].get("result", results[id].get("error")) for id in sorted(results)]


@pytest.fixture
def pooled(queue: Queue, server: EmbeddedServer) -> Pooled:
    return Pooled(queue, server)


@pytest.mark.parametrize("execution", EXECUTIONS)
async def test_around_a_processor(execution: Execution, pooled: Pooled, queue: Queue) -> None:
    noted = Noted()

    async def doubled(task: TaskCall, call_next: CallNext) -> Any:
        assert threading.current_thread() is threading.main_thread()
        return [await call_next(task)] * 2

    call = processor_in(execution)
    results = await pooled(call, [doubled, noted], [1, 2], ["fail", "why"], ["reject"], ["where"], concurrency=1)
    text = "Processing error: "
    assert results == [[[1, 2]] * 2, f"{text}why", f"{text}never", [[execution != "thread"]] * 2]
    assert [(task.id, task.queue, task.name, task.attempt, task.arguments) for task in noted.calls] == [
        (id, queue.keys.waiting, call.__name__, 1, arguments)
        for id, arguments in zip("0123", ([1, 2], ["fail", "why"], ["reject"], ["where"]), strict=True)
    ]
    assert noted.calls[0].members["task"] == [1, 2]
    assert isinstance(noted.came[2], Reject)
    assert str(noted.came[2]) == "never"
    assert "why" in str(noted.came[1])
    assert [letter["reason"] for letter in await queue.dead()] == [f"{text}never"]


@pytest.mark.parametrize("execution", EXECUTIONS)
async def test_retries_of_the_function_and_of_the_middleware(execution: Execution, pooled: Pooled) -> None:
    noted = Noted()

    async def again(task: TaskCall, call_next: CallNext) -> Any:
        if task.attempt < 2:
            raise Retry("by the middleware", delay=0.01)
        value = await call_next(replace(task, arguments=["retry"] if task.attempt < 3 else task.arguments))
        if value == ["bad"]:
            raise Reject("by the middleware")
        return value

    results = await pooled(processor_in(execution), [noted, again], ["good"], ["bad"], retries=3)
    assert results == [["good"], "Processing error: by the middleware"]
    assert sorted((task.id, task.attempt) for task in noted.calls) == [(id, n) for id in "01" for n in (1, 2, 3)]
    raised = [(type(error).__name__, str(error)) for error in noted.came if isinstance(error, Exception)]
    others = [("Retry", "by the middleware"), ("Retry", "not yet")] * 2
    assert sorted(raised) == [("Reject", "by the middleware"), *sorted(others)]


@pytest.mark.parametrize("execution", [kind for kind in EXECUTIONS if kind != "inline"])
async def test_a_time_limit_is_an_error_that_middleware_can_replace(execution: Execution, pooled: Pooled) -> None:
    noted = Noted()

    async def instead(task: TaskCall, call_next: CallNext) -> Any:
        try:
            return await call_next(task)
        except TimeoutError:
            if task.id == "1":
                return "instead"
            if task.id == "2":
                raise Reject("too long") from None
            raise

    results = await pooled(processor_in(execution, timeout=0.2), [instead, noted], *[["nap", 0.4]] * 3)
    assert results == ["Processing error: timed out after 0.2 s", "instead", "Processing error: too long"]
    assert [isinstance(error, TimeoutError) for error in noted.came] == [True] * 3


async def test_a_thread_keeps_its_slot_after_a_time_limit_that_middleware_hides(pooled: Pooled) -> None:
    async def hide(task: TaskCall, call_next: CallNext) -> Any:
        try:
            return await call_next(task)
        except TimeoutError:
            return "hidden"

    call = processor_in("thread", timeout=1.0)
    assert await pooled(call, [hide], ["nap", 1.6], ["next"], concurrency=1) == ["hidden", ["next"]]


async def test_a_value_without_a_call_and_one_that_is_no_json(pooled: Pooled) -> None:
    async def cached(task: TaskCall, call_next: CallNext) -> Any:
        return {"cached": task.id} if task.arguments == ["cached"] else {await call_next(task)}

    results = await pooled(processor_in("inline"), [cached], ["cached"], ["set"])
    assert results[0] == {"cached": "0"}
    assert results[1].startswith("Processing error: ")


async def test_a_stop_cancels_what_runs_inside(queue: Queue, server: EmbeddedServer) -> None:
    noted = Noted()
    await queue.push_tasks([["nap", 60]])
    keys = queue.keys
    options: Any = {"middleware": [noted], "shutdown_timeout": 0}
    async with WorkerPool(server.url, keys.waiting, keys.output, "list", processor_in("async"), **options):
        await wait_until(lambda: len(noted.calls) == 1)
    assert [type(error) for error in noted.came] == [asyncio.CancelledError]
    assert len(await queue.waiting()) == 1
    await queue.redis.delete(keys.waiting)


@pytest.mark.parametrize("execution", EXECUTIONS)
async def test_around_a_handler(execution: Execution, topic: Topic, server: EmbeddedServer) -> None:
    noted = Noted()
    name = topic.keys.waiting.removeprefix("mq:")
    worker = TopicWorker(server.url, middleware=[noted])
    call: Any = handle_async if execution == "async" else handle
    worker.handler(name, execution=execution, retries=1, retry_backoff=0.01)(call)
    async with worker, Publisher(server.url) as publisher:
        id = await publisher.publish(name, [1])
        await wait_until(lambda: len(noted.came) == 1)
        await publisher.publish(name, ["reject"])
        await wait_until(topic.dead)
    first = noted.calls[0]
    assert (first.id, first.queue, first.name, first.attempt) == (id, topic.keys.waiting, call.__name__, 1)
    assert isinstance(first.arguments, Message)
    assert (first.arguments.data, first.members["data"]) == ([1], [1])
    assert noted.came[0] == [1]
    assert isinstance(noted.came[1], Reject)


def handle(message: Message) -> Any:
    return work(message.data)


async def handle_async(message: Message) -> Any:
    return work(message.data)


@pytest.fixture
async def tasks(server: EmbeddedServer, queue: Queue) -> AsyncIterator[TaskQueue]:
    tasks = TaskQueue(server.url, queue.keys.waiting, results=queue.keys.output)
    yield tasks
    await tasks.close()


functions = TaskQueue("redis://localhost", "functions")


@functions.task(execution="process")
def function_in_process(what: str, times: int = 1) -> list[str]:
    return list(work([what])) * times


@pytest.mark.parametrize("execution", EXECUTIONS)
async def test_around_a_function(execution: Execution, tasks: TaskQueue, queue: Queue) -> None:
    noted = Noted()

    async def function_async(what: str, times: int = 1) -> list[str]:
        return list(work([what])) * times

    def function(what: str, times: int = 1) -> list[str]:
        return list(work([what])) * times

    @tasks.middleware
    async def longer(task: TaskCall, call_next: CallNext) -> Any:
        assert current_task().id == task.id
        return [*await call_next(task), task.attempt]

    tasks.middleware(noted)
    made: Any
    if execution == "process":
        made = tasks.functions["function_in_process"] = function_in_process
    else:
        made = tasks.task(execution=execution)(function_async if execution == "async" else function)
    payload = b'{"id":"%d","task":{"name":"%s","args":["%s"],"kwargs":{"times":2}},"mine":7}'
    await queue.push(*(payload % (n, made.name.encode(), what) for n, what in enumerate((b"do", b"reject", b"retry"))))
    async with tasks.worker(2):
        assert await tasks.handle(0).result(PATIENCE) == ["do", "do", 1]
        with pytest.raises(TaskError, match="never"):
            await tasks.handle(1).result(PATIENCE)
        with pytest.raises(TaskError, match="not yet"):
            await tasks.handle(2).result(PATIENCE)
    call = next(task for task in noted.calls if task.id == "0")
    assert (call.queue, call.name, call.attempt, call.arguments) == (tasks.name, made.name, 1, (("do", 2), {}))
    assert call.members["mine"] == 7
    assert max(task.attempt for task in noted.calls if task.id == "2") > 1
    assert {type(error) for error in noted.came if isinstance(error, Exception)} == {Reject, Retry}
    await queue.redis.delete(f"{{{queue.keys.waiting}}}:dead")


async def test_tests_of_a_program_run_it_too() -> None:
    noted = Noted()
    tasks = TaskQueue("redis://localhost:1", "mail", middleware=[noted])

    @tasks.task
    def double(number: int) -> int:
        return 2 * number

    async with tasks.testing():
        assert await (await double.submit(2)).result() == 4
    assert noted.came == [4]
    assert await asyncio.to_thread(double, 3) == 6  # a plain call stays one


@pytest.mark.parametrize("wrong", [lambda task, call_next: None, Noted])
def test_it_is_a_coroutine_function_of_two(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"is not an `async def` of two arguments: task, call_next$"):
        TaskQueue("redis://localhost", "mail", middleware=[wrong])


def test_there_is_none_around_a_batch() -> None:
    worker = TopicWorker("redis://localhost", middleware=[Noted()])
    with pytest.raises(ConfigurationError, match="handler many: middleware is called around one message, not around a"):

        @worker.batch_handler("mail")
        async def many(_: list[Message]) -> None: ...
