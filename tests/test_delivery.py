"""At-least-once: workers are killed, stopped and cut off, and the ledger holds."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError

from redis_worker import TaskClient, WorkerPool
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, Queue, WorkerProcess, rounds_until, wait_until

Start = Callable[..., WorkerProcess]
LEASE = ("--lease", "2")


class Announcements:
    """Counts how often the result of each id was written: each write is announced."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.counts: Counter[str] = Counter()
        self._subscription = redis.pubsub()
        self._keys = keys

    async def __aenter__(self) -> Announcements:
        await self._subscription.subscribe(self._keys.channel)
        self._task = asyncio.create_task(self._count())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})
        await self._subscription.aclose()

    async def _count(self) -> None:
        async for message in self._subscription.listen():
            if message["type"] == "message":
                self.counts.update(list(json.loads(message["data"])))  # ids, or an object of a lone one


async def hold_one_claim(worker: WorkerProcess, queue: Queue) -> None:
    """Stop the worker with a task that the server has moved in flight and the worker has not seen."""
    for id in range(1000):
        worker.freeze()
        await queue.push({"id": f"probe{id}", "task": [str(id)]})
        await asyncio.sleep(0.02)
        if await queue.inflight():
            return
        worker.signal(signal.SIGCONT)
        await wait_until(lambda count=id + 1: queue.answered(count))
    raise AssertionError("the worker was never waiting")


async def test_killed_when_the_task_is_claimed(queue: Queue, worker: Start) -> None:
    first = await worker(*LEASE, processor="tests.processors:echo").started()
    await hold_one_claim(first, queue)
    held = await queue.inflight()
    first.kill()
    assert await queue.inflight() == held
    await worker(*LEASE, "--max-tasks", "1", processor="tests.processors:echo").ended()
    assert not await queue.waiting()
    assert set((await queue.ledger()).values()) == {1}


async def test_killed_while_the_task_runs(queue: Queue, worker: Start, tmp_path: Path) -> None:
    first = await worker(*LEASE, processor="tests.processors:gate").started()
    await queue.push({"id": 1, "task": [str(tmp_path)]})
    await wait_until((tmp_path / "running").exists)
    first.kill()
    (tmp_path / "open").touch()
    second = worker(*LEASE, "--max-tasks", "1", processor="tests.processors:gate")
    assert await second.ended() == 0
    assert await queue.result(1) == {"status": "success", "result": second.pid}
    assert await queue.ledger() == {"1": 1}


async def test_killed_when_the_task_is_finished_and_not_written(queue: Queue, worker: Start, tmp_path: Path) -> None:
    first = await worker(*LEASE, processor="tests.processors:gate").started()
    await queue.push({"id": 1, "task": [str(tmp_path)]})
    await wait_until((tmp_path / "running").exists)
    await queue.redis.execute_command("CLIENT", "PAUSE", "60000", "WRITE")
    (tmp_path / "open").touch()
    await wait_until((tmp_path / "returned").exists)
    first.kill()
    await queue.redis.execute_command("CLIENT", "UNPAUSE")
    assert await queue.result(1) is None
    second = worker(*LEASE, "--max-tasks", "1", processor="tests.processors:gate")
    assert await second.ended() == 0
    assert await queue.result(1) == {"status": "success", "result": second.pid}
    assert await queue.ledger() == {"1": 1}


async def test_killed_when_the_result_is_written(queue: Queue, worker: Start) -> None:
    async with Announcements(queue.redis, queue.keys) as written:
        first = await worker(*LEASE).started()
        await queue.push({"id": 1, "task": [1, 2]})
        await wait_until(lambda: queue.answered(1))
        first.kill()
        second = await worker(*LEASE).started()
        await queue.push({"id": 2, "task": [1, 2]})
        await wait_until(lambda: queue.answered(2))
        await wait_until(queue.buried)
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0
        await wait_until(lambda: written.counts.total() >= 2)
        assert written.counts == {"1": 1, "2": 1}


