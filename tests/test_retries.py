"""Retries and delays: held in Redis, counted beside the task, carried out by whoever lives."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from redis_worker import ConfigurationError, Refused, Reject, Retry, TaskClient, WorkerPool, start_worker_pool
from redis_worker.embedded import EmbeddedServer
from tests.support import DueTimes, Queue, WorkerProcess, rounds_until, wait_until

Start = Callable[..., WorkerProcess]


@pytest.fixture
def pool(server: EmbeddedServer, queue: Queue) -> Any:
    def pool(processor: Any, concurrency: int = 4, **options: Any) -> WorkerPool:
        names = (queue.keys.waiting, queue.keys.output, "list")
        return WorkerPool(server.url, *names, processor, concurrency, **options)

    return pool


async def test_a_task_that_fails_is_tried_again_until_it_succeeds(queue: Queue, pool: Any) -> None:
    tries: Counter[int] = Counter()

    async def work(arguments: list[int]) -> int:
        tries[arguments[0]] += 1
        if tries[arguments[0]] <= arguments[0]:
            raise ValueError("not yet")
        return tries[arguments[0]]

    await queue.push_tasks([[n] for n in range(4)])
    async with pool(work, retries=3, retry_backoff=0.01) as running:
        await wait_until(lambda: queue.answered(4))
    assert tries == {0: 1, 1: 2, 2: 3, 3: 4}
    assert {result["result"] for result in (await queue.results()).values()} == {1, 2, 3, 4}
    assert await queue.dead() == []
    assert (running.counters.retried, running.counters.succeeded, running.counters.failed) == (6, 4, 0)


async def test_what_is_exhausted_gets_an_error_and_a_dead_letter(queue: Queue, pool: Any) -> None:
    raw = b'{"extra": [1,  2], "task":[1], "id":"\xc3\xa9"}'

    def work(_: list[int]) -> None:
        raise ValueError("never")

    await queue.push(raw)
    async with pool(work, retries=2, retry_backoff=0.01):
        await wait_until(lambda: queue.answered(1))
    assert await queue.result("é") == {"status": "error", "error": "Processing error: never"}
    [letter] = await queue.dead()
    assert letter["raw"].encode() == raw
    assert (letter["reason"], letter["attempts"], letter["id"]) == ("Processing error: never", 3, "é")
    assert abs(letter["at"] - time.time()) < 60
    assert letter["worker"]


@pytest.mark.parametrize("kind", ["async", "inline", "thread"])
async def test_a_processor_may_ask_for_either(queue: Queue, pool: Any, kind: str) -> None:
    from redis_worker import processor

    tries: Counter[str] = Counter()

    def decide(arguments: list[str]) -> str:
        tries[arguments[0]] += 1
        if arguments[0] == "reject":
            raise Reject("of no use")
        if arguments[0] == "retry" and tries["retry"] < 3:
            raise Retry("in a moment", delay=0.01)
        return "done"

    async def work(arguments: list[str]) -> str:
        return decide(arguments)

    await queue.push_tasks([["retry"], ["reject"]])
    chosen = work if kind == "async" else processor(execution=kind)(decide)  # type: ignore[call-overload]
    async with pool(chosen):
        await wait_until(lambda: queue.answered(2))
    assert await queue.result(0) == {"status": "success", "result": "done"}
    assert await queue.result(1) == {"status": "error", "error": "Processing error: of no use"}
    assert tries == {"retry": 3, "reject": 1}
    assert [letter["id"] for letter in await queue.dead()] == ["1"]


async def test_retry_is_granted_ten_times(queue: Queue, pool: Any) -> None:
    """By default, and as often as the processor's own number of retries if it has one; what is rejected, never."""
    tries: Counter[str] = Counter()

    async def work(arguments: list[str]) -> None:
        tries[arguments[0]] += 1
        raise Reject if arguments == ["rejected"] else Retry("never ready", delay=0)

    for name, options in (("default", {}), ("own", {"retries": 2}), ("rejected", {"retries": 2})):
        await queue.push({"id": name, "task": [name]})
        async with pool(work, **options):
            await wait_until(lambda name=name: queue.result(name))
    assert tries == {"default": 11, "own": 3, "rejected": 1}
    assert [letter["attempts"] for letter in await queue.dead()] == [11, 3, 1]


async def test_a_pool_without_retries_answers_at_once_and_keeps_no_dead_letter(queue: Queue, pool: Any) -> None:
    def work(_: list[int]) -> None:
        raise ValueError("no")

    await queue.push_tasks([[1]])
    async with pool(work):
        await wait_until(lambda: queue.answered(1))
    assert await queue.dead() == []


