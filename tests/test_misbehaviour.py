"""Whatever a task does, it alone gets an error: its neighbours are answered, and the worker lives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from redis_worker import Observer, Supervisor, TopicWorker, WorkerPool, start_worker_pool
from redis_worker.broker.cron import CronStore
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue import settlement
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings
from redis_worker.embedded import EmbeddedServer
from tests import misbehaviour
from tests.support import PATIENCE, Queue, Topic, WorkerProcess, wait_until

CLEAN = "clean 28"
EXECUTIONS = list(misbehaviour.PROCESSORS)
# A Retry without a delay of its own is granted ten times.
SOON = {"retries": 0, "retry_backoff": 0.001, "retry_backoff_max": 0.002}
# The text of an error result; a way that is not here succeeds.
TEXTS = {
    "panic": "panicked", "silent": "Silent", "unnamed": "an exception without a name", "faceless": "x",
    "exit": "SystemExit: 3", "interrupt": "KeyboardInterrupt", "generator exit": "GeneratorExit",
    "cancelled": "CancelledError", "key": "KeyError: 'missing'", "half a pair": "ValueError: \\ud800",
    "group": "group (2 sub-exceptions): ValueError: first cause; Panic: second",
    "no json": "a object is no JSON value", "nan": "nan is no JSON number", "reject": "rejected",
    "hostile value": "no items", "deep": "the value is nested too deeply for JSON",
    **dict.fromkeys(
        ("retry inf", "retry ever", "retry past"), "the delay of a Retry must be from 0 to 1e+12 seconds"
    ),
    **dict.fromkeys(
        ("retry text", "retry nan", "retry huge"),
        'the delay of a Retry must be a number of seconds, or a text as "90s", "1.5m" or "24h", or a timedelta',
    ),
    "retry delta": "retry requested", "careless": "Careless",
    "cancels itself": "CancelledError", "child cancelled": "CancelledError",
    "task group": "unhandled errors in a TaskGroup (1 sub-exception): ValueError: first cause",
}  # fmt: skip

# Without shrinking: a failing example waits for a minute, and hundreds of smaller ones look like a test that hangs.
UNSHRUNK = settings(
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


def lists_of_ways(execution: str) -> st.SearchStrategy[list[str]]:
    """Lists of ways to misbehave, without the one that takes seconds."""
    ways = [way for way in misbehaviour.ways_of(execution) if way != "hang"]
    return st.lists(st.sampled_from(ways) | st.just("ordinary"), min_size=1, max_size=25)


@contextlib.asynccontextmanager
async def own_queue(url: str, topic: bool = False) -> AsyncIterator[Queue]:
    """A queue of a single example's own, without what pytest's fixtures do once a test."""
    name = f"test:{secrets.token_hex(4)}"
    async with Redis.from_url(url) as redis:
        queue = Topic(redis, name) if topic else Queue(redis, Keys(f"{name}:in", f"{name}:out"))
        yield queue
        assert await queue.inflight() == []
        keys = [key async for key in redis.scan_iter(f"*{name}*", count=1000)]
        if keys:
            await redis.delete(*keys)


def check_result(way: str, result: dict[str, Any]) -> None:
    """Fail unless `result` is what a task that misbehaves in this way gets."""
    if way == "ordinary":
        assert result == {"status": "success", "result": CLEAN}
    elif way in TEXTS:
        assert result == {"status": "error", "error": f"Processing error: {TEXTS[way]}"}
    elif way in ("hang", "long text", "stop iteration", "awaitable"):
        assert result["status"] == "error" or (way == "awaitable" and result["result"] == "late")
        assert len(result["error" if result["status"] == "error" else "result"]) < 11_000
    else:
        assert result["status"] == "success"


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_every_way_to_misbehave_is_an_answer_of_its_own(server: EmbeddedServer, execution: str) -> None:
    """Each way in turn, with an ordinary neighbour before and after it."""
    ways = [way for culprit in misbehaviour.ways_of(execution) for way in (culprit, "ordinary")]
    asyncio.run(answers(server.url, execution, ways))


@pytest.mark.parametrize("execution", EXECUTIONS)
def test_any_mixture_of_misbehaviour_is_answered_task_by_task(server: EmbeddedServer, execution: str) -> None:
    """`answers` checks each result, the ledger, and that the pool still works."""

    @settings(UNSHRUNK, max_examples=2 if execution == "process" else 5)
    @given(ways=lists_of_ways(execution), concurrency=st.integers(1, 8))
    def check(ways: list[str], concurrency: int) -> None:
        asyncio.run(answers(server.url, execution, ways, concurrency))

    check()


async def answers(url: str, execution: str, ways: list[str], concurrency: int = 4) -> None:
    """Run a pool on tasks that misbehave, and check each answer and that the pool still works after them."""
    async with own_queue(url) as queue:
        await queue.push_tasks([[way] for way in ways])
        keys, processor = queue.keys, misbehaviour.PROCESSORS[execution]
        pool = WorkerPool(url, keys.waiting, keys.output, "list", processor, concurrency, **SOON)
        async with pool:
            await wait_until(lambda: queue.answered(len(ways)), f"an answer to each of {ways}")
            await queue.push({"id": "last", "task": ["ordinary"]})
            await wait_until(lambda: queue.answered(len(ways) + 1), "an answer to the last one")
        results = await queue.results()
        for number, way in enumerate([*ways]):
            check_result(way, results[str(number)])
        check_result("ordinary", results["last"])
        assert pool.counters.redelivered == 0
        assert {id: count for id, count in (await queue.ledger()).items() if count != 1} == {}


@pytest.mark.parametrize("execution", ["inline", "thread", "process", "async"])
def test_a_message_that_misbehaves_is_handled_or_dead(server: EmbeddedServer, execution: str) -> None:
    """`handled` checks which messages are dead, and that the worker still works."""
    kind = "limited" if execution == "async" else execution

    @settings(UNSHRUNK, max_examples=2 if execution == "process" else 5)
    @given(ways=lists_of_ways(kind))
    @example(ways=[way for way in misbehaviour.ways_of(kind) if way != "hang"])
    def check(ways: list[str]) -> None:
        asyncio.run(handled(server.url, execution, ways))

    check()


async def handled(url: str, execution: str, ways: list[str]) -> None:
    """Run a handler on messages that misbehave, and check which are dead and that it still works after them."""
    async with own_queue(url, topic=True) as topic:
        misbehaviour.seen.clear()
        await topic.push(*({"id": id, "data": way} for id, way in enumerate([*ways, "ordinary"])))
        worker = TopicWorker(url)
        options: dict[str, Any] = {**SOON, "execution": None if execution == "async" else execution}
        if execution in ("thread", "async"):
            options["timeout"] = misbehaviour.TIMEOUT
        function = misbehaviour.handle_async if execution == "async" else misbehaviour.handle
        worker.handler(topic.keys.waiting.removeprefix("mq:"), **options)(function)
        async with worker:
            await wait_until(lambda: worker.counters.processed == len(ways) + 1, f"the end of {ways}")
        dead = {letter["id"]: letter["reason"] for letter in await topic.dead()}
        # A handler's value is of no concern, so that a value that is no JSON is no failure.
        fine = {
            "ordinary",
            "leak",
            "no json",
            "nan",
            "deep",
            "hostile value",
            "cancels itself and returns",
            "forgotten",
        }
        if execution in ("thread", "async"):
            fine.add("awaitable")
        assert set(dead) == {str(id) for id, way in enumerate(ways) if way not in fine}
        assert set(misbehaviour.seen) <= {CLEAN}


async def test_what_escapes_from_a_topic_ends_the_worker(
    server: EmbeddedServer, topic: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that went on would leave the topic without a consumer, and seem to work."""

    def fail(*_: object, **__: object) -> bytes:
        raise misbehaviour.Panic("a bug")

    monkeypatch.setattr(settlement, "dead_letter", fail)
    await topic.push({"id": "1", "data": "key"})
    worker = TopicWorker(server.url)
    worker.handler(topic.name, **SOON)(misbehaviour.handle)
    with pytest.raises(misbehaviour.Panic, match="a bug"):
        await asyncio.wait_for(worker.run(), PATIENCE)


