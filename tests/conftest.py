"""Fixtures: real servers, a queue of one's own, worker processes; and checks that nothing is left behind."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from redis.asyncio import Redis

from redis_worker.broker.keys import TOPICS, Keys
from redis_worker.embedded import EmbeddedServer
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.mock_kafka import MockKafka
from redis_worker.server_programs import servers
from tests.kafka.real_broker import RealKafka, real_kafka_or_skip
from tests.leftovers import is_of_a_worker, nothing_left, watch_event_loops
from tests.processes import children, kill, of_run, start_run
from tests.session import compile_sources, keep_to_ports_of_its_own, restore_signals, writing_bytecode
from tests.support import Queue, Topic, WorkerProcess, ended_in_time

# Settings of the person who runs the tests are not settings of the tests.
_OF_THE_PERSON = (
    *("REDIS_WORKER_", "REDIS_URL", "REDIS_HOST"),
    *("KAFKA_BROKERS", "CONSUMER_GROUP", "DATABASE_URL", "POSTGRES_DSN", "BATCH_SIZE", "PGHOST", "PGPASS"),
)
for _name in [name for name in os.environ if name.startswith(_OF_THE_PERSON)]:
    del os.environ[_name]


# What servers could do differently: scripts and their keys, and what clients and connections ask of a server. The other
# tests would show on a second one what they have shown on the first.
ON_EACH_SERVER = frozenset({
    *("queue_calls", "test_model.py", "test_crash_points.py", "test_delivery.py", "test_protocol.py"),
    *("test_priorities.py", "test_retries.py", "test_delayed.py", "test_dead.py", "test_at_most_once_letters.py"),
    *("test_inflight_lists.py", "test_registry_of_workers.py", "test_damaged_keys.py", "test_twins.py"),
    *("test_topics.py", "test_doorbell.py", "test_cron_claims.py", "test_cron_lease.py", "test_cron_model.py"),
    *("test_unique.py", "test_cancelling.py"),
    *("test_servers.py", "test_library.py", "test_status.py", "test_doctor.py"),
})  # fmt: skip

# A busy machine is slow, and no example fails by that.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--servers",
        choices=["all", "first", "others"],
        default="all",
        help="on which of the server programs there are; the first runs all tests, the others those of ON_EACH_SERVER",
    )
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


def pytest_configure(config: pytest.Config) -> None:
    restore_signals()
    watch_event_loops()
    keep_to_ports_of_its_own()
    if not hasattr(config, "workerinput"):  # which a process of pytest-xdist has, and with it the mark of its parent
        compile_sources()
        start_run()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the test files that pytest compiles, for the next run."""
    with writing_bytecode():
        return (yield)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    which = config.getoption("--servers")
    others = set(servers()[1:])

    def is_chosen(item: pytest.Item) -> bool:
        call = getattr(item, "callspec", None)
        if call is None or call.params.get("server") not in others:
            return bool(which != "others")
        return which != "first" and not ON_EACH_SERVER.isdisjoint(item.path.parts)

    left_out = [item for item in items if not is_chosen(item)]
    items[:] = [item for item in items if is_chosen(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _judge_skip(item.config, report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _judge_skip(collector.config, report)
    return report


def _judge_skip(config: pytest.Config, report: pytest.TestReport | pytest.CollectReport) -> None:
    """With --no-skips, make a skip a failure: a machine that lacks a tool does not show that the tests pass."""
    if report.skipped and not hasattr(report, "wasxfail") and config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and --no-skips allows none: {report.longrepr}"


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Kill what the tests have left running, wherever it has gone, and say so."""
    if hasattr(session.config, "workerinput"):
        return
    if not ended_in_time(lambda: not of_run(), 15.0):
        left = of_run()
        kill(left)
        terminal = session.config.get_terminal_writer()
        terminal.line()
        terminal.line(f"processes left behind, and killed: {', '.join(left.values())}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session", autouse=True)
def _no_thread_left() -> Iterator[None]:
    """The tests of a process end the threads that they start."""
    before = set(threading.enumerate())

    def lasting() -> set[threading.Thread]:
        # A daemon thread holds nobody up, and some tests have one that never ends.
        return {thread for thread in set(threading.enumerate()) - before if not thread.daemon}

    yield
    assert ended_in_time(lambda: not lasting()), f"left behind: {lasting()}"


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
    left = [key for key in await client.keys("*") if is_of_a_worker(key.decode(errors="replace"))]
    await client.flushall()
    await client.aclose()
    assert not left, f"keys of workers that have ended: {left}"


@pytest.fixture
async def queue(redis: Redis) -> AsyncIterator[Queue]:
    """A queue of the test's own. At the end no worker may be registered and nothing be in flight."""
    name = f"test:{secrets.token_hex(4)}"
    keys = Keys(f"{name}:in", f"{name}:out")
    yield Queue(redis, keys)
    left = {key.decode() async for key in redis.scan_iter(f"*{name}*", count=1000)}
    allowed = {keys.waiting, keys.output, keys.dead, keys.retired, keys.claimants, keys.announced}
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

    def start(*arguments: str, **options: Any) -> WorkerProcess:
        started.append(WorkerProcess(server.url, queue.keys, *arguments, **options))
        return started[-1]

    yield start
    for process in started:
        process.close()


@pytest.fixture(scope="session")
def mock_kafka() -> Iterator[MockKafka]:
    """A mock broker, for tests that leave it running: their topics and groups have names of their own."""
    with MockKafka() as running:
        yield running


@pytest.fixture(scope="session")
def real_kafka() -> Iterator[RealKafka]:
    """Apache Kafka, one node, for tests that leave it running. Others start `real_kafka_or_skip(count)`."""
    with real_kafka_or_skip() as running:
        yield running


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server, for tests that leave it running."""
    with EmbeddedPostgres() as running:
        yield running


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL server for one test, which may stop, kill and restart it; it keeps its data."""
    with EmbeddedPostgres() as running:
        yield running


@pytest.fixture
async def database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """The address of an empty database of the test's own."""
    name = f"test_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(postgres.dsn)
    await connection.execute(f"create database {name}")
    yield f"{postgres.dsn.rpartition('/')[0]}/{name}"
    await connection.execute(f"drop database {name} with (force)")
    await connection.close()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test ends the processes, threads, tasks and connections that it starts, and deletes its keys."""
    shared = next((name for name in ("server", "first_server") if name in request.fixturenames), None)
    server = None if shared is None else request.getfixturevalue(shared)
    if not isinstance(server, EmbeddedServer):  # some files have a server of another kind
        server = None
    before = children()
    with nothing_left(server):
        yield
    left = children() - before
    assert not left, f"processes left behind: {left}"