async def test_a_retry_blocks_no_slot_and_survives_its_worker(queue: Queue, worker: Start, tmp_path: Path) -> None:
    """The first worker puts the task off and is killed; another one carries it out."""
    (tmp_path / "fail").touch()
    arguments = ("--lease", "2", "-c", "1", "--retries", "3", "--retry-backoff", "0.5")
    first = await worker(*arguments, processor="tests.processors:fail_while").started()
    await queue.push_tasks([[str(tmp_path)]])
    await wait_until(lambda: queue.redis.zcard(queue.keys.delayed))
    first.kill()
    (tmp_path / "fail").unlink()
    second = await worker(*arguments, processor="tests.processors:fail_while").started()
    await wait_until(lambda: queue.answered(1))
    assert await queue.result(0) == {"status": "success", "result": second.pid}
    await wait_until(queue.buried)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_chaos_with_retries(queue: Queue, worker: Start) -> None:
    """A third of the tasks fail at random, workers are killed: every id ends answered, each once in the ledger."""
    count = 3_000
    await queue.push_tasks([[n] for n in range(count)])
    everything = {str(id) for id in range(count)}
    arguments = ("--lease", "2", "-c", "20", "--max-deliveries", "1000", "--retries", "50", "--retry-backoff", "0.05")
    processes = [worker(*arguments, processor="tests.processors:unreliable") for _ in range(3)]
    kills = 0
    async for _ in rounds_until(lambda: queue.answered(count), "all answers"):
        await asyncio.sleep(random.random() * 0.5)
        victim = random.randrange(3)
        if kills < 6:
            processes[victim].kill()
            kills += 1
            processes[victim] = worker(*arguments, processor="tests.processors:unreliable")
        ledger = await queue.ledger()
        assert ledger.keys() == everything
        assert set(ledger.values()) == {1}
    for process in processes:
        await process.started()
    await wait_until(lambda: queue.buried(3))
    for process in processes:
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    assert await queue.ledger() == dict.fromkeys(everything, 1)


async def test_delays_none_early_each_once(server: EmbeddedServer, queue: Queue, pool: Any) -> None:
    """Many tasks with delays of their own, four pools: Redis's clock decides, and exactly one promotes each."""
    times = DueTimes(queue.redis)

    async def work(arguments: list[Any]) -> None:
        await times.ran(*arguments)

    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        pools = [pool(work, 20) for _ in range(4)]
        for one in pools:
            await one.__aenter__()
        for n in range(300):
            delay = random.random() * 1.5
            await client.submit([n, await times.due_in(delay)], n, delay=delay)
        await wait_until(lambda: queue.answered(300))
        for one in pools:
            await one.__aexit__(None, None, None)
    times.check(300)


async def test_many_due_at_once_keep_their_order_and_twins_stay_two(server: EmbeddedServer, queue: Queue) -> None:
    seen: list[int] = []

    async def note(arguments: list[int]) -> None:
        seen.append(arguments[0])

    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        at = datetime.now(UTC) - timedelta(seconds=5)
        ids = await client.submit_many([[n] for n in range(2500)], at=at)
        await client.push_raw([b'{"id":"twin","task":[-1]}'] * 2, at=at + timedelta(seconds=1))
        async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", note, 1):
            await wait_until(lambda: len(seen) == 2502)
            await wait_until(lambda: queue.answered(len(ids) + 1))
    assert seen == [*range(2500), -1, -1]


async def test_a_time_needs_a_zone_and_a_delay_is_not_negative(server: EmbeddedServer, queue: Queue) -> None:
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        with pytest.raises(ValueError, match="time zone"):
            await client.submit([1], at=datetime(2026, 12, 1))
        with pytest.raises(ValueError, match="the delay must be between 0 and"):
            await client.submit([1], delay=-1)
        with pytest.raises(ValueError, match="not both"):
            await client.submit([1], delay=1, at=datetime.now(UTC))


async def test_too_many_dead_letters_drop_the_oldest_and_count_them(queue: Queue, pool: Any) -> None:
    await queue.push(*(b"junk %d" % n for n in range(30)))
    async with pool("sum", dead_limit=10):
        await wait_until(lambda: _count(queue, 30))
    assert [letter["raw"] for letter in await queue.dead()] == [f"junk {n}" for n in range(20, 30)]
    assert int(await queue.redis.getdel(queue.keys.dropped)) == 20


async def _count(queue: Queue, count: int) -> bool:
    return int(await queue.redis.get(queue.keys.dropped) or 0) + await queue.redis.llen(queue.keys.dead) == count


async def test_results_expire_where_the_server_can(server: EmbeddedServer, queue: Queue) -> None:
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum")
    await queue.push_tasks([[n] for n in range(10)])
    if server.binary.name == "redis-server" and (await queue.redis.info())["redis_version"] < "7.4":
        with pytest.raises(Refused, match="HEXPIRE"):
            await start_worker_pool(*names, burst=True, result_ttl=100)
        return
    await start_worker_pool(*names, burst=True, result_ttl=100)
    ttls = await queue.redis.execute_command("HTTL", queue.keys.output, "FIELDS", 10, *range(10))
    assert all(0 < ttl <= 100 for ttl in ttls)


async def test_retries_do_not_go_with_at_most_once(pool: Any) -> None:
    with pytest.raises(ConfigurationError, match="at-least-once"):
        pool("sum", delivery="at-most-once", retries=1)


async def test_at_most_once_takes_what_is_due_and_asks_nobody_again(
    server: EmbeddedServer, queue: Queue, pool: Any
) -> None:
    async def work(_: list[int]) -> None:
        raise Retry

    client = TaskClient(server.url, queue.keys.waiting, queue.keys.output)
    async with client, pool(work, delivery="at-most-once"):
        await client.submit([1], 1, delay=0.05)
        await wait_until(lambda: queue.answered(1))
    result = await queue.result(1)
    assert result is not None
    assert result["status"] == "error"
    assert json.loads(await queue.redis.lindex(queue.keys.dead, 0))["id"] == "1"