async def test_recovered_tasks_come_first_and_in_order(queue: Queue, worker: Start, tmp_path: Path) -> None:
    first = await worker(*LEASE, "-c", "5", processor="tests.processors:gate").started()
    await queue.push_tasks([[str(tmp_path), n] for n in range(8)])
    await wait_until(lambda: _lines(tmp_path / "running") == 5)
    first.kill()
    second = await worker(*LEASE, "-c", "1", processor="tests.processors:gate").started()
    await wait_until(lambda: "recovered 5 tasks" in second.log)
    await wait_until(lambda: _lines(tmp_path / "running") == 6)
    # The second one runs the one that was next: 5, or 0 if it began late. The first one's come before the rest.
    assert [json.loads(raw)["id"] for raw in await queue.waiting()] in ([0, 1, 2, 3, 4, 6, 7], [*range(1, 8)])
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(8))
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def test_stopped_past_its_lease_and_continued(queue: Queue, worker: Start, tmp_path: Path) -> None:
    """The first worker is presumed dead; it wakes up, finishes, and writes nothing."""
    async with Announcements(queue.redis, queue.keys) as written:
        first = await worker(*LEASE, processor="tests.processors:gate").started()
        await queue.push({"id": 1, "task": [str(tmp_path)]})
        await wait_until((tmp_path / "running").exists)
        first.freeze()
        second = await worker(*LEASE, processor="tests.processors:gate").started()
        await wait_until(lambda: _lines(tmp_path / "running") == 2)
        (tmp_path / "open").touch()
        await wait_until(lambda: queue.answered(1))
        first.signal(signal.SIGCONT)
        await wait_until(lambda: "not written" in first.log and "presumed dead" in first.log)
        assert await queue.result(1) == {"status": "success", "result": second.pid}
        # Under its new name it works on.
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0
        await queue.push({"id": 2, "task": [str(tmp_path)]})
        await wait_until(lambda: queue.answered(2))
        assert await queue.result(2) == {"status": "success", "result": first.pid}
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0
        assert written.counts == {"1": 1, "2": 1}


async def test_stopped_while_it_waits_and_continued_past_its_lease(queue: Queue, worker: Start) -> None:
    """A task that arrives at a stopped worker goes to another one, and is not lost or done twice."""
    async with Announcements(queue.redis, queue.keys) as written:
        first = await worker(*LEASE, processor="tests.processors:echo").started()
        await hold_one_claim(first, queue)
        count = len(await queue.ledger())
        second = await worker(*LEASE, processor="tests.processors:echo").started()
        await wait_until(lambda: queue.answered(count))
        first.signal(signal.SIGCONT)
        await queue.push_tasks([[n] for n in range(100)])
        await wait_until(lambda: queue.answered(count + 100))
        for process in (first, second):
            process.signal(signal.SIGTERM)
            assert await process.ended() == 0
        assert set(written.counts.values()) == {1}


async def test_a_task_that_kills_its_worker_ends_as_an_error_and_takes_nobody_along(
    queue: Queue, worker: Start
) -> None:
    tasks = [["fine"]] * 40 + [["kill"]] + [["fine"]] * 40
    await queue.push_tasks(tasks)
    fleet = worker(*LEASE, "-w", "2", processor="tests.processors:killer")
    await wait_until(lambda: queue.answered(len(tasks)), seconds=2 * PATIENCE)
    await wait_until(lambda: queue.buried(2))
    fleet.signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    assert fleet.log.count("killed by SIGKILL") == 3
    results = await queue.results()
    assert results.pop("40")["error"] == "Processing error: given up: 3 workers died while holding the task"
    assert all(result == {"status": "success", "result": "fine"} for result in results.values())
    [letter] = await queue.dead()
    assert (letter["id"], letter["attempts"]) == ("40", 4)
    assert set((await queue.ledger()).values()) == {1}


async def test_killers_in_threads_take_nobody_along(queue: Queue, worker: Start) -> None:
    """Many slots, two killers: every task held at the same time is suspected, only the guilty are condemned."""
    await queue.push_tasks([["kill" if n in (3, 17) else "fine"] for n in range(40)])
    fleet = worker(*LEASE, "-c", "8", "-w", "2", processor="tests.processors:slow_killer")
    await wait_until(lambda: queue.answered(40), seconds=2 * PATIENCE)
    await wait_until(lambda: queue.buried(2))
    await wait_until(lambda: _no_key(queue, queue.keys.attempts))
    fleet.signal(signal.SIGTERM)
    assert await fleet.ended() == 0
    results = await queue.results()
    failed = {id for id, result in results.items() if result["status"] == "error"}
    assert failed == {"3", "17"}


async def _no_key(queue: Queue, key: str) -> bool:
    return not await queue.redis.exists(key)


