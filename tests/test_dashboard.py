"""The requests behind the dashboard: who may read, who may change, and what each action does."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiohttp import ClientSession, WSServerHandshakeError

from redis_worker import KafkaMessage, WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.cron import CronStore
from redis_worker.broker.keys import CRON, QUEUES
from redis_worker.broker.operator.cron_status import read_jobs
from redis_worker.broker.operator.status import QueueStatus, Status
from redis_worker.broker.operator.worker_status import WorkerStatus
from redis_worker.cron.job import CronJob
from redis_worker.cron.settings import JobSettings, Push
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.histogram import LATENCY_BOUNDS, PROCESSING_BOUNDS
from redis_worker.http.dashboard.actions import ACTIONS
from redis_worker.http.dashboard.trends import Trends, percentiles
from redis_worker.http.server import HttpServer
from redis_worker.mock_kafka import MockKafka
from tests.kafka.kafka_support import KafkaTopic
from tests.support import Queue, WorkerProcess, wait_until
from tests.websocket import connected

TOKEN = "api-token"
HEADERS = {"Authorization": f"Bearer {TOKEN}", "X-Redis-Worker": "1"}
ELSEWHERE = {"X-Forwarded-For": "192.0.2.1"}
Start = Callable[..., WorkerProcess]


class Answer(NamedTuple):
    status: int
    json: Any


class Api:
    """A client of the requests."""

    def __init__(self, address: str, session: ClientSession) -> None:
        self._url = f"http://{address}"
        self._session = session

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: str) -> Answer:
        async with self._session.get(self._url + path, headers=headers, params=query) as answer:
            return Answer(answer.status, await answer.json(content_type=None))

    async def do(self, action: str, headers: dict[str, str] | None = None, **asked: Any) -> Answer:
        url = f"{self._url}/api/do/{action}"
        async with self._session.post(url, headers=HEADERS if headers is None else headers, json=asked) as answer:
            return Answer(answer.status, await answer.json(content_type=None))


@asynccontextmanager
async def serving(url: str, token: str | None = TOKEN, address: str = "127.0.0.1:0") -> AsyncIterator[Api]:
    server = HttpServer(address, token)
    async with server.showing(address_of(url), "dashboard"), ClientSession() as session:
        assert server.listening
        yield Api(server.listening, session)


async def test_reading_needs_no_token_here_and_always_one_elsewhere(server: EmbeddedServer, queue: Queue) -> None:
    """The text of a task is shown to nobody without the token, where the server is reached from elsewhere."""
    await queue.redis.sadd(QUEUES, queue.keys.waiting)
    await queue.push({"id": "t1", "task": ["confidential"]})
    paths = ("/api/fleet", "/api/waiting", "/api/delayed", "/api/dead", "/api/letter")
    async with serving(server.url) as api:
        name = queue.keys.waiting
        for path in paths:
            assert (await api.get(path, queue=name)).status == (404 if path == "/api/letter" else 200)
            for headers in (ELSEWHERE, {"Host": "evil.example"}, ELSEWHERE | {"Authorization": "Bearer wrong"}):
                answer = await api.get(path, headers, queue=name)
                assert answer == Answer(401, {"error": "a token is required: Authorization: Bearer TOKEN"})
            assert (await api.get(path, ELSEWHERE | HEADERS, queue=name)).status != 401
        for site in ("cross-site", "same-site"):
            assert (await api.get("/api/waiting", {"Sec-Fetch-Site": site}, queue=name)).status == 403
        assert "confidential" in str((await api.get("/api/waiting", queue=name)).json)
        assert (await api.get("/api/waiting")).status == 400
    async with serving(server.url, address="0.0.0.0:0", token=None) as api:
        assert (await api.get("/api/fleet", {"Host": "192.0.2.7:8090"})).status == 401


async def test_a_change_needs_the_token_the_mark_and_our_origin(server: EmbeddedServer, queue: Queue) -> None:
    await queue.push_tasks([[1]])
    name, bearer = queue.keys.waiting, {"Authorization": f"Bearer {TOKEN}"}
    async with serving(server.url) as api:
        for action in ACTIONS:
            for headers, status in (
                ({}, 401), ({"X-Redis-Worker": "1"}, 401), (HEADERS | {"Authorization": "Bearer no"}, 401),
                (bearer, 403),
                (HEADERS | {"Origin": "https://evil.example"}, 403), (HEADERS | {"Origin": "null"}, 403),
                (HEADERS | {"Content-Type": "text/plain"}, 415),
            ):  # fmt: skip
                answer = await api.do(action, headers, queue=name, keys=["x"], app="a", name="b")
                assert (answer.status, list(answer.json)) == (status, ["error"]), (action, headers)
        assert (await api.do("nothing")).status == 404
        assert (await api.do("pause")).json == {"error": "the request needs `queue`, a text"}
        assert await queue.redis.llen(name) == 1
        assert not await queue.redis.exists(queue.keys.paused)
    async with serving(server.url, token=None) as api:
        answer = await api.do("pause", queue=name)
        assert answer.status == 403
        assert "this server has no token, so nothing can be changed here" in answer.json["error"]


async def test_every_action(server: EmbeddedServer, queue: Queue) -> None:
    redis, keys, name = queue.redis, queue.keys, queue.keys.waiting
    async with serving(server.url) as api:
        assert (await api.do("pause", queue=name)).json == {"done": f"{name} is paused"}
        assert (await api.do("pause", queue=name)).json == {"done": f"{name} is paused already"}
        assert await redis.exists(keys.paused)
        assert (await api.do("resume", queue=name)).json == {"done": f"{name} is resumed"}
        await queue.push_tasks([[n] for n in range(5)])
        assert (await api.do("purge", queue=name)).json == {"done": f"5 tasks of {name} deleted"}
        for n in range(3):
            await redis.zadd(keys.delayed, {f"x{n}:" + json.dumps({"id": n, "task": [n]}): 10**13 + n})
        listed = (await api.get("/api/delayed", queue=name)).json
        assert (listed["total"], [task["id"] for task in listed["tasks"]]) == (3, ["0", "1", "2"])
        assert (await api.do("run", queue=name, keys=[listed["tasks"][1]["key"]])).json == {"done": "1 task due now"}
        await api.do("cancel", queue=name, keys=[task["key"] for task in listed["tasks"]])
        assert [json.loads(raw)["id"] for raw in await redis.lrange(name, 0, -1)] == [1]
        assert not await redis.exists(keys.delayed)
        await redis.delete(name)
        for n in range(1000):
            letter = {"raw": json.dumps({"id": n, "task": "x" * n}), "id": str(n), "attempts": 3, "at": n + 1.0}
            await redis.rpush(
                keys.dead, json.dumps(letter | {"reason": f"{'no' if n % 4 else 'late'} {n}", "worker": "w"})
            )
        found = (await api.get("/api/dead", queue=name)).json
        assert (found["total"], found["read"], found["matching"], len(found["letters"])) == (1000, 1000, 1000, 100)
        assert found["letters"][0]["id"] == "999"
        assert found["groups"] == [["no N", 750], ["late N", 250]]
        found = (await api.get("/api/dead", queue=name, search="LATE 99")).json
        assert [letter["id"] for letter in found["letters"]] == ["996", "992"]
        key = found["letters"][0]["key"]
        assert len((await api.get("/api/letter", queue=name, key=key)).json["payload"]) > 996
        assert len(found["letters"][0]["payload"]) == 1000
        assert (await api.do("requeue", queue=name, keys=[key])).json == {"done": f"1 task put back on {name}"}
        done = await api.do("bury", queue=name, group="no N")
        assert done.json == {"done": f"750 dead letters of {name} deleted"}
        assert (await api.do("requeue", queue=name)).json == {"done": f"249 tasks put back on {name}"}
        assert await redis.llen(name) == 250


async def test_a_cron_job_is_run_by_hand(server: EmbeddedServer, queue: Queue) -> None:
    """By a process that schedules it, wherever it is; a request that nobody serves is forgotten."""
    runs = list[str]()
    store = CronStore(server.url)
    plain = JobSettings(app="shop", name="report", schedule="0 0 1 1 *", job="tests.test_dashboard:report")
    pushing = JobSettings(app="shop", name="push", schedule="0 0 1 1 *", push=Push(queue.keys.waiting, [7]))
    jobs = [CronJob(plain, store, lambda outcome, _: runs.append(outcome)), CronJob(pushing, store)]
    tasks = [asyncio.create_task(job.run()) for job in jobs]
    try:
        async with serving(server.url) as api:
            await wait_until(lambda: all(job.condition == "running" for job in jobs))
            await wait_until(lambda: _registered(queue))
            assert (await api.do("fire", app="shop", name="none")).json["done"].startswith("no process has registered")
            for name in ("report", "push"):
                assert (await api.do("fire", app="shop", name=name)).status == 200
            await wait_until(lambda: runs == ["success"])
            await wait_until(lambda: _length(queue, 1))
            found = {job.name: job.outcome for job in await read_jobs(store.connection)}
            assert found == {"report": "success by hand", "push": "success by hand"}
    finally:
        for job in jobs:
            job.stop()
        await asyncio.wait(tasks)
        await store.close()
    left = await queue.redis.keys(f"*{queue.keys.waiting}*cron*")
    await queue.redis.delete(CRON, *left, *await queue.redis.keys(f"{CRON}:*"))


def report() -> None:
    """A job."""


async def _registered(queue: Queue) -> bool:
    return await queue.redis.hlen(CRON) == 2


async def _length(queue: Queue, length: int) -> bool:
    return await queue.redis.llen(queue.keys.waiting) == length


async def test_the_whole_fleet_is_seen_from_any_worker(server: EmbeddedServer, queue: Queue, worker: Start) -> None:
    """One worker serves the page, and another one, of another process and without a port, fails and shows why."""

    async def work(arguments: list[Any]) -> Any:
        await asyncio.sleep(0.02)
        return arguments

    other = Queue(queue.redis, type(queue.keys)(f"{queue.keys.waiting}:other", f"{queue.keys.output}:other"))
    process = WorkerProcess(server.url, other.keys, processor="sum")
    keys = queue.keys
    try:
        await process.started()
        async with (
            WorkerPool(
                server.url, keys.waiting, keys.output, "list", work, http="127.0.0.1:0", http_token=TOKEN
            ) as pool,
            ClientSession() as session,
        ):
            assert pool.http_address
            api = Api(pool.http_address, session)
            await api.get("/api/fleet")
            await other.push_tasks([["no number"], [1, 2]])
            await queue.push_tasks([[n] for n in range(40)])

            async def seen() -> Any:
                now = (await api.get("/api/fleet")).json["now"]
                workers = {found["queue"]: found for found in now["status"]["workers"]}
                failures = workers.get(other.keys.waiting, {}).get("failures")
                times = now["numbers"]["times"].get(keys.waiting)
                return (failures, times) if failures and times and times[1] else None

            failures, times = await wait_until(seen)
            assert failures[0]["count"] == 1
            assert failures[0]["reason"] == "Processing error: the item at index N should be a number, got a string"
            assert 0.01 < times[0] <= times[1] <= times[2]
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
    finally:
        process.close()
    await queue.redis.delete(other.keys.output, other.keys.retired, other.keys.claimants)
    await queue.redis.srem(QUEUES, other.keys.waiting)


async def test_the_command_shows_its_address_and_a_token_that_it_makes(server: EmbeddedServer, tmp_path: Path) -> None:
    from subprocess import PIPE, Popen
    from sys import executable

    arguments = ("dashboard", "--url", server.url, "--http", "127.0.0.1:0")
    with Popen([executable, "-m", "redis_worker", *arguments], stdout=PIPE, text=True) as process:
        assert process.stdout
        line = await asyncio.to_thread(process.stdout.readline)
        _, _, url = line.partition("http://")
        address, _, token = url.strip().partition("/#token=")
        async with ClientSession() as session:
            api = Api(address, session)
            headers = HEADERS | {"Authorization": f"Bearer {token}"}
            assert (await api.get("/api/fleet", headers)).json["about"]["may_change"] is True
            assert (await api.get("/api/fleet")).json["about"]["may_change"] is False
            assert (await api.do("resume", headers, queue="q")).json == {"done": "q was not paused"}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0


async def test_a_kafka_worker_without_a_supervisor_is_a_part(server: EmbeddedServer, mock_kafka: MockKafka) -> None:
    """With its state and its lag, on the page of any server, its own too, as long as it works."""
    topic = KafkaTopic.on(mock_kafka)
    topic.produce(range(7))
    held = asyncio.Event()

    async def handler(message: KafkaMessage) -> None:
        await held.wait()

    async def parts(api: Api) -> list[dict[str, Any]]:
        status = (await api.get("/api/fleet")).json["now"]["status"]
        found = [each for each in status["supervisors"] if each["name"] == topic.name] if status else []
        return [
            {name: part[name] for name in ("name", "kind", "state", "lag")} for each in found for part in each["parts"]
        ]

    async def are(api: Api, *expected: dict[str, Any]) -> bool:
        return await parts(api) == list(expected)

    part = {"name": "handler", "kind": "kafka", "state": "running", "lag": 7}
    async with serving(server.url) as api, ClientSession() as session:
        async with topic.worker(handler, concurrency=10, redis=server.url, http="127.0.0.1:0") as worker:
            assert worker.http_address is not None
            await wait_until(lambda: are(api, part))
            await wait_until(lambda: are(Api(worker.http_address, session), part))
            held.set()
            await wait_until(lambda: are(api, part | {"lag": 0}))
        await wait_until(lambda: are(api))


async def test_an_option_lets_pages_of_another_origin_connect(server: EmbeddedServer) -> None:
    from subprocess import PIPE, Popen
    from sys import executable

    arguments = ("dashboard", "--url", server.url, "--http", "127.0.0.1:0", "--http-origin", "https://shop.example")
    environment = os.environ | {"REDIS_WORKER_HTTP_TOKEN": "t"}
    with Popen([executable, "-m", "redis_worker", *arguments], stdout=PIPE, text=True, env=environment) as process:
        assert process.stdout
        line = await asyncio.to_thread(process.stdout.readline)
        address = line.partition("http://")[2].strip().rstrip("/")
        async with connected(address, headers={"Origin": "https://shop.example"}) as client:
            await client.subscribe("n")
        with pytest.raises(WSServerHandshakeError):
            async with connected(address, headers={"Origin": "https://other.example"}):
                pass
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait) == 0


async def test_without_redis_the_requests_say_so() -> None:
    async with serving("redis://127.0.0.1:1") as api:
        assert "Redis does not answer" in (await api.get("/api/fleet")).json["now"]["problem"]
        assert (await api.get("/api/dead", queue="q")).status == 503


async def test_the_files_need_nobody_else_and_are_small(server: EmbeddedServer) -> None:
    folder = files("redis_worker.http.dashboard") / "static"
    texts = {each.name: each.read_text() for each in folder.iterdir()}
    assert sum(len(text.encode()) for text in texts.values()) < 150_000
    for name, text in texts.items():
        ours = not name.startswith("uplot")
        assert not ours or "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert not ours or "innerHTML" not in text
        assert "@import" not in text
        assert "url(" not in text
    assert "MIT" in texts["uplot.LICENSE.txt"]
    async with serving(server.url) as api, ClientSession() as session:
        for path in ("/", *(f"/static/{name}" for name in texts)):
            async with session.get(api._url + path) as answer:
                assert answer.status == 200
                policy = answer.headers["Content-Security-Policy"]
                assert "default-src 'none'" in policy
                assert "unsafe" not in policy
                tag = answer.headers["ETag"]
            async with session.get(api._url + path, headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304
        for path in ("/static/../api.py", "/static/..%2fapi.py", "/static/none.js"):
            async with session.get(api._url + path) as answer:
                assert answer.status == 404


def _status(at: float, *workers: tuple[str, int, list[int]]) -> Status:
    found = [
        WorkerStatus("q", name, True, 1.0, 0, counters={"failed": failed}, processing=counts, latency=[])
        for name, failed, counts in workers
    ]
    return Status(at, [QueueStatus("q", waiting=3, rate=5.0)], found)


def test_trends_are_of_the_last_minute_and_survive_a_worker_that_restarts() -> None:
    counts = [0] * (len(PROCESSING_BOUNDS) + 1)
    trends, fast, slow = Trends(), counts.copy(), counts.copy()
    fast[0], slow[9] = 100, 100
    assert trends.add(_status(1000.0, ("a", 0, fast)))["p50"] is None, "it had done this before somebody looked"
    both = [one + two for one, two in zip(fast, slow, strict=True)]
    numbers = trends.add(_status(1030.0, ("a", 60, both)))
    assert 0.1 < numbers["p50"] <= 0.25
    assert (numbers["failed"], numbers["waiting"], numbers["rate"]) == (2.0, 3, 5.0)
    assert trends.add(_status(1031.0, ("b", 3, fast)))["p95"] < 0.0001, "a new worker has a new name"
    for second in range(1032, 1200):
        numbers = trends.add(_status(float(second), ("b", 3, fast)))
    assert (numbers["p95"], numbers["failed"]) == (None, 0.0)
    assert len(trends.points) == 171


def test_percentiles() -> None:
    counts = [0] * (len(LATENCY_BOUNDS) + 1)
    assert percentiles(counts, LATENCY_BOUNDS, (0.5,)) == [None]
    counts[-1] = 1
    assert percentiles(counts, LATENCY_BOUNDS, (0.5, 1.0)) == [3600.0, 3600.0]
    counts[2] = 9
    assert percentiles(counts, LATENCY_BOUNDS, (0.45,)) == [0.0075]


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server
