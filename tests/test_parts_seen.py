"""What is seen of a supervisor's parts from outside: HTTP, metrics, logs, status, and who blocks the event loop."""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import os
import pkgutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import copy_context
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

import redis_worker
from redis_worker import ConfigurationError, Message, Observer, Publisher, TopicWorker, WorkerPool, __version__
from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import QUEUES, SUPERVISORS, TOPICS
from redis_worker.broker.operator.cron_status import JobStatus
from redis_worker.broker.operator.status import QueueStatus, Status, StatusReader
from redis_worker.broker.operator.supervisors import Announcer, Description, SupervisorStatus
from redis_worker.broker.operator.worker_status import WorkerStatus
from redis_worker.cli import logs
from redis_worker.cli.tables import plain, tables
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.watchdog import Watchdog
from redis_worker.http.metrics import OUTCOMES, Metrics, QueueMetrics
from redis_worker.http.server import HttpServer
from redis_worker.reporting import report_block
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.service import Consuming, PartStatus
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import PATIENCE, ROOT, Queue, Several, Topic, rounds_until, wait_until
from tests.test_http import Answer, get

HEALTHY = PartStatus("fibonacci", "pool", "running")
FAILED = PartStatus("table_consumer", "daemon", "failed", 11, "RuntimeError: no table")


def nowhere(_: Consuming) -> Address:
    raise AssertionError("nothing is consumed")


def _ask(address: str, path: str, token: str, accept: str) -> tuple[Answer, str | None]:
    headers = {"Authorization": token, "Accept": accept}
    request = urllib.request.Request(f"http://{address}{path}", headers=headers)
    try:
        reply = urllib.request.urlopen(request, timeout=PATIENCE)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        answer = Answer(reply.status, reply.headers["Content-Type"], reply.read().decode())
        return answer, reply.headers["WWW-Authenticate"]


async def ask(http: HttpServer, path: str, token: str, accept: str = "*/*") -> tuple[Answer, str | None]:
    assert http.listening
    return await asyncio.to_thread(_ask, http.listening, path, token, accept)


