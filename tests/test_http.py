"""HTTP: health, readiness and metrics, asked for as orchestrators and Prometheus do."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import re
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
from fakeredis import FakeAsyncRedis
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from redis_worker import ConfigurationError, Message, Observer, Publisher, Reject, Retry, TopicWorker, WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.keys import TOPICS, Keys
from redis_worker.embedded import EmbeddedServer
from redis_worker.http import pages
from redis_worker.http.address import http_address
from redis_worker.http.server import HttpServer
from redis_worker.vocabulary.service import PartStatus
from redis_worker.vocabulary.task import Outcome
from tests.support import PATIENCE, ROOT, Queue, Several, Topic, WorkerProcess, hold, wait_until

Start = Callable[..., WorkerProcess]


class Answer(NamedTuple):
    status: int
    kind: str
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _get(address: str, path: str, accept: str) -> Answer:
    request = urllib.request.Request(f"http://{address}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as reply:
            return Answer(reply.status, reply.headers["Content-Type"], reply.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers["Content-Type"], error.read().decode())


async def get(where: WorkerPool | TopicWorker | str, path: str, accept: str = "*/*") -> Answer:
    address = where if isinstance(where, str) else where.http_address
    assert address
    return await asyncio.to_thread(_get, address, path, accept)


async def state(where: WorkerPool | TopicWorker | str) -> tuple[int, str]:
    """What /ready says."""
    answer = await get(where, "/ready")
    return answer.status, answer.json.get("reason", answer.json.get("consumers"))


class Metrics(dict[str, float]):
    """Samples by name and labels, as Prometheus writes them, without the labels that every test has the same."""

    @classmethod
    async def of(cls, where: WorkerPool | TopicWorker | str, **labels: str) -> Metrics:
        answer = await get(where, "/metrics")
        assert answer.status == 200, answer.body
        found = cls()
        for family in text_string_to_metric_families(answer.body):
            for sample in family.samples:
                left = {name: value for name, value in sample.labels.items() if labels.get(name) != value}
                shown = ",".join(f"{name}={value}" for name, value in sorted(left.items()))
                found[f"{sample.name.removeprefix('redis_worker_')}{f'{{{shown}}}' if shown else ''}"] = sample.value
        return found

    @classmethod
    async def with_depths(cls, where: WorkerPool | TopicWorker | str, **labels: str) -> Metrics:
        """Ask again until Redis has answered in the half second that it is given."""

        async def read() -> Metrics | None:
            found = await cls.of(where, **labels)
            return found if "queue_depth" in found else None

        return cast("Metrics", await wait_until(read, "depths"))


def pool(url: str, queue: Queue, processor: Any = "sum", **options: Any) -> WorkerPool:
    options = {"parser": "list", "http": "127.0.0.1:0"} | options
    return WorkerPool(url, queue.keys.waiting, queue.keys.output, processor=processor, **options)


@pytest.fixture
def fake() -> FakeAsyncRedis:
    """A Redis in this process, for what is the same with each: it does not block, so that a pool ends at once."""
    return FakeAsyncRedis()


def fake_pool(fake: FakeAsyncRedis, **options: Any) -> WorkerPool:
    return WorkerPool(fake, "in", "out", "list", "sum", http="127.0.0.1:0", **options)


async def test_health_readiness_and_the_summary(fake: FakeAsyncRedis) -> None:
    async with fake_pool(fake) as at_work:
        assert at_work.http_address
        assert re.fullmatch(r"127\.0\.0\.1:\d{2,5}", at_work.http_address)
        live = await get(at_work, "/healthz")
        assert (live.status, live.json["status"], live.json["service"]) == (200, "ok", "in")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", live.json["timestamp"])
        ready = await get(at_work, "/ready")
        assert ready.status == 200
        assert ready.json == {"status": "ready", "service": "in", "consumers": "running"}
        await fake.rpush("in", b'{"id":1,"task":[1,2]}', b'{"id":2,"task":[3]}', b'{"id":3,"task":["x"]}')
        await wait_until(lambda: at_work.counters.processed == 3)
        summary = (await get(at_work, "/metrics", "application/json")).json
        assert summary["service"] == "in"
        assert summary["status"] == "running"
        assert summary["uptime"] > 0
        assert summary["consumers"] == {"active": 1, "topics": ["in"]}
        assert {name: summary["counters"][name] for name in ("processed", "succeeded", "failed")} == {
            "processed": 3, "succeeded": 2, "failed": 1,
        }  # fmt: skip
        assert (await get(at_work, "/nothing")).status == 404
    assert at_work.http_address is None


async def test_every_outcome_is_counted(server: EmbeddedServer, queue: Queue) -> None:
    async def work(arguments: list[Any]) -> None:
        match arguments[0]:
            case "error":
                raise ValueError
            case "reject":
                raise Reject
            case "again" if not seen.get(arguments[1]):
                seen[arguments[1]] = True
                raise Retry(delay=0.01)

    seen: dict[Any, bool] = {}
    await queue.push_tasks([["error"], ["reject"], ["again", 1], ["again", 2]])
    await queue.push(b"no JSON")
    await queue.redis.zadd(queue.keys.workers, {"dead": 1})
    await hold(queue.redis, queue.keys, "dead", b'{"id":"a","task":["fine"]}', b'{"id":"b","task":["fine"]}')
    async with pool(server.url, queue, work) as at_work:
        await wait_until(lambda: at_work.counters.processed == 7)
        metrics = await Metrics.with_depths(at_work, queue=queue.keys.waiting, processor="work")
    counted = {name: value for name, value in metrics.items() if name.startswith("tasks_total")}
    assert counted == {
        "tasks_total{outcome=success}": 4, "tasks_total{outcome=error}": 1, "tasks_total{outcome=dead}": 2,
        "tasks_total{outcome=retried}": 2, "tasks_total{outcome=skipped}": 0, "tasks_total{outcome=refused}": 0,
    }  # fmt: skip
    assert metrics["retries_total"] == metrics["dead_letters_total"] == metrics["dead_letters"] == 2
    assert metrics["recovered_total"] == metrics["redeliveries_total"] == 2
    # Eight runs of six tasks; what is no JSON was never run.
    assert metrics["processing_seconds_count"] == metrics["processing_seconds_bucket{le=+Inf}"] == 8
    assert 0 < metrics["processing_seconds_sum"] < 60
    assert metrics["in_flight"] == metrics["queue_depth"] == metrics["delayed"] == metrics["reconnects_total"] == 0


async def test_latency_is_that_of_the_first_attempt(server: EmbeddedServer, queue: Queue) -> None:
    """What a retry waits is a delay that was asked for, and what a recovery waits is somebody's death."""

    async def work(arguments: list[Any]) -> None:
        if not tried.pop(arguments[0], False):
            tried[arguments[0]] = True
            raise Retry(delay=0)

    tried: dict[Any, bool] = {}
    await queue.push(*({"id": n, "task": [n], "emit_ts": time.time()} for n in range(3)))
    await queue.redis.zadd(queue.keys.workers, {"dead": 1})
    await hold(queue.redis, queue.keys, "dead", b'{"id":"a","task":["a"],"emit_ts":1}')
    async with pool(server.url, queue, work) as at_work:
        await wait_until(lambda: at_work.counters.succeeded == 4)
        metrics = await Metrics.of(at_work, queue=queue.keys.waiting, processor="work")
    assert metrics["retries_total"] == 4
    assert metrics["queue_latency_seconds_count"] == 3


