"""A TaskGraph of the real celestialflow, served by a real worker."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, Queue, WorkerProcess, wait_until

# celestialflow leaves its connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

celestialflow = pytest.importorskip(
    "celestialflow", reason="celestialflow, whose TaskGraph is tried here, is not installed"
)

F_300 = 222232244629420445529739893461909967206666939096499764990979600


class Transport(celestialflow.TaskRedisTransport):
    """Notes the id of each task: four threads push them, in any order."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tasks: dict[int, Any] = {}

    def process_result(self, task: Any, result: int) -> int:
        self.tasks[result] = task
        return result


class Ack(celestialflow.TaskRedisAck):
    """Notes the result of each id: a graph hands results to the next stage only."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.results: dict[int, Any] = {}

    def process_result(self, task: int, result: Any) -> Any:
        self.results[task] = result
        return result


class Outcome(NamedTuple):
    """What became of the tasks of one run of a graph."""

    ids: list[int]
    results: dict[Any, Any]
    errors: dict[Any, str]


Graph = Callable[..., Outcome]


@pytest.fixture
def graph(server: EmbeddedServer, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    """Runs source -> transport -> ack on the queue; stages and graphs are made for one run only."""
    monkeypatch.chdir(tmp_path)  # a graph writes to ./logs and ./fallback
    place = {"host": "127.0.0.1", "port": server.port, "stage_mode": "thread"}

    def run(tasks: Iterable[Any], unpack: bool = False) -> Outcome:
        source = celestialflow.TaskStage("source", lambda task: task, stage_mode="thread")
        transport = Transport("transport", key=queue.keys.waiting, unpack_task_args=unpack, **place)
        ack = Ack("ack", key=queue.keys.output, timeout=int(PATIENCE), **place)
        made = celestialflow.TaskGraph()
        made.set_stages([source, transport, ack])
        made.connect([source], [transport])
        made.connect([transport], [ack])
        made.start_graph({"source": tasks})

        # By (error, stage); ack is the only stage that may fail.
        failed = made.get_fail_by_error_dict()
        assert {stage for _, stage in failed} <= {"ack"}
        return Outcome(
            ids=sorted(transport.tasks),
            results={transport.tasks[id]: result for id, result in ack.results.items()},
            errors={transport.tasks[id]: error for (error, _), ids in failed.items() for id in ids},
        )

    return run


async def end(process: WorkerProcess, queue: Queue) -> None:
    """End the worker gracefully: no task may be anywhere, for ack takes the results away."""
    process.process.terminate()
    assert await process.ended() == 0, process.log
    assert await queue.ledger() == Counter()


def fibonacci() -> Iterable[int]:
    a, b = 1, 1
    while True:
        yield a
        a, b = b, a + b


async def test_answers_and_errors(queue: Queue, worker: Callable[..., WorkerProcess], graph: Graph) -> None:
    process = worker(processor="fibonacci")
    done = await asyncio.to_thread(graph, [*range(1, 26), 300, -1, 0, "x", None, 2.5])
    assert done.ids == list(range(31))
    assert done.results == dict(enumerate(islice(fibonacci(), 25), 1)) | {300: F_300}
    refused = "RemoteWorkerError(Processing error: fibonacci takes a positive integer, got {})"
    assert done.errors == {
        -1: refused.format("a negative one"),
        0: refused.format("zero"),
        "x": refused.format("a string"),
        None: refused.format("null"),
        2.5: refused.format("a number with a fraction or exponent"),
    }
    await end(process, queue)


async def test_parse_errors_arrive_too(queue: Queue, worker: Callable[..., WorkerProcess], graph: Graph) -> None:
    process = worker("--parser", "number", processor="add100")
    done = await asyncio.to_thread(graph, [1])
    assert done.results == {}
    assert done.errors == {1: "RemoteWorkerError(Parse error: task should be a number, got a list)"}
    await end(process, queue)


async def test_a_second_run_uses_the_same_ids(queue: Queue, worker: Callable[..., WorkerProcess], graph: Graph) -> None:
    process = worker(processor="fibonacci")
    expected = dict(enumerate(islice(fibonacci(), 60), 1))
    for first in (1, 31):
        done = await asyncio.to_thread(graph, [*range(first, first + 30), -first])
        assert done.ids == list(range(31))
        assert done.results == {n: expected[n] for n in range(first, first + 30)}
        assert list(done.errors) == [-first]
    await end(process, queue)


async def test_lists(queue: Queue, worker: Callable[..., WorkerProcess], graph: Graph) -> None:
    process = worker(processor="builtins:sorted")
    tasks = [(3, 1, 2), ("b", "a"), (2**100, -(2**70)), (7,), (), (1, "a")]
    done = await asyncio.to_thread(graph, tasks, unpack=True)
    # Ack makes a list a tuple, and its only element of a list that has but one.
    assert done.results == {
        (3, 1, 2): (1, 2, 3),
        ("b", "a"): ("a", "b"),
        (2**100, -(2**70)): (-(2**70), 2**100),
        (7,): 7,
        (): (),
    }
    assert list(done.errors) == [(1, "a")]
    assert done.errors[1, "a"].startswith("RemoteWorkerError(Processing error: ")
    await end(process, queue)


async def test_a_killed_workers_task_is_answered_by_another(
    queue: Queue, worker: Callable[..., WorkerProcess], graph: Graph, tmp_path: Path
) -> None:
    first = worker("--lease", "2", processor="tests.processors:gate")
    running = asyncio.create_task(asyncio.to_thread(graph, [str(tmp_path)]))
    await wait_until((tmp_path / "running").exists, "the task to run")
    first.kill()
    (tmp_path / "open").touch()
    second = worker("--lease", "2", processor="tests.processors:gate")
    done = await running
    assert done.results == {str(tmp_path): second.pid}
    assert done.errors == {}
    await end(second, queue)


@pytest.mark.parametrize("given", [True, False], ids=["with REDIS_URL", "without"])
async def test_the_example(given: bool, server: EmbeddedServer, queue: Queue, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    if given:
        environment["REDIS_URL"] = server.url
    process = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "examples.taskgraph"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.stderr == ""
    assert process.returncode == 0
    expected = [f"fibonacci({n}) = {value}" for n, value in enumerate(islice(fibonacci(), 25), 1)]
    refused = "RemoteWorkerError(Processing error: fibonacci takes a positive integer, got"
    assert process.stdout.splitlines() == [
        *expected,
        f"fibonacci(300) = {F_300}",
        f"fibonacci(-1): {refused} a negative one)",
        f"fibonacci('x'): {refused} a string)",
    ]
    assert list(tmp_path.iterdir()) == []
    # A worker whose last command may still be under way is remembered a while.
    assert [key async for key in queue.redis.scan_iter("*taskgraph*") if not key.endswith(b":retired")] == []