@pytest.mark.parametrize("whole", [False, True])
def test_a_batch_that_misbehaves_buries_its_own_messages_only(server: EmbeddedServer, whole: bool) -> None:
    """`batched` checks which messages are dead."""
    ways = [way for way in misbehaviour.WAYS if way != "retry delta"]

    @settings(UNSHRUNK, max_examples=6)
    @given(ways=st.lists(st.sampled_from(ways) | st.just("ordinary"), min_size=1, max_size=12))
    @example(ways=ways)
    def check(ways: list[str]) -> None:
        asyncio.run(batched(server.url, whole, ways))

    check()


async def batched(url: str, whole: bool, ways: list[str]) -> None:
    async with own_queue(url, topic=True) as topic:
        await topic.push(*({"id": id, "data": way} for id, way in enumerate(ways)))
        worker = TopicWorker(url)
        function = misbehaviour.handle_batch_whole if whole else misbehaviour.handle_batch
        # Whole batches are of one message each: the misbehaviour of a call is that of all its messages.
        size = 1 if whole else 100
        worker.batch_handler(topic.keys.waiting.removeprefix("mq:"), size=size, within=0, **SOON)(function)
        async with worker:
            await wait_until(lambda: worker.counters.processed == len(ways), f"the end of {ways}")
        dead = {letter["id"] for letter in await topic.dead()}
        raising = {way for way in TEXTS if way not in ("no json", "nan", "deep", "hostile value")}
        raising |= {"stop iteration", "long text"}
        if whole:  # there the value is judged as well
            raising |= {"no json", "nan", "deep", "hostile value", "leak"}
        assert dead == {str(id) for id, way in enumerate(ways) if way in raising}