async def samples(http: HttpServer) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All samples, by name and labels; none is there twice."""
    assert http.listening
    answer = await get(http.listening, "/metrics")
    assert answer.status == 200, answer.body
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(answer.body):
        for sample in family.samples:
            key = (sample.name.removeprefix("redis_worker_"), frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def labels(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


# --- HTTP ---


async def test_readiness_names_the_parts_that_are_not_ready() -> None:
    service = Several(HEALTHY, PartStatus("done", "daemon", "ended"))
    http = HttpServer("127.0.0.1:0")
    async with http.answering(service, nowhere):
        assert http.listening
        ready = await get(http.listening, "/ready")
        assert ready.status == 200
        assert ready.json == {
            "status": "ready",
            "service": "shop",
            "parts": {
                "fibonacci": {"kind": "pool", "state": "running", "restarts": 0},
                "done": {"kind": "daemon", "state": "ended", "restarts": 0},
            },
        }
        service.statuses += [FAILED, PartStatus("sync_user", "cron job", "waiting for Redis")]
        not_ready = await get(http.listening, "/ready")
        assert not_ready.status == 503
        assert not_ready.json["status"] == "not ready"
        assert not_ready.json["reason"] == (
            "table_consumer: failed (RuntimeError: no table); sync_user: waiting for Redis"
        )
        assert not_ready.json["parts"]["table_consumer"] == {
            "kind": "daemon", "state": "failed", "restarts": 11, "error": "RuntimeError: no table",
        }  # fmt: skip
        assert (await get(http.listening, "/healthz")).status == 200
        summary = (await get(http.listening, "/metrics", "application/json")).json
        assert summary["parts"] == not_ready.json["parts"]
        service.statuses = [HEALTHY]
        service.condition = "stopping"
        stopping = await get(http.listening, "/ready")
        assert (stopping.status, stopping.json["reason"]) == (503, "stopping")


async def test_a_token_is_asked_for_where_there_is_more_to_see_than_the_state() -> None:
    http = HttpServer("127.0.0.1:0", token="geheim ß")
    service = Several(HEALTHY)
    async with http.answering(service, nowhere):
        for shown in ("", "Bearer", "Bearer geheim", "Basic geheim ß", "geheim ß", "Bearer \udcff"):
            sent = shown.encode(errors="surrogateescape").decode("latin-1")
            for accept in ("*/*", "application/json", "text/html, application/json"):
                answer, wanted = await ask(http, "/metrics", sent, accept)
                assert (answer.status, wanted) == (401, 'Bearer realm="redis_worker"')
                assert answer.json.keys() == {"error"}
            answer, wanted = await ask(http, "/ready", sent)
            assert (answer.status, answer.json, wanted) == (200, {"status": "ready"}, None)
            assert (await ask(http, "/healthz", sent))[0].status == 200
        service.statuses.append(FAILED)
        answer, _ = await ask(http, "/ready", "")
        assert (answer.status, answer.json) == (503, {"status": "not ready"})
        for shown in ("Bearer geheim ß", "bearer  geheim ß"):
            sent = shown.encode().decode("latin-1")
            assert (await ask(http, "/metrics", sent))[0].status == 200
            assert (await ask(http, "/metrics", sent, "application/json"))[0].json["service"] == "shop"
            answer, _ = await ask(http, "/ready", sent)
            assert "table_consumer: failed" in answer.json["reason"]


def test_an_empty_token_is_none() -> None:
    with pytest.raises(ConfigurationError, match="the HTTP token is empty"):
        HttpServer("127.0.0.1:0", token=" ")


# --- metrics ---


async def test_the_metrics_of_parts_and_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("redis_worker.http.cached_answer.SECONDS", 0.0)
    service = Several(HEALTHY, FAILED)
    http = HttpServer("127.0.0.1:0")
    job = http.metrics.job("sync_user")
    job.outcome("success", 2.0)
    job.outcome("error", 400.0)
    job.outcome("skipped", 0.0)
    async with http.answering(service, nowhere):
        found = await samples(http)
        service.statuses = [HEALTHY]
        assert (await samples(http))["ready", labels()] == 1
    assert found["ready", labels()] == 0
    assert found["part_ready", labels(part="fibonacci", kind="pool")] == 1
    assert found["part_ready", labels(part="table_consumer", kind="daemon")] == 0
    assert found["part_restarts_total", labels(part="table_consumer", kind="daemon")] == 11
    for outcome in ("success", "error", "skipped"):
        assert found["cron_runs_total", labels(part="sync_user", outcome=outcome)] == 1
    assert found["cron_run_seconds_count", labels(part="sync_user")] == 2
    assert found["cron_run_seconds_sum", labels(part="sync_user")] == 402
    assert found["cron_run_seconds_bucket", labels(part="sync_user", le="2.5")] == 1
    assert abs(found["cron_last_success_timestamp_seconds", labels(part="sync_user")] - time.time()) < 600


async def test_pools_measured_by_another_server_on_two_servers(server: EmbeddedServer, redis: Redis) -> None:
    """Two parts on queues of one name, each on a server of its own, and a part in two processes."""
    http = HttpServer("127.0.0.1:0")
    with EmbeddedServer(server.binary) as second:
        addresses = {"one": address_of(server.url), "two": address_of(second.url)}
        service = Several()

        def measuring(part: str) -> Any:
            return lambda queue, processor: http.metrics.of(queue, processor, part)

        async with (
            http.answering(service, lambda consuming: addresses[consuming.part]),
            WorkerPool(server.url, "in", "out", "list", "sum", measuring=measuring("one")) as one,
            WorkerPool(second.url, "in", "out", "list", "sum", measuring=measuring("two")) as two,
            Redis.from_url(second.url) as other,
        ):
            service.queues = [
                *(pool.consuming()[0]._replace(part=part) for part, pool in (("one", one), ("two", two))),
                Consuming("in", "in", "sum", 2, "two"),
            ]
            await redis.rpush("in", b'{"id":1,"task":[1]}')
            await other.rpush("in", b'{"id":1,"task":[1]}', b'{"id":2,"task":["x"]}')
            await wait_until(lambda: one.counters.processed + two.counters.processed == 3)
            await other.zadd("{in}:delayed", {"x:{}": 10**14})
            at_one, at_two = (labels(queue="in", processor="sum", part=part) for part in ("one", "two"))

            async def read() -> Any:
                found = await samples(http)
                return found if found.get(("delayed", at_two)) == 1 else None

            found = await wait_until(read)
        assert http.listening is None
    assert (found["delayed", at_one], found["in_flight", at_one], found["in_flight", at_two]) == (0, 0, 2)
    success, error = (("outcome", name) for name in ("success", "error"))
    assert found["tasks_total", at_one | {success}] == found["tasks_total", at_two | {success}] == 1
    assert (found["tasks_total", at_one | {error}], found["tasks_total", at_two | {error}]) == (0, 1)
    assert found["processing_seconds_count", at_two] == 2
    await redis.delete("out", QUEUES)


async def test_topics_are_measured_too(server: EmbeddedServer, topic: Topic) -> None:
    metrics = Metrics()
    worker = TopicWorker(server.url, measuring=lambda queue, processor: metrics.of(queue, processor, "topics"))

    @worker.handler(topic.name)
    async def handle(message: Message) -> None: ...

    async with worker, Publisher(server.url) as publisher:
        await publisher.publish(topic.name, 1)
        await wait_until(lambda: worker.counters.processed == 1)
    assert metrics.queues[topic.keys.waiting, "handle", "topics"].outcomes["success"] == 1
    assert await topic.redis.delete(TOPICS)


def _done(seconds: float, verdict: str) -> Outcome:
    delivery = Delivery(b"{}", None)
    return Outcome(delivery, "id", None, None if verdict == "success" else "no", verdict == "dead", seconds)


_TASKS = st.lists(st.tuples(st.floats(0.001, 400), st.sampled_from(["success", "error", "dead"])), max_size=4)
_LIVES = st.lists(st.tuples(st.sampled_from(["one#1", "one#2", "two#1"]), st.lists(_TASKS, max_size=4)), max_size=6)


@given(lives=_LIVES, data=st.data())
def test_the_numbers_of_all_lives_are_counted_once(lives: list[Any], data: st.DataObject) -> None:
    """Children of several parts live side by side; whoever is replaced is retired, or followed by another life."""
    gathered, here = Metrics(), Metrics()
    here.of("in", "sum", "one").settled([_done(1.0, "success")])
    gathered.of("in", "sum", "one").settled([_done(1.0, "success")])
    waiting: dict[str, list[list[Any]]] = {}
    for source, told in lives:
        waiting.setdefault(source, []).append(told)
    living: dict[str, tuple[Metrics, list[Any]]] = {}
    gone: list[tuple[str, Any]] = []
    while any(waiting.values()) or any(told for _, told in living.values()):
        source = data.draw(st.sampled_from(sorted(waiting)))
        child, told = living.get(source, (None, []))
        if told:
            tasks = told.pop(0)
            assert child is not None
            part = source.partition("#")[0]
            for metrics in (child, here):
                outcomes = [_done(*task) for task in tasks]
                of_queue = metrics.of("in", "sum", "" if metrics is child else part)
                of_queue.settled(outcomes)
                for seconds, verdict in tasks:  # as a Kafka worker with a sink tells it
                    of_queue.written(2, int(verdict == "dead"), seconds)
                    of_queue.committed([("in", 0)])
                    of_queue.revoked([("in", 0)], lost=verdict == "error")
                metrics.counting.settled(outcomes)
                for seconds, verdict in tasks:
                    metrics.job("job").outcome(verdict, seconds)
            gathered.absorb(source, json.loads(json.dumps(child.snapshot())))
            if data.draw(st.booleans()):
                gathered.absorb(source, child.snapshot())
            for late in gone[-1:]:
                if late[0] == source:
                    gathered.absorb(*late)  # from a life that is over, and retired
        elif waiting[source]:
            if child is not None and data.draw(st.booleans()):
                gathered.retire(source)
                gone.append((source, child.snapshot()))
            living[source] = Metrics(), list(waiting[source].pop(0))
        else:
            del waiting[source]
            gathered.retire(source)
            gathered.retire(source)
    _same(gathered.total(), here)
    again = Metrics()
    again.absorb("x#1", gathered.snapshot())  # as a child that has children
    _same(again.total(), here)


def _same(some: Metrics, others: Metrics) -> None:
    def stream(queue: QueueMetrics) -> Any:
        seen = queue.stream
        return seen and (seen.counts, seen.rows.counts, seen.seconds.counts, pytest.approx(seen.seconds.sum))

    def queues(metrics: Metrics) -> Any:
        return {
            tuple(measured): (
                queue.outcomes,
                queue.processing.counts,
                pytest.approx(queue.processing.sum),
                stream(queue),
            )
            for measured, queue in metrics.queues.items()
            if any(queue.outcomes.values())
        }

    def jobs(metrics: Metrics) -> Any:
        return {
            name: (job.outcomes, job.seconds.counts, pytest.approx(job.seconds.sum))
            for name, job in metrics.jobs.items()
            if any(job.outcomes.values())
        }

    assert queues(some) == queues(others)
    assert jobs(some) == jobs(others)
    assert some.counting.counters.snapshot() == others.counting.counters.snapshot()


def test_a_snapshot_has_everything() -> None:
    child, parent = Metrics(), Metrics()
    metrics = child.of("in", "sum")
    hour_ago = json.dumps({"id": 1, "task": [], "emit_ts": time.time() - 3600}).encode()
    metrics.claimed([Delivery(hour_ago, None), Delivery(b"{}", None, deaths=1)])
    metrics.recovered("other", 3)
    metrics.refused([_done(1.0, "success")])
    child.job("job").outcome("success", 1.0)
    parent.absorb("pool#1", child.snapshot())
    [(measured, numbers)] = parent.total().queues.items()
    assert measured == ("in", "sum", "pool")
    assert numbers.snapshot() == metrics.snapshot()
    assert (numbers.counters.redelivered, numbers.counters.recovered, numbers.outcomes["refused"]) == (1, 3, 1)
    assert sum(numbers.latency.counts) == 1
    assert set(numbers.outcomes) == set(OUTCOMES)
    assert parent.total().jobs["job"].succeeded_at == child.jobs["job"].succeeded_at
    assert parent.queues == {}


# --- logs ---


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the library logs, as a host application hears it: at its root, whatever it has configured there."""
    handler, root, logger = _Kept(), logging.getLogger(), logging.getLogger("redis_worker")
    level = logger.level
    root.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler.records
    root.removeHandler(handler)
    logger.setLevel(level)


