"""Programs whose main line is `asyncio.run(worker.serve())`, and workers declared in Python that the command runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from redis_worker import ConfigurationError, Publisher, Supervisor, TopicWorker, WorkerPool
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, CommandProcess, Queue, Topic, wait_until

MODULE = """
import asyncio, logging, os, pathlib, sys
from redis_worker import Handlers, Supervisor, TopicWorker, WorkerPool

URL, QUEUE, OUT, TOPIC = (os.environ.get(name, name) for name in ("T_URL", "T_QUEUE", "T_OUT", "T_TOPIC"))
MARKS = pathlib.Path(os.environ.get("T_MARKS", "/dev/null"))

def mark(text):
    with MARKS.open("a") as file:
        file.write(text + chr(10))

async def work(what):
    mark("begun")
    try:
        for _ in range(int(os.environ.get("T_STEPS", "20"))):
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        mark("cancelled")
        raise
    mark("done")
    return 1

handlers = Handlers()
handlers.handler(TOPIC)(work)
topics = TopicWorker(URL)
topics.include(handlers)
pool = WorkerPool(URL, QUEUE, OUT, "any", work, shutdown_timeout="1m")
empty = TopicWorker(URL)
number = 4
supervisor = Supervisor.from_file("workers.toml", url=URL) if os.path.exists("workers.toml") else None

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(0 if asyncio.run(globals()[sys.argv[1]].serve()) else 7)
"""
FILE = """
[pools.work]
input = "${T_QUEUE}"
output = "${T_OUT}"
parser = "any"
processor = "t_shop:work"
"""


class Program(CommandProcess):
    """A program of the user's, in a folder of its own."""

    def __init__(self, *command: str, cwd: Path, env: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", *command],
            cwd=cwd,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **env},
            stderr=self._log,
            stdout=subprocess.DEVNULL,
        )


Start = Callable[..., Program]


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def marks(tmp_path: Path) -> Callable[[], list[str]]:
    file = tmp_path / "marks"
    return lambda: file.read_text().split() if file.exists() else []