@pytest.mark.parametrize("kind", ["job", "job_async"])
async def test_a_cron_job_that_misbehaves_has_an_outcome(server: EmbeddedServer, kind: str) -> None:
    store = CronStore(server.url)
    app = f"test-{secrets.token_hex(4)}"
    ways = misbehaviour.ways_of("limited" if kind == "job_async" else "thread")
    ways.remove("retry delta")
    try:
        for way in [*ways, "ordinary"]:
            place = f"tests.misbehaviour:{kind}"
            options = {"job": place, "arguments": {"way": way}, "timeout": misbehaviour.TIMEOUT, **SOON}
            job = CronJob(JobSettings(way.replace(" ", "-"), app, "* * * * *", **options), store)
            outcome, error, _ = await asyncio.wait_for(job.run_once(), PATIENCE)
            if way in TEXTS and way not in ("no json", "nan", "deep", "hostile value"):
                assert outcome == "error", way
                assert error is not None
                assert TEXTS[way] in error
            elif way == "hang":
                assert outcome == "timeout"
            else:
                failing = ("long text", "stop iteration", "cancels itself and returns")
                assert outcome == ("error" if way in failing else "success"), way
            assert job.running == 0
            assert error is None or len(error) < 11_000
    finally:
        await store.close()
        async with Redis.from_url(server.url) as redis:
            keys = [key async for key in redis.scan_iter(f"*{app}*", count=1000)]
            await redis.delete(*keys, "{redis_worker}:cron")


async def test_a_retry_may_be_put_off_by_a_timedelta(server: EmbeddedServer, queue: Queue) -> None:
    class Delays(Observer):
        again: list[float] = []  # noqa: RUF012 - one test, one observer

        def settled(self, outcomes: Any) -> None:
            self.again += [outcome.again for outcome in outcomes if outcome.again is not None]

    await queue.push({"id": 1, "task": ["retry delta"]})
    delays = Delays()
    pool = WorkerPool(
        server.url, queue.keys.waiting, queue.keys.output, "list", misbehaviour.inline, observers=[delays], retries=2
    )
    async with pool:
        await wait_until(lambda: queue.answered(1), "its answer")
    assert delays.again == [0.02, 0.02]
    assert pool.counters.dead == 1