async def test_depths_and_ages(server: EmbeddedServer, queue: Queue) -> None:
    gate = asyncio.Event()

    async def work(_: list[Any]) -> None:
        await gate.wait()

    hour_ago = time.time() - 3600
    await queue.push({"id": 0, "task": [1], "emit_ts": hour_ago}, {"id": 1, "task": [1], "emit_ts": "no number"})
    async with pool(server.url, queue, work, concurrency=2) as at_work:
        await wait_until(lambda: at_work.running == 2)
        await queue.push({"id": 2, "task": [1], "emit_ts": hour_ago}, {"id": 3, "task": [1]}, {"id": 4, "task": [1]})
        await queue.redis.zadd(queue.keys.delayed, {"x:" + json.dumps({"id": 5, "task": [1]}): 10**14})

        async def enough() -> Metrics | None:
            found = await Metrics.of(at_work, queue=queue.keys.waiting, processor="work")
            return found if found["in_flight"] == 2 and found.get("queue_depth") == 3 else None

        metrics = await wait_until(enough)
        assert metrics["delayed"] == 1
        assert 3600 <= metrics["oldest_waiting_age_seconds"] < 4200
        assert metrics["queue_latency_seconds_count"] == 1
        assert 3600 <= metrics["queue_latency_seconds_sum"] < 4200
        gate.set()
        await queue.redis.delete(queue.keys.delayed)
        await wait_until(lambda: at_work.counters.processed == 5)