@pytest.mark.parametrize(
    "processor", [pytest.param("tests.processors:echo", marks=pytest.mark.long), "tests.processors:sleep"]
)
async def test_chaos(queue: Queue, worker: Start, processor: str) -> None:
    """Three workers, one of them killed again and again: at every moment each id is in one place."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    count = 20_000 if processor.endswith("echo") else 2_000
    await queue.push_tasks([[chance.random() / 500, n] for n in range(count)])
    everything = {str(id) for id in range(count)}
    # Nobody is condemned here: the deaths come from outside.
    arguments = (*LEASE, "-c", "20", "--max-deliveries", "1000")
    processes = [worker(*arguments, processor=processor) for _ in range(3)]
    kills = 0
    async for _ in rounds_until(lambda: queue.answered(count), f"all answers (seed {seed})"):
        await asyncio.sleep(chance.random() * 0.5)
        victim = chance.randrange(len(processes))
        if kills < 12:
            processes[victim].kill()
            kills += 1
            processes[victim] = worker(*arguments, processor=processor)
        ledger = await queue.ledger()
        assert ledger.keys() == everything, f"lost {everything - ledger.keys()} (seed {seed})"
        assert set(ledger.values()) == {1}, f"twice: {[id for id, n in ledger.items() if n > 1]} (seed {seed})"
    for process in processes:
        await process.started()
    await wait_until(lambda: queue.buried(3))
    for process in processes:
        process.signal(signal.SIGTERM)
    for process in processes:
        assert await process.ended() == 0, process.log
    assert await queue.ledger() == dict.fromkeys(everything, 1)
    for id, result in (await queue.results()).items():
        value = result["result"]
        assert (value[-1] if isinstance(value, list) else value) == int(id)


async def test_a_lost_reply_is_found_again(server: EmbeddedServer, queue: Queue) -> None:
    """Connections are cut again and again while thousands of tasks are claimed: none stays behind in flight."""
    count = 3000

    async def work(arguments: list[int]) -> int:
        await asyncio.sleep(0.001)
        return arguments[0]

    pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", work, 50)
    async with pool, Announcements(queue.redis, queue.keys) as written:
        for start in range(0, count, 100):
            await queue.push_tasks([[n] for n in range(start, start + 100)], first=start)
            for client in await queue.redis.client_list():
                if client["cmd"] in ("blmove", "evalsha", "eval") and client["user"] == "default":
                    await queue.redis.execute_command("CLIENT", "KILL", "ID", client["id"])
            await asyncio.sleep(0.02)
        await wait_until(lambda: queue.answered(count), seconds=2 * PATIENCE)
        await wait_until(lambda: written.counts.total() >= count, "the announcements")
        assert written.counts == dict.fromkeys(map(str, range(count)), 1)
    assert await queue.ledger() == dict.fromkeys(map(str, range(count)), 1)
    assert pool.counters.processed == count


async def test_the_server_is_restarted_with_its_data(own_server: EmbeddedServer) -> None:
    redis = Redis.from_url(own_server.url)
    queue = Queue(redis, Keys("in", "out"))
    async with redis:
        worker = WorkerProcess(own_server.url, queue.keys, "-c", "50", processor="tests.processors:sleep")
        try:
            await worker.started()
            await queue.push_tasks([[0.005, n] for n in range(5000)])
            for by in (signal.SIGKILL, signal.SIGTERM):
                count, missed = len(await queue.results()), worker.log.count("Redis is away")
                await wait_until(lambda count=count: queue.answered(count + 500))
                os.kill(own_server.pid, by)
                await wait_until(lambda missed=missed: worker.log.count("Redis is away") > missed, "it to be missed")
                await asyncio.to_thread(own_server.restart)
                await wait_until(lambda: _answers(redis))
            await wait_until(lambda: queue.answered(5000), seconds=2 * PATIENCE)
            worker.signal(signal.SIGTERM)
            assert await worker.ended() == 0, worker.log
            assert worker.log.count("Redis is back") == 2
            assert await queue.ledger() == dict.fromkeys(map(str, range(5000)), 1)
        finally:
            worker.close()


async def _answers(redis: Redis) -> bool:
    try:
        return bool(await redis.ping())
    except ConnectionError:
        return False


async def test_an_outage_longer_than_the_lease(own_server: EmbeddedServer) -> None:
    """Finished results wait for the server to come back, and nothing is done twice meanwhile."""
    redis = Redis.from_url(own_server.url)
    queue = Queue(redis, Keys("in", "out"))
    gate = asyncio.Event()

    async def work(arguments: list[int]) -> int:
        await gate.wait()
        return arguments[0]

    async with redis, WorkerPool(own_server.url, "in", "out", "list", work, 10, lease=2) as pool:
        await queue.push_tasks([[n] for n in range(10)])
        await wait_until(lambda: pool.running == 10)
        os.kill(own_server.pid, signal.SIGSTOP)
        gate.set()
        await asyncio.sleep(3)
        os.kill(own_server.pid, signal.SIGCONT)
        async with TaskClient(own_server.url, "in", "out") as client:
            values = {result.value async for result in client.results(range(10), PATIENCE)}
        assert values == set(range(10))
        assert await queue.ledger() == dict.fromkeys(map(str, range(10)), 1)
    assert pool.counters.processed == 10
