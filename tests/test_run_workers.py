"""`redis-worker run -w` when its workers hang or die: they are replaced or given up, and no task is lost."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import Queue, WorkerProcess, wait_until
from tests.test_fleet import gone, pids

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="session")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


async def test_a_hung_worker_is_replaced_and_its_task_delivered_again(
    queue: Queue, worker: Start, tmp_path: Path
) -> None:
    """Its event loop stands still, and its lease is renewed all the same: no other worker may take its task before."""
    process = worker(
        "-w", "2", "-c", "1", "--lease", "2", processor="tests.processors:block_first", program="tests.impatient"
    )
    await wait_until(lambda: process.log.count(" -> ") == 2, "two workers")
    await queue.push_tasks([[str(tmp_path)]])
    await wait_until(lambda: pids(tmp_path))
    [hung] = pids(tmp_path)
    await queue.push_tasks([[str(tmp_path)]] * 3, first=1)
    await wait_until(lambda: queue.answered(4))
    assert gone(hung)
    assert f"its process {hung} has not answered for 5 s and was killed; restarting in " in process.log
    results = await queue.results()
    assert {result["status"] for result in results.values()} == {"success"}
    assert hung not in {result["result"] for result in results.values()}
    assert len(pids(tmp_path)) == 5  # one of four tasks was delivered twice
    await wait_until(lambda: process.log.count(" -> ") == 3, "another worker")
    await wait_until(lambda: queue.buried(2))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log


async def test_workers_that_die_again_and_again_end_the_command(queue: Queue, worker: Start) -> None:
    await queue.push_tasks([[number] for number in range(12)])
    process = worker(
        "-w", "2", "-c", "1", "--lease", "2", processor="tests.processors:exit_at_once", program="tests.impatient"
    )
    assert await process.ended() == 1, process.log
    assert re.search(
        r"^Error: the workers of .* fail again and again \(its process \d+ has died \(exit code 3\)\)",
        process.log.splitlines()[-1],
    ), process.log
    assert "giving up (failure 3 within 600 s)" in process.log
    assert "Traceback" not in process.log
    assert await queue.ledger() == {str(number): 1 for number in range(12)}
    second = worker("--lease", "2", processor="tests.processors:echo")
    await wait_until(lambda: queue.answered(12))
    results = await queue.results()
    answers = [result for result in results.values() if result["status"] == "success"]
    assert len(answers) > 6  # a task that has killed three workers is given up
    await wait_until(queue.buried)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0, second.log
    assert await queue.ledger() == {str(number): 1 for number in range(12)}


async def test_ctrl_c_lets_workers_finish_and_hands_back_the_rest(queue: Queue, worker: Start, tmp_path: Path) -> None:
    process = worker("-w", "2", "-c", "1", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 6)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    process.signal(signal.SIGINT)
    await wait_until(lambda: process.log.count("stopping: 1 task is running") == 2, "both workers to stop")
    assert not any(gone(pid) for pid in pids(tmp_path))
    (tmp_path / "open").touch()
    assert await process.ended() == 0, process.log
    assert "Traceback" not in process.log
    assert all(gone(pid) for pid in pids(tmp_path))
    assert len(await queue.results()) == 2
    assert len(await queue.waiting()) == 4


async def test_a_hung_worker_ends_when_its_parent_is_killed(queue: Queue, worker: Start, tmp_path: Path) -> None:
    """It cannot stop, and no parent is left to kill it."""
    process = worker(
        *("-w", "2", "-c", "1", "--lease", "2", "--shutdown-timeout", "1"), processor="tests.processors:block_first"
    )
    await queue.push_tasks([[str(tmp_path)]])
    await wait_until(lambda: pids(tmp_path))
    [hung] = pids(tmp_path)
    process.kill()
    await wait_until(lambda: gone(hung), "the worker to end")
    second = worker("--lease", "2", processor="tests.processors:block_first")
    await wait_until(lambda: queue.answered(1))
    await wait_until(queue.buried)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0, second.log