async def test_topics_have_their_own_series(server: EmbeddedServer, topic: Topic) -> None:
    worker = TopicWorker(server.url, http=":0")

    @worker.handler(topic.name, idempotent=True)
    async def handle(message: Message) -> None: ...

    async with worker, Publisher(server.url) as publisher:
        await publisher.publish(topic.name, 1, id="same")
        await wait_until(lambda: worker.counters.processed == 1)
        await publisher.publish(topic.name, 1, id="same")
        await wait_until(lambda: worker.counters.processed == 2)
        metrics = await Metrics.with_depths(worker, queue=topic.keys.waiting, processor="handle")
        summary = (await get(worker, "/metrics", "application/json")).json
        assert await state(worker) == (200, "running")
    assert metrics["tasks_total{outcome=success}"] == metrics["tasks_total{outcome=skipped}"] == 1
    assert metrics["queue_latency_seconds_count"] == 2
    assert metrics["queue_depth"] == 0
    assert summary["consumers"] == {"active": 1, "topics": [topic.name]}
    assert await topic.redis.delete(TOPICS)


async def test_the_text_is_as_promtool_wants_it(fake: FakeAsyncRedis) -> None:
    async with fake_pool(fake) as at_work:
        answer = await get(at_work, "/metrics")
    assert answer.kind == "text/plain; version=0.0.4; charset=utf-8"
    for family in text_string_to_metric_families(answer.body):
        if family.name.startswith("process_"):
            continue  # prometheus_client's own
        name = family.name + ("_total" if family.type == "counter" else "")
        assert re.fullmatch("redis_worker_[a-z_]*[a-z]", name)
        assert f"# HELP {name} " in answer.body
        assert f"# TYPE {name} {family.type}\n" in answer.body
        assert family.documentation.endswith(".")
        assert family.type in ("counter", "gauge", "histogram")
        # Base units, no name of a type, and no suffix that means something else.
        assert not re.search("_(ms|milliseconds|minutes|gauge|counter|histogram|bucket|count|sum)$", family.name)
        assert family.type == "counter" or not name.endswith("_total")
        for sample in family.samples:
            assert set(sample.labels) <= {"queue", "processor", "outcome", "le"}


# --- Redis goes, the worker stops ---


async def test_live_but_not_ready_before_there_is_a_redis(queue: Queue) -> None:
    waiting = pool("redis://127.0.0.1:1", queue, connect_timeout=0)
    running = asyncio.create_task(waiting.run())
    await wait_until(lambda: waiting.http_address)
    assert (await get(waiting, "/healthz")).status == 200
    assert await state(waiting) == (503, "waiting for Redis")
    assert (await get(waiting, "/ready")).json["status"] == "not ready"
    metrics = await Metrics.of(waiting)
    assert metrics["ready"] == 0
    assert "queue_depth" not in metrics
    waiting.stop()
    await running


async def test_redis_goes_and_comes_back(own_server: EmbeddedServer) -> None:
    async with WorkerPool(own_server.url, "in", "out", "list", "sum", http="127.0.0.1:0") as at_work:
        assert await state(at_work) == (200, "running")
        os.kill(own_server.pid, signal.SIGSTOP)
        await asyncio.gather(*(Metrics.of(at_work) for _ in range(10)))  # answered though the server is not
        os.kill(own_server.pid, signal.SIGKILL)
        await wait_until(lambda: _is(at_work, 503, "Redis is away"))
        assert (await get(at_work, "/healthz")).status == 200

        async def told() -> bool:  # what is told may be a second old
            metrics = await Metrics.of(at_work, queue="in", processor="sum")
            return (metrics["ready"], metrics["in_flight"]) == (0, 0)

        await wait_until(told)
        await asyncio.to_thread(own_server.restart, signal.SIGKILL)
        await wait_until(lambda: _is(at_work, 200, "running"))
        async with Redis.from_url(own_server.url) as redis:
            await redis.rpush("in", b'{"id":1,"task":[1]}')
        await wait_until(lambda: at_work.counters.processed == 1)

        async def read_again() -> bool:
            found = await Metrics.of(at_work, queue="in", processor="sum")
            return found["reconnects_total"] >= 1 and found["ready"] == 1 and found.get("queue_depth") == 0

        await wait_until(read_again)


async def _is(where: WorkerPool | str, status: int, reason: str) -> bool:
    return await state(where) == (status, reason)