@contextmanager
def part(name: str) -> Iterator[None]:
    token = PART.set(name)
    yield
    PART.reset(token)


def test_every_logger_of_the_library_knows_the_part(records: list[logging.LogRecord]) -> None:
    for module in pkgutil.walk_packages(redis_worker.__path__, "redis_worker."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    ours = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "redis_worker" and isinstance(logger, logging.Logger)
    ]
    assert len(ours) >= 4
    for logger in ours:
        records.clear()
        with part("table_consumer"):
            logger.warning("of its own")
            logger.warning("of another", extra={"part": "other"})
        logger.warning("of nobody")
        names = [getattr(record, "part", None) for record in records]
        assert names == ["table_consumer", "other", None], logger.name


async def test_the_records_of_a_pool(server: EmbeddedServer, queue: Queue, records: list[logging.LogRecord]) -> None:
    await queue.push_tasks([["x"]])
    with part("fibonacci"):
        pool = WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum", burst=True)
        await pool.run()
    ours = [record for record in records if record.name.startswith("redis_worker")]
    assert any("failed" in record.getMessage() for record in ours)
    assert {vars(record).get("part") for record in ours} == {"fibonacci"}


def tell_part(arguments: list[Any]) -> Any:
    return PART.get()


@pytest.mark.parametrize("execution", ["thread", "process"])
async def test_threads_and_processes_know_their_part(server: EmbeddedServer, queue: Queue, execution: str) -> None:
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", tell_part)
    for name in ("fibonacci", None):
        await queue.push_tasks([[1]])
        context = copy_context()
        context.run(PART.set, name)
        pool = WorkerPool(*names, burst=True, execution=execution)
        await asyncio.create_task(pool.run(), context=context)
        assert await queue.result(0) == {"status": "success", "result": name}
        await queue.redis.delete(queue.keys.output)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Configures logging as the command line does, and puts everything back."""
    root, logger = logging.getLogger(), logging.getLogger("redis_worker")
    before = root.handlers[:], root.level, logger.level

    def shown(*arguments: Any, **options: Any) -> Any:
        logs.configure(*arguments, **options)

        def read() -> list[str]:
            return capsys.readouterr().err.splitlines()

        return read

    yield shown
    root.handlers[:], root.level = before[:2]
    root.setLevel(before[1])
    logger.setLevel(before[2])


def test_log_lines_bear_the_part(shown: Any) -> None:
    read = shown("info", "text")
    users = logging.getLogger("shop.jobs")
    with part("table_consumer"):
        library_logger().info("begins")
        users.warning("no table")
        users.info("not shown")
    library_logger().info("goes on")
    assert [line.partition(" ")[2] for line in read()] == [
        "[table_consumer] begins",
        "[table_consumer] warning: no table",
        "goes on",
    ]
    read = shown("info", "json")
    with part("table_consumer"):
        library_logger().info("begins")
        users.warning("no table")
    library_logger().info("another", extra={"part": "other"})
    library_logger().info("goes on")
    lines = [json.loads(line) for line in read()]
    assert [line.get("part") for line in lines] == ["table_consumer", "table_consumer", "other", None]


@pytest.mark.parametrize("name", ["jobs", "jobs#1"])
def test_log_lines_of_the_only_part_bear_the_number_of_the_process(shown: Any, name: str) -> None:
    read = shown("info", "json", alone=name)
    for place in (name, f"{name}#2", "other#3"):
        with part(place):
            library_logger().info("begins")
    lines = [json.loads(line) for line in read()]
    assert [(line.get("process"), line.get("part")) for line in lines] == [(None, None), (2, None), (None, "other#3")]
    read = shown("info", "text", alone=name)
    with part(f"{name}#2"):
        library_logger().info("begins")
    assert read()[0].endswith(" [2] begins")


async def test_everything_is_the_users_code_too(shown: Any) -> None:
    read = shown("info", "text", everything=True)
    with part("sync_user"):
        await asyncio.to_thread(logging.getLogger("shop.jobs").info, "3 users")
        logging.getLogger("shop.jobs").debug("not shown")
    [line] = read()
    assert line.endswith(" [sync_user] 3 users")


# --- who blocks the event loop ---


class Hearing(Observer):
    def __init__(self) -> None:
        self.heard: list[tuple[str | None, str]] = []

    def blocked(self, seconds: float, stack: str) -> None:
        self.heard.append((PART.get(), stack))


def _watches() -> int:
    return sum(thread.name == "redis-worker-watchdog" for thread in threading.enumerate())


async def _of_part(name: str, work: Any) -> None:
    """Run the coroutine `work` as a part is run."""
    context = copy_context()
    context.run(PART.set, name)
    await asyncio.create_task(work, context=context)


async def test_a_part_that_blocks_the_event_loop_is_named_once(
    server: EmbeddedServer, queue: Queue, records: list[logging.LogRecord]
) -> None:
    first, second = Hearing(), Hearing()
    names = (server.url, queue.keys.waiting, queue.keys.output, "list", "sum")
    before = _watches()

    async def consume_table() -> None:
        asyncio.current_task().add_done_callback(lambda _: None, context=copy_context())
        await asyncio.sleep(0)
        time.sleep(1.5)  # a block is what is tested

    async with WorkerPool(*names, observers=[first]), WorkerPool(*names, observers=[second]):
        await wait_until(lambda: _watches() == before + 1)
        async for _ in rounds_until(lambda: first.heard and second.heard, "a block to be noticed"):
            await _of_part("table_consumer", consume_table())
            await asyncio.sleep(0.2)
    await wait_until(lambda: _watches() == before)
    for heard in (first.heard, second.heard):
        [(blamed, stack)] = heard
        assert blamed == "table_consumer"
        assert "in consume_table" in stack
    [report] = [record for record in records if "blocked" in record.getMessage()]
    assert report.getMessage().startswith("the part table_consumer has blocked the event loop for ")
    assert "in consume_table" in report.getMessage()
    assert vars(report)["part"] == "table_consumer"
    assert "queue" not in vars(report)  # it is none of the pools'


async def test_a_plain_callback_blocks_in_nobodys_name(records: list[logging.LogRecord]) -> None:
    observer = Hearing()
    watching = asyncio.create_task(Watchdog(observer, report=report_block, threshold=0.3).run())
    other = asyncio.create_task(Watchdog(Observer(), report=report_block).run())
    await asyncio.sleep(0)
    other.cancel()
    async for _ in rounds_until(lambda: observer.heard, "a block to be noticed"):
        with part("host"):
            asyncio.get_running_loop().call_soon(time.sleep, 0.9)
        await asyncio.sleep(0.2)
    [(blamed, stack)] = observer.heard
    assert blamed is None
    assert "_run_once" in stack
    [report] = [record for record in records if "blocked" in record.getMessage()]
    assert report.getMessage().startswith("the event loop has been blocked for ")
    assert not hasattr(report, "part")
    watching.cancel()
    await asyncio.wait({watching, other})


async def test_a_loop_that_is_watched_again_is_watched() -> None:
    for name in ("one", "two"):
        observer = Hearing()
        watching = asyncio.create_task(Watchdog(observer, threshold=0.3).run())
        await asyncio.sleep(0)

        async def block() -> None:
            time.sleep(0.9)

        async for _ in rounds_until(lambda observer=observer: observer.heard, "a block to be noticed"):
            await _of_part(name, block())
            await asyncio.sleep(0.2)
        assert [blamed for blamed, _ in observer.heard] == [name]
        watching.cancel()
        await asyncio.wait({watching})


# --- status ---


@asynccontextmanager
async def announced(url: str, *parts: PartStatus, name: str = "shop") -> AsyncIterator[Announcer]:
    """A supervisor that is announced, and withdraws at the end."""
    connection = Connection(address_of(url).open(), owned=True)
    announcer = Announcer(connection, lambda: Description(name=name, parts=parts))
    running = asyncio.create_task(announcer.run())
    try:
        yield announcer
    finally:
        running.cancel()
        await asyncio.wait({running})
        await announcer.withdraw()
        await connection.close()


async def read(url: str, *queues: str) -> Status:
    async with StatusReader(url, queues) as reader:
        return await reader.read()


async def test_supervisors_are_seen_while_they_run(server: EmbeddedServer, redis: Redis) -> None:
    surrogate = PartStatus("part\udcff", "daemon", "running", error="x" * 10_000)
    async with announced(server.url, HEALTHY, FAILED, surrogate) as announcer:
        await wait_until(lambda: redis.hexists(SUPERVISORS, announcer.id))
        status = await read(server.url)
        [found] = status.supervisors
        assert (found.id, found.name, found.alive, found.version) == (announcer.id, "shop", True, __version__)
        assert (found.host, found.pid) == (socket.gethostname(), os.getpid())
        assert found.parts[:2] == [HEALTHY, FAILED]
        assert (found.parts[2].name, len(found.parts[2].error or "")) == ("part\\udcff", 500)
        told = json.loads(status.json())["supervisors"][0]
        assert told["parts"][1] == FAILED._asdict()
        assert (await read(server.url, "in")).supervisors == []
    assert (await read(server.url)).supervisors == []
    assert await redis.keys() == []


async def test_the_command_shows_them(server: EmbeddedServer, redis: Redis) -> None:
    def status(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-m", "redis_worker", "status", "--url", server.url, *arguments],
            cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        assert ended.stderr == ""
        return ended.stdout

    async with announced(server.url, HEALTHY, FAILED) as announcer:
        await wait_until(lambda: redis.hexists(SUPERVISORS, announcer.id))
        shown = (await asyncio.to_thread(status)).splitlines()
        assert [line.split()[:3] for line in shown[-3:]] == [
            ["state", "supervisor", "part"], ["failed", "shop", "table_consumer"], ["running", "shop", "fibonacci"],
        ]  # fmt: skip
        assert "table_consumer" not in await asyncio.to_thread(status, "--input", "in")
        told = json.loads(await asyncio.to_thread(status, "--json"))
        assert [part["name"] for part in told["supervisors"][0]["parts"]] == ["fibonacci", "table_consumer"]
    shown = (await asyncio.to_thread(status)).splitlines()
    assert [line for line in shown if line][-1] == "no workers"


async def test_who_is_silent_is_gone_and_later_forgotten(server: EmbeddedServer, redis: Redis) -> None:
    host = socket.gethostname()

    async def leave(id: str, seconds: float, **said: Any) -> None:
        about = {"name": "shop", "host": host, "pid": 1, "version": "1", "started_at": 1.0, "parts": []} | said
        at = (await redis.time())[0] - seconds
        await redis.hset(SUPERVISORS, id, json.dumps(about | {"published_at": at}, separators=(",", ":")))

    await leave("predecessor", 60)
    await leave("fresh", 0)
    await leave("elsewhere", 60, host="elsewhere")
    await leave("another", 60, name="another", parts=[HEALTHY._asdict() | {"of a later version": 1}])
    await leave("old", 4000, name="old")
    await redis.hset(SUPERVISORS, "strange", '[1,"published_at":1}')
    await redis.hset(SUPERVISORS, "number", "1")
    async with announced(server.url) as announcer:
        await wait_until(lambda: redis.hexists(SUPERVISORS, announcer.id))
        left = {id.decode() for id in await redis.hkeys(SUPERVISORS)}
        assert left == {"fresh", "elsewhere", "another", announcer.id}
        found = {each.id: each for each in (await read(server.url)).supervisors}
        assert found.keys() == left
        assert {id for id, each in found.items() if not each.alive} == {"elsewhere", "another"}
        assert found["another"].parts == [HEALTHY]
        assert found["another"].seen >= 60
    await redis.delete(SUPERVISORS)


async def test_a_user_without_rights_to_the_keys_of_supervisors(server: EmbeddedServer, redis: Redis) -> None:
    await redis.sadd(QUEUES, "in")
    await redis.execute_command(
        *("ACL", "SETUSER", "ann", "on", ">pass", "~in", "~{in}:*", f"~{QUEUES}", f"~{TOPICS}", "+@all")
    )
    url = server.url.replace("://", "://ann:pass@")
    try:
        async with announced(server.url, HEALTHY) as allowed, announced(url, HEALTHY) as refused:
            await wait_until(lambda: redis.hexists(SUPERVISORS, allowed.id))
            status = await read(url)
            assert not await redis.hexists(SUPERVISORS, refused.id)
        assert [queue.name for queue in status.queues] == ["in"]
        assert (status.supervisors, status.jobs) == ([], [])
    finally:
        await redis.execute_command("ACL", "DELUSER", "ann")
        await redis.delete(QUEUES)


async def test_announcing_outlives_the_server_and_mistakes(own_server: EmbeddedServer) -> None:
    """The description is there again after a restart of the server, and after somebody has deleted it."""
    async with announced(own_server.url, HEALTHY) as announcer, Access(own_server.url) as access:
        connection = access._connection
        await wait_until(lambda: connection.call("HEXISTS", SUPERVISORS, announcer.id))
        await asyncio.to_thread(own_server.restart)
        async with Redis.from_url(own_server.url) as redis:
            await redis.delete(SUPERVISORS)
            await wait_until(lambda: redis.hexists(SUPERVISORS, announcer.id))


def _supervisor(name: str, *parts: PartStatus, alive: bool = True) -> SupervisorStatus:
    return SupervisorStatus(f"{name}-1", name, alive, 0.5, "web-1", 4711, "1", 1.0, list(parts))


def test_the_tables_of_parts_and_jobs() -> None:
    at = 1_000_000.0
    jobs = [
        JobStatus("sync_user", "shop", "*/5 * * * *", "Asia/Shanghai", at + 90, finished=at - 200, duration=1.25,
                  outcome="success by hand", running=1),
        JobStatus("clean", "shop", "0 3 * * *", "UTC", at - 7300, finished=at - 9000, duration=60, outcome="error",
                  error="OSError: full\nof it"),
        JobStatus("new", "shop", problem="no rights"),
    ]  # fmt: skip
    supervisors = [_supervisor("gone", HEALTHY, alive=False), _supervisor("shop", HEALTHY, FAILED)]
    _, _, parts, cron = tables(Status(at, [], [], supervisors, jobs), 50)
    assert [row[:6] for row in parts.rows] == [
        ["failed", "shop", "table_consumer", "daemon", "11", "RuntimeError: no table"],
        ["stale", "gone", "fibonacci", "pool", "0", "-"],
        ["running", "shop", "fibonacci", "pool", "0", "-"],
    ]
    assert parts.headings == ["state", "supervisor", "part", "kind", "restarts", "error", "host", "pid"]
    assert cron.headings == ["job", "schedule", "zone", "last", "outcome", "duration", "next", "error"]
    assert cron.rows == [
        ["shop/clean", "0 3 * * *", "UTC", "2h ago", "error", "60s", "2h ago", r"OSError: full\nof it"],
        ["shop/new", "-", "-", "-", "-", "-", "-", "no rights"],
        [
            *("shop/sync_user", "*/5 * * * *", "Asia/Shanghai", "3m ago", "success by hand, running", "1.2s"),
            *("in 90s", "-"),
        ],
    ]
    assert "table_consumer" in plain(parts)


@pytest.mark.parametrize("count", [(0, 0), (1, 1), (300, 0), (300, 300), (2, 3)])
@pytest.mark.parametrize(("parts", "jobs"), [(1, 0), (0, 1), (3, 3), (100, 100), (100, 1)])
def test_they_are_no_longer_than_a_screen(count: tuple[int, int], parts: int, jobs: int) -> None:
    queues = [QueueStatus(f"q{n:03}") for n in range(count[0])]
    workers = [WorkerStatus(f"q{n:03}", "w", True, 1.0, 0) for n in range(count[1])]
    running = [HEALTHY] * (parts - 1) + [FAILED] if parts else []
    cron = [JobStatus(f"job{n}", "shop") for n in range(jobs)]
    shown = tables(Status(1.0, queues, workers, [_supervisor("shop", *running)], cron), 40)
    assert len("\n\n".join(map(plain, shown)).splitlines()) < 40
    assert len(shown) == 2 + (parts > 0) + (jobs > 0)
    assert all(table.rows or table.note for table in shown)
    if parts:
        assert shown[2].rows[0][0] == "failed"
    if jobs:
        assert shown[-1].rows
    wanted = sum((*count, parts, jobs))
    assert sum(len(table.rows) for table in shown) >= min(wanted, 40 - 6 - 6 - 2)