async def test_a_failed_task_is_logged_with_its_place_and_at_debug_with_its_traceback(
    server: EmbeddedServer, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    class Exceptions(Observer):
        seen: list[BaseException | None] = []  # noqa: RUF012 - one test, one observer

        def settled(self, outcomes: Any) -> None:
            self.seen += [outcome.exception for outcome in outcomes]

    exceptions = Exceptions()

    async def drain(processor: Any) -> str:
        caplog.clear()
        await queue.push({"id": 1, "task": ["key"]})
        keys = queue.keys
        await start_worker_pool(
            server.url, keys.waiting, keys.output, "list", processor, burst=True, observers=[exceptions]
        )
        return caplog.text

    for processor in (misbehaviour.inline, misbehaviour.thread, misbehaviour.process):
        caplog.set_level(logging.INFO, "redis_worker")
        text = await drain(processor)
        assert "(KeyError at tests/misbehaviour.py:" in text
        assert "Traceback" not in text
        caplog.set_level(logging.DEBUG, "redis_worker")
        text = await drain(processor)
        assert "Traceback (most recent call last)" in text
        assert '{}["missing"]' in text
    assert all(isinstance(error, Exception) for error in exceptions.seen)
    assert isinstance(exceptions.seen[0], KeyError)


async def test_a_parser_that_misbehaves_fails_its_task_alone(server: EmbeddedServer, queue: Queue) -> None:
    async def forgotten(value: Any) -> list[Any]:
        return [value]

    def parser(value: Any) -> Any:
        return forgotten(value) if value == "async" else [misbehaviour.act(value)]

    ways = [way for way in misbehaviour.ways_of("inline") if way not in ("awaitable", "leak")]
    ways = [*ways, "async", "ordinary"]
    await queue.push_tasks(ways)

    async def echo(arguments: list[Any]) -> str:
        return repr(arguments)[:100]

    await start_worker_pool(server.url, queue.keys.waiting, queue.keys.output, parser, echo, burst=True)
    results = await queue.results()
    assert len(results) == len(ways)
    for number, way in enumerate(ways):
        if way in TEXTS and way not in ("no json", "nan", "deep", "hostile value"):
            assert results[str(number)] == {"status": "error", "error": f"Parse error: {TEXTS[way]}"}
    assert results[str(len(ways) - 2)]["error"].startswith("Parse error: the parser returned an awaitable")
    assert results[str(len(ways) - 1)] == {"status": "success", "result": f"['{CLEAN}']"}


async def test_observers_that_misbehave_change_nothing(
    server: EmbeddedServer, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    class Panicking(Observer):
        def claimed(self, deliveries: Any) -> None:
            raise misbehaviour.Panic("claimed")

        async def settled(self, outcomes: Any) -> None:  # type: ignore[override]
            """Nothing awaits it."""

    await queue.push_tasks([[1, 2]])
    await start_worker_pool(
        server.url, queue.keys.waiting, queue.keys.output, "list", "sum", burst=True, observers=[Panicking()]
    )
    assert await queue.result(0) == {"status": "success", "result": 3}
    assert "the observer Panicking raised" in caplog.text
    assert "declare it `async def`" not in json.dumps(await queue.results())


@pytest.mark.parametrize("execution", ["inline", "thread", "process", "coroutine"])
async def test_real_workers_survive_every_way_to_misbehave(worker: Any, queue: Queue, execution: str) -> None:
    """In a process of the command's own, whose signal handlers and event loop are other ones."""
    ways = [way for culprit in misbehaviour.ways_of(execution) for way in (culprit, "ordinary")]
    await queue.push_tasks([[way] for way in ways])
    soon = ("--retry-backoff", "0.001", "--retry-backoff-max", "0.002")
    process: WorkerProcess = worker("--log-level", "debug", *soon, processor=f"tests.misbehaviour:{execution}")
    await wait_until(lambda: queue.answered(len(ways)), "every answer")
    assert process.alive
    for number, way in enumerate(ways):
        check_result(way, (await queue.results())[str(number)])
    process.signal(15)
    assert await process.ended() == 0
    assert "Logging error" not in process.log


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("fails_mutely", "Mute"),
        ("fails_mutely_in_thread", "Mute"),
        ("is_wrapped", "TypeError: the daemon returned an awaitable"),
    ],
)
async def test_a_daemon_that_misbehaves_has_failed(
    server: EmbeddedServer, queue: Queue, tmp_path: Path, function: str, error: str
) -> None:
    keys, file = queue.keys, tmp_path / "workers.toml"
    file.write_text(
        f'''
        [redis]
        url = "{server.url}"
        [pools.adding]
        input = "{keys.waiting}"
        output = "{keys.output}"
        processor = "sum"
        [daemons.odd]
        run = "tests.parts:{function}"
        arguments = {{ marks = "{tmp_path / "marks"}" }}
        restart = "never"
        '''
    )
    async with Supervisor.from_file(file) as supervisor:
        await queue.push_tasks([[1, 2]])
        await wait_until(lambda: queue.answered(1), "an answer of the pool beside it")
        await wait_until(lambda: {part.name: part.state for part in supervisor.parts()}["odd"] == "failed", "its end")
        failed = next(part for part in supervisor.parts() if part.name == "odd")
        assert failed.error is not None
        assert failed.error.startswith(error)