async def test_a_drain_is_told_first_and_the_server_closes_last(server: EmbeddedServer, queue: Queue) -> None:
    gate = asyncio.Event()

    async def work(_: list[Any]) -> str:
        await gate.wait()
        return "finished"

    await queue.push_tasks([[1]])
    draining = pool(server.url, queue, work)
    running = asyncio.create_task(draining.run())
    await wait_until(lambda: draining.running == 1)
    address = draining.http_address
    assert address
    kept_alive = http.client.HTTPConnection(address, timeout=PATIENCE)
    await asyncio.to_thread(kept_alive.request, "GET", "/healthz")
    assert await asyncio.to_thread(lambda: kept_alive.getresponse().read())
    draining.stop()
    assert await state(draining) == (503, "stopping")
    assert (await get(draining, "/healthz")).status == 200
    metrics = await Metrics.of(draining, queue=queue.keys.waiting, processor="work")
    assert (metrics["ready"], metrics["in_flight"]) == (0, 1)
    assert not running.done()
    gate.set()
    await running
    assert await queue.result(0) == {"status": "success", "result": "finished"}
    kept_alive.close()
    with pytest.raises(urllib.error.URLError):
        await get(address, "/healthz")


async def test_what_ends_by_itself_is_not_ready_either(fake: FakeAsyncRedis) -> None:
    """Readiness is over once the last task is claimed, while it still runs."""
    gate = asyncio.Event()

    async def work(_: list[Any]) -> None:
        await gate.wait()

    await fake.rpush("in", b'{"id":1,"task":[1]}')
    async with WorkerPool(fake, "in", "out", "list", work, max_tasks=1, http=":0") as ending:
        await wait_until(lambda: ending.running == 1)
        await wait_until(lambda: _is(ending, 503, "stopping"))
        gate.set()


# --- what cannot break the work ---


class _Raising(Observer):
    def settled(self, outcomes: Sequence[Outcome]) -> None:
        raise RuntimeError("of no use")

    claimed = settled  # type: ignore[assignment]


async def test_neither_observers_nor_pages_break_the_work(
    fake: FakeAsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    async with fake_pool(fake, observers=[_Raising()]) as at_work:
        await fake.rpush("in", b'{"id":1,"task":[1]}')
        await wait_until(lambda: at_work.counters.processed == 1)
        monkeypatch.setattr(pages, "Exposition", fail)
        assert (await get(at_work, "/metrics")).status == 500
        await fake.rpush("in", b'{"id":2,"task":[1]}')
        await wait_until(lambda: at_work.counters.processed == 2)
        monkeypatch.undo()
        metrics = await Metrics.of(at_work, queue="in", processor="sum")
    assert metrics["tasks_total{outcome=success}"] == 2


async def test_strange_times_of_making_are_none(fake: FakeAsyncRedis) -> None:
    strange = ("true", "null", '"2026"', "[]", "-1", "0", "1e999", "1" * 400, "NaN", "1}", '{"emit_ts":1}')
    async with fake_pool(fake) as at_work:
        for emit_ts in strange:
            await fake.rpush("in", b'{"id":"a","task":["emit_ts"],"emit_ts":%b}' % emit_ts.encode())
        await fake.rpush("in", b'["emit_ts"]', b'"\\"emit_ts\\""')
        await wait_until(lambda: at_work.counters.processed == len(strange) + 2)
        metrics = await Metrics.of(at_work, queue="in", processor="sum")
    assert metrics["queue_latency_seconds_count"] == 0


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8084", "127.0.0.1:8084"), (":0", "127.0.0.1:0"), ("localhost:65535", "localhost:65535"),
        ("[::1]:80", "[::1]:80"), ("0.0.0.0:8084", "0.0.0.0:8084"),
    ],
)  # fmt: skip
def test_addresses(text: str, expected: str) -> None:
    assert str(http_address(text)) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "host", "host:", "host:65536", "::1:80", "host:-1", "http://host:1", "a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigurationError, match="HTTP listens on HOST:PORT"):
        WorkerPool("redis://localhost", "in", "out", "list", "sum", http=text)
    with pytest.raises(ConfigurationError, match="HTTP listens on HOST:PORT"):
        TopicWorker("redis://localhost", http=text)


async def test_a_port_that_is_taken(fake: FakeAsyncRedis) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            ConfigurationError, match=f"^HTTP cannot listen on {address}: another program listens there"
        ):
            await WorkerPool(fake, "in", "out", "list", "sum", http=address).run()


async def test_a_host_that_is_none(fake: FakeAsyncRedis) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^HTTP cannot listen on 192.0.2.1:0: this machine has no such address$"
    ):
        await WorkerPool(fake, "in", "out", "list", "sum", http="192.0.2.1:0").run()


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "redis_worker.http.server")
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'redis-worker[web]'")):
        WorkerPool("redis://localhost", "in", "out", "list", "sum", http=":0")
    WorkerPool("redis://localhost", "in", "out", "list", "sum")


