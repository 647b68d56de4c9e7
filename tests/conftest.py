"""Fixtures: real servers, a queue of one's own, worker processes; and checks that nothing is left behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from redis_worker.broker.keys import TOPICS, Keys
from redis_worker.embedded import EmbeddedServer, servers
from tests.support import Queue, Topic, WorkerProcess

# Settings of the person who runs the tests are not settings of the tests.
for _name in [name for name in os.environ if name.startswith(("REDIS_WORKER_", "REDIS_URL", "REDIS_HOST"))]:
    del os.environ[_name]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        choices=["all", "first", "others"],
        default="all",
        help="on which of the server programs there are; tests that need none run with the first (python -m tests)",
    )
    parser.addoption(
        "--half",
        choices=["both", "first", "other"],
        default="both",
        help="every other file, in the order of their names; for running both halves side by side (python -m tests)",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which, half = config.getoption("--servers"), config.getoption("--half")
    others = set(servers()[1:])
    files = sorted({item.path for item in items})

    def is_chosen(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        on_another = call is not None and call.params.get("server") in others
        in_first_half = files.index(item.path) % 2 == 0
        return (which == "all" or on_another == (which == "others")) and (
            half == "both" or in_first_half == (half == "first")
        )

    left_out = [item for item in items if not is_chosen(item)]
    items[:] = [item for item in items if is_chosen(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def first_server() -> Iterator[EmbeddedServer]:
    """Any one server, for tests that ask nothing of it that servers do differently: a module calls it `server`."""
    with EmbeddedServer(servers()[0]) as running:
        yield running


@pytest.fixture(scope="session", params=servers(), ids=lambda path: path.name)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """Each server program there is on this machine; the tests of a session share its process."""
    with EmbeddedServer(request.param) as running:
        yield running


@pytest.fixture
def own_server(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server for one test, which may stop, kill and restart it; it keeps its data."""
    with EmbeddedServer(server.binary, persistent=True) as running:
        yield running


@pytest.fixture
async def redis(server: EmbeddedServer) -> AsyncIterator[Redis]:
    client = Redis.from_url(server.url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def queue(redis: Redis) -> AsyncIterator[Queue]:
    """A queue of the test's own. At the end no worker may be registered and nothing be in flight."""
    name = f"test:{secrets.token_hex(4)}"
    keys = Keys(f"{name}:in", f"{name}:out")
    yield Queue(redis, keys)
    left = {key.decode() async for key in redis.scan_iter(f"*{name}*", count=1000)}
    allowed = {keys.waiting, keys.output, keys.dead, keys.retired, keys.claimants}
    assert left <= allowed, f"left behind: {left - allowed}"
    if left:
        await redis.delete(*left)


@pytest.fixture
async def topic(queue: Queue) -> AsyncIterator[Topic]:
    """A topic of the test's own. Its keys have the queue's name in them, so the same holds at the end."""
    topic = Topic(queue.redis, queue.keys.waiting)
    yield topic
    keys = topic.keys
    await queue.redis.delete(keys.waiting, keys.dead, keys.retired, keys.claimants, keys.delayed, keys.done, TOPICS)


@pytest.fixture
def worker(server: EmbeddedServer, queue: Queue) -> Iterator[Callable[..., WorkerProcess]]:
    """Starts worker processes on the queue; those still there at the end are killed."""
    started: list[WorkerProcess] = []

    def start(*arguments: str, processor: str = "sum", env: dict[str, str] | None = None) -> WorkerProcess:
        started.append(WorkerProcess(server.url, queue.keys, *arguments, processor=processor, env=env))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """Every test ends the processes it starts."""
    before = _children()
    yield
    left = _children() - before
    assert not left, f"processes left behind: {left}"


def _children() -> set[str]:
    """The commands of this process's children, where /proc tells."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                command = stat.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode()
                # multiprocessing keeps one helper of its own for the life of the process
                if "resource_tracker" not in command:
                    found.add(f"{stat.parent.name} {command}")
        except (OSError, ValueError):
            continue
    return found