@pytest.fixture
def start(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> Iterator[Start]:
    """Starts programs in a folder in which there are the module `t_shop` and a file that names it."""
    (tmp_path / "t_shop.py").write_text(MODULE)
    (tmp_path / "workers.toml").write_text(FILE)
    name = queue.keys.waiting
    env = {
        "T_URL": server.url,
        "T_QUEUE": name,
        "T_OUT": queue.keys.output,
        "T_TOPIC": f"{name}:t",
        "T_MARKS": str(tmp_path / "marks"),
    }
    started: list[Program] = []

    def begin(*command: str, **more: str) -> Program:
        started.append(Program(*command, cwd=tmp_path, env=env | more))
        return started[-1]

    yield begin
    for program in started:
        program.close()


@pytest.fixture
async def give(server: EmbeddedServer, queue: Queue) -> Any:
    """Gives a worker something to do."""

    async def give(worker: str) -> None:
        if worker in ("pool", "supervisor"):
            await queue.push_tasks([1])
        else:
            async with Publisher(server.url) as publisher:
                await publisher.publish(f"{queue.keys.waiting}:t", 1, id="m")

    yield give
    topic = Topic(queue.redis, f"{queue.keys.waiting}:t")
    keys = topic.keys
    await queue.redis.delete(keys.waiting, keys.dead, keys.retired, "{mq}:topics")


WAYS = {
    "program": lambda worker: ("t_shop.py", worker),
    "command": lambda worker: ("-m", "redis_worker", "serve", f"t_shop:{worker}"),
}
WORKERS = ("pool", "topics", "supervisor")


def each_signal() -> Iterator[Any]:
    """Yield the cases of a first signal; that Ctrl-C is as SIGTERM, `make test` shows of one worker in each way."""
    for way, worker, number in product(WAYS, WORKERS, (signal.SIGTERM, signal.SIGINT)):
        is_long = number == signal.SIGINT and worker != "pool"
        yield pytest.param(way, worker, number, marks=pytest.mark.long if is_long else [])


@pytest.mark.parametrize(("way", "worker", "number"), [*each_signal()])
async def test_the_first_signal_lets_what_runs_finish(
    start: Start, give: Any, marks: Callable[[], list[str]], way: str, worker: str, number: int
) -> None:
    await give(worker)
    program = start(*WAYS[way](worker))
    await wait_until(lambda: "begun" in marks() or not program.alive, "the work to begin")
    program.signal(number)
    assert await program.ended() == 0, program.log
    assert marks() == ["begun", "done"]
    assert "stopping" in program.log
    assert "Traceback" not in program.log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("worker", WORKERS)
async def test_the_second_signal_cancels(
    start: Start, queue: Queue, give: Any, marks: Callable[[], list[str]], way: str, worker: str
) -> None:
    await give(worker)
    program = start(*WAYS[way](worker), T_STEPS="100000")
    await wait_until(lambda: "begun" in marks() or not program.alive, "the work to begin")
    program.signal(signal.SIGUSR1)
    await program.said("work")
    program.signal(signal.SIGTERM)
    await program.said("stopping")
    assert program.alive
    program.signal(signal.SIGTERM)
    assert await program.ended() == (7 if way == "program" else 1), program.log
    assert marks() == ["begun", "cancelled"]
    # What was cancelled went back.
    waiting = queue if worker != "topics" else Topic(queue.redis, f"{queue.keys.waiting}:t")
    assert await queue.redis.llen(waiting.keys.waiting) == 1
    await queue.redis.delete(waiting.keys.waiting)


@pytest.mark.parametrize("worker", WORKERS)
async def test_a_third_signal_ends_the_process(
    start: Start, queue: Queue, give: Any, marks: Callable[[], list[str]], worker: str
) -> None:
    await give(worker)
    stubborn = MODULE.replace("        raise\n", "        while True: await asyncio.sleep(1)\n")
    program = start("-c", f"import sys; sys.argv = ['-c', {worker!r}]\n{stubborn}", T_STEPS="100000")
    await wait_until(lambda: "begun" in marks() or not program.alive, "the work to begin")
    program.signal(signal.SIGTERM)
    await program.said("stopping")
    program.signal(signal.SIGTERM)
    await program.said("cancelling")
    program.signal(signal.SIGTERM)
    assert await program.ended() == 1, program.log
    await queue.redis.flushall()


def takes_signals(program: Program) -> bool:
    """Whether it has a handler for SIGTERM by now."""
    [caught] = (line for line in Path(f"/proc/{program.pid}/status").read_text().splitlines() if "SigCgt" in line)
    return bool(int(caught.split()[1], 16) & (1 << (signal.SIGTERM - 1)))


@pytest.mark.parametrize("worker", ["pool", "topics"])
async def test_a_signal_while_redis_is_not_there(start: Start, worker: str) -> None:
    program = start("t_shop.py", worker, T_URL="redis://127.0.0.1:1")
    await wait_until(lambda: takes_signals(program))
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0, program.log


async def test_serve_gives_the_signals_back_and_is_for_the_main_thread(server: EmbeddedServer, queue: Queue) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum", burst=True)
    assert await pool.serve()
    assert [signal.getsignal(number) for number in numbers] == before
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            asyncio.run(WorkerPool(server.url, "i", "o", "list", "sum").serve())
        except ConfigurationError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "only in the main thread; call run() here" in str(errors[0])


async def test_a_topic_worker_without_handlers_serves_nothing(
    server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="the topic worker has no handler"):
        await TopicWorker(server.url).serve()
    worker = TopicWorker(server.url)  # handlers may be declared while it runs, so this is no error
    running = asyncio.create_task(worker.run())
    await wait_until(lambda: "does nothing until one is declared" in caplog.text)
    worker.stop()
    await running


async def test_handlers_run_at_the_server_that_is_named(
    server: EmbeddedServer, start: Start, give: Any, marks: Callable[[], list[str]], tmp_path: Path
) -> None:
    for env, more in (({"REDIS_URL": server.url}, ()), ({}, ("--url", server.url))):
        (tmp_path / "marks").unlink(missing_ok=True)
        await give("topics")
        program = start("-m", "redis_worker", "serve", "t_shop:handlers", *more, **env)
        await wait_until(lambda: "done" in marks(), "the work to be done")
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0, program.log
        assert "at once" in program.log


async def test_a_supervisor_that_serves_reads_its_file_again(start: Start, queue: Queue, tmp_path: Path) -> None:
    program = start("t_shop.py", "supervisor")
    await wait_until(lambda: queue.redis.zcard(queue.keys.workers), "the pool")
    (tmp_path / "workers.toml").write_text(FILE + "concurrency = 9\n")
    program.signal(signal.SIGHUP)
    await program.said("0 parts go on, 1 end, 1 begin")
    program.signal(signal.SIGTERM)
    assert await program.ended() == 0, program.log


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("serve", "t_shop:number"), "the worker 't_shop:number' is of type int; it must be a WorkerPool, TaskQueue"),
        (("serve", "t_shop:pol"), "the worker 't_shop:pol': module t_shop has no variable 'pol'"),
        (("serve", "t_absent:x"), "the worker 't_absent:x': no module named 't_absent'"),
        (("serve", "t_shop:empty"), "the topic worker has no handler: declare one with @worker.handler"),
        (("serve", "t_shop:pool", "--watch"), "--watch is only for a file; t_shop:pool is a worker declared in Python"),
        (("serve", "t_shop:pool", "--only", "x"), "--only is only for a file"),
        (("serve", "t_shop:pool", "--url", "redis://x"), "the worker 't_shop:pool' names its server itself"),
        (("check", "t_shop:number"), "the worker 't_shop:number' is of type int"),
        (("check", "t_shop:pool", "--except", "x"), "--except is only for a file"),
    ],
)
async def test_what_cannot_be_served_is_told_in_one_sentence(
    start: Start, arguments: tuple[str, ...], sentence: str
) -> None:
    program = start("-m", "redis_worker", *arguments)
    assert await program.ended() == 2
    assert sentence in program.log
    assert "Traceback" not in program.log


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        ("pool", "t_shop:pool: this would run\n  pool  in -> out, work, 4 at once, on redis://there"),
        ("topics", "t_shop:topics: this would run\n  topics  on redis://there"),
        ("handlers", "          T_TOPIC: work, 4 at once, 3 retries"),
        ("supervisor", "workers: these would run, in this order\n  pool  work  in -> out, t_shop:work"),
    ],
)
def test_check_shows_what_would_run(tmp_path: Path, worker: str, expected: str) -> None:
    (tmp_path / "t_shop.py").write_text(MODULE)
    (tmp_path / "workers.toml").write_text(FILE)
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "redis_worker", "check", f"t_shop:{worker}"],
        cwd=tmp_path,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "T_URL": "redis://there",
            "T_QUEUE": "in",
            "T_OUT": "out",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert expected in ended.stdout


def test_a_supervisor_is_a_service_of_its_own_when_it_serves(tmp_path: Path) -> None:
    file = tmp_path / "workers.toml"
    file.write_text('[worker]\nmode = "standalone"\n[daemons.d]\nrun = "m:f"')
    supervisor = Supervisor.from_file(file)
    assert supervisor.why_nothing is not None
    supervisor.standalone = True
    assert supervisor.why_nothing is None