# --- the command line ---


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts worker processes on a server of their own: what is tested here is the same with each kind of server."""
    started: list[WorkerProcess] = []
    with EmbeddedServer() as server:

        def start(*arguments: str, processor: str = "sum") -> WorkerProcess:
            started.append(WorkerProcess(server.url, Keys("in", "out"), *arguments, processor=processor))
            return started[-1]

        yield start
        for process in started:
            process.close()


_ANSWERS = re.compile(r"http://(\S+) answers")


async def _address(process: WorkerProcess, count: int = 1) -> list[str]:
    return await wait_until(
        lambda: (len(found := _ANSWERS.findall(process.log)) >= count and found) or (not process.alive and [""]),
        "an address in the log",
    )


async def test_run_answers_and_drains(start: Start) -> None:
    process = start("--http", "127.0.0.1:0", processor="tests.processors:nap")
    [address] = await _address(await process.started())
    assert await state(address) == (200, "running")
    async with Redis.from_url(process.url) as redis:
        await redis.rpush("in", b'{"id":1,"task":[1.0]}')

    async def running() -> bool:
        return (await Metrics.of(address, queue="in", processor="nap"))["in_flight"] == 1

    await wait_until(running)
    process.signal(signal.SIGTERM)
    await wait_until(lambda: _is(address, 503, "stopping"))
    assert await process.ended() == 0
    assert "ended: 1 processed" in process.log


async def test_a_taken_port_is_wrong_configuration(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = start("--http", f"127.0.0.1:{taken.getsockname()[1]}")
        assert await process.ended() == 2
    assert process.log.startswith("Error: HTTP cannot listen on 127.0.0.1:")
    assert process.log.count("\n") == 1


async def test_processes_share_a_port_and_their_metrics_are_summed(start: Start) -> None:
    process = await start("-w", "2", "-c", "1", "--http", "127.0.0.1:0", processor="tests.processors:nap").started()
    [address] = await _address(process)

    async def ready() -> bool:
        return (await get(address, "/ready")).status == 200

    await wait_until(ready)
    async with Redis.from_url(process.url) as redis:
        await redis.rpush("in", *(f'{{"id":{id},"task":[0.1]}}' for id in range(10)))

    async def done() -> bool:
        metrics = await Metrics.of(address, queue="in", processor="nap", part="in", outcome="success")
        return metrics.get("tasks_total", 0) == 10

    await wait_until(done)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_the_port_is_open_while_workers_restart_for_changed_sources(start: Start, tmp_path: Path) -> None:
    (tmp_path / "some.py").write_text("a = 1\n")
    process = await start("--watch", str(tmp_path), "--http", "127.0.0.1:0").started()
    [address] = await _address(process)

    async def ready() -> bool:
        return (await get(address, "/ready")).status == 200

    await wait_until(ready)
    (tmp_path / "some.py").write_text("a = 12\n")
    await wait_until(lambda: process.log.count(" -> ") == 2)
    await wait_until(ready)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


# --- the dashboard and the alerts ---


async def test_metrics_that_are_named_exist(fake: FakeAsyncRedis) -> None:
    # A supervisor has all that a pool has, but for the queues that none of its parts works on.
    server = HttpServer("127.0.0.1:0")
    server.metrics.job("sync_user").outcome("success", 1.0)
    of_kafka = server.metrics.of("raw", "to_row", "cases")
    of_kafka.assigned([("raw", 0)])
    of_kafka.written(500, 1, 0.01)
    supervisor = Several(PartStatus("fibonacci", "pool", "running"))
    async with fake_pool(fake) as at_work, server.answering(supervisor, lambda _: address_of(fake)):
        assert server.listening
        body = "".join([(await get(where, "/metrics")).body for where in (at_work, server.listening)])
    there = set(re.findall("^(redis_worker_[a-z_]+)", body, re.MULTILINE))
    families = set(re.findall("^# TYPE (redis_worker_[a-z_]+)", body, re.MULTILINE))
    for file in ("deploy/grafana/redis_worker.json", "deploy/prometheus/alerts.yml", "docs/metrics.md"):
        # Alone, the prefix is the name of the dashboard, or of the group of rules.
        named = set(re.findall(r"\bredis_worker_[a-z_]+", (ROOT / file).read_text()))
        assert len(named) >= 5
        assert named <= there | families, f"{file} names {named - there - families}, which do not exist"
        if file.startswith("docs"):
            assert families <= named, f"{file} does not explain {families - named}"


def test_the_dashboard_can_be_imported() -> None:
    dashboard = json.loads((ROOT / "deploy/grafana/redis_worker.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 10
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
