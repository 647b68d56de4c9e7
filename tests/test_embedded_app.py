"""The example of an application that runs its own workers: real servers, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from examples.embedded_app.jobs import HISTORY
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import CRON, QUEUES, SUPERVISORS, Keys, cron_stem
from redis_worker.broker.operator.cron_status import read_jobs
from redis_worker.embedded import EmbeddedServer
from tests.support import ROOT, CommandProcess, Queue, wait_until

FASTAPI = ("uvicorn", "--port", "0", "examples.embedded_app.fastapi_app:app")
DJANGO = ("uvicorn", "--port", "0", "examples.embedded_app.django_app:application")
AIOHTTP = ("examples.embedded_app.aiohttp_app",)
FILE = ROOT / "examples/embedded_app/workers.toml"
NO_REDIS = "redis://127.0.0.1:1"
LAMPS = {"items": {"lamp": 2}}
BILL = {"cents": 3998}


class App(CommandProcess):
    """An application in a process of its own, which may have children: `python -m …`."""

    def __init__(self, *command: str, cwd: Path, **env: str) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        said = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "PORT": "0", "ARCHIVE_SCHEDULE": "* * * * * *"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", *command],
            cwd=cwd,
            env=os.environ | said | env,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self._address = ""

    async def at_work(self) -> App:
        """Once it has started, as far as it says so."""
        where = re.compile(r"[Rr]unning on (http://127\.0\.0\.1:\d+)")
        await wait_until(lambda: where.search(self.log) or not self.alive, "the application to start")
        found = where.search(self.log)
        assert found, self.log
        self._address = found[1]
        return self

    async def ask(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, Any]:
        """The status and the JSON of an answer; with a body the method is POST."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}{path}", data, {"Content-Type": "application/json"}, method=method
        )
        return await asyncio.to_thread(_answer, request)

    async def parts(self) -> dict[str, dict[str, Any]]:
        status, parts = await self.ask("/parts")
        assert status == 200
        return {part["name"]: part for part in parts}

    async def state(self, part: str) -> str:
        return str((await self.parts())[part]["state"])

    async def stop(self) -> int:
        """Tell it to end, as an operator does; its exit code."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    def close(self) -> None:
        if self.alive:
            os.killpg(self.pid, signal.SIGKILL)
        super().close()


def _answer(request: urllib.request.Request) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


Start = Callable[..., App]


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts applications, in a directory that is not theirs; those still there at the end are killed."""
    started: list[App] = []

    def start(command: tuple[str, ...], url: str, **env: str) -> App:
        started.append(App(*command, cwd=tmp_path, REDIS_URL=url, **env))
        return started[-1]

    yield start
    for app in started:
        app.close()


class Shop(Queue):
    """What Redis holds of the shop."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, Keys("shop:orders", "shop:bills"))

    async def archived(self) -> list[float]:
        """The instants that the cron job was run for, as often as it was."""
        return [json.loads(line)["at"] for line in await self.redis.lrange(HISTORY, 0, -1)]

    async def alone(self) -> bool:
        """Whether no worker is registered, no supervisor announced and no cron job running."""
        running = f"{cron_stem('shop', 'archive')}:running"
        return not await self.redis.exists(self.keys.workers, SUPERVISORS, running)


@pytest.fixture
async def shop(redis: Redis) -> AsyncIterator[Shop]:
    """The shop, which has the server for itself; at the end nobody may be at work."""
    yield Shop(redis)
    left = {key.decode() async for key in redis.scan_iter("*", count=1000)}
    await redis.flushall()
    expected = {"shop:orders", "shop:bills", HISTORY, QUEUES, CRON}
    assert {key for key in left - expected if not key.startswith(cron_stem("shop", "archive"))} == set()
    assert f"{cron_stem('shop', 'archive')}:running" not in left


@pytest.mark.parametrize("command", [FASTAPI, AIOHTTP, DJANGO], ids=["fastapi", "aiohttp", "django"])
async def test_workers_live_as_long_as_the_application(
    command: tuple[str, ...], server: EmbeddedServer, shop: Shop, start: Start
) -> None:
    app = await start(command, server.url).at_work()
    assert await app.ask("/orders", LAMPS) == (200, BILL)
    assert {name: part["state"] for name, part in (await app.parts()).items()} == {
        "prices": "running",
        "orders": "running",
        "archive": "running",
    }

    async def fired() -> bool:
        return len(await shop.archived()) >= 2

    await wait_until(fired, "the cron job to fire")
    assert await app.stop() in (0, -signal.SIGTERM)
    assert await shop.alone()
    assert "Traceback" not in app.log


async def test_all_else_goes_on_while_a_part_crashes(server: EmbeddedServer, shop: Shop, start: Start) -> None:
    app = await start(FASTAPI, server.url).at_work()
    assert await app.ask("/orders", LAMPS) == (200, BILL)
    assert await app.ask("/supplier/down", method="POST") == (200, {"supplier": "down"})
    seen: list[int] = []

    async def given_up() -> bool:
        assert await app.ask("/orders", LAMPS) == (200, BILL)
        parts = await app.parts()
        assert parts["orders"]["state"] == "running"
        seen.append(parts["prices"]["restarts"])
        return parts["prices"]["state"] == "failed"

    await wait_until(given_up, "the daemon to be given up")
    assert seen == sorted(seen)
    assert seen[-1] == 5
    assert (await app.parts())["prices"]["error"] == "ConnectionError: the supplier does not answer"
    assert await app.ask("/ready") == (503, {"ready": False})
    assert "giving up" in app.log
    before = len(await shop.archived())

    async def fired() -> bool:
        return len(await shop.archived()) > before

    await wait_until(fired, "the cron job to go on")
    assert await app.ask("/orders", LAMPS) == (200, BILL)

    assert await app.ask("/supplier/up", method="POST") == (200, {"supplier": "up"})
    assert await app.ask("/reload", method="POST") == (200, {"accepted": True})
    assert await app.state("prices") == "running"
    assert await app.ask("/ready") == (200, {"ready": True})
    await app.stop()


async def test_a_stop_of_the_application_lets_tasks_finish(server: EmbeddedServer, shop: Shop, start: Start) -> None:
    app = await start(FASTAPI, server.url).at_work()
    asked = asyncio.create_task(app.ask("/orders", LAMPS | {"wrapping": 1}))
    await shop.push_tasks([[{"lamp": 1}, 2]])
    await wait_until(lambda: _held(shop, 2), "the tasks to run")
    await app.stop()
    assert await asked == (200, BILL)
    assert await shop.results() == {"0": {"status": "success", "result": 1999}}
    assert await shop.waiting() == []
    assert await shop.alone()


async def test_what_does_not_finish_in_time_goes_back(server: EmbeddedServer, shop: Shop, start: Start) -> None:
    app = await start(FASTAPI, server.url, SHUTDOWN_TIMEOUT="0.2s").at_work()
    await shop.push_tasks([[{"lamp": 1}, 3600]])
    await wait_until(lambda: _held(shop, 1), "the task to run")
    await app.stop()
    assert await shop.ledger() == {"0": 1}
    assert len(await shop.waiting()) == 1
    assert await shop.alone()


async def _held(shop: Shop, number: int) -> bool:
    """Whether so many tasks are being wrapped; one that waits for prices is put off."""
    return len(await shop.inflight()) == number and not await shop.redis.exists(shop.keys.delayed)


@pytest.mark.parametrize(
    ("command", "number"),
    [
        pytest.param(FASTAPI, signal.SIGTERM, id="uvicorn-15"),
        pytest.param(FASTAPI, signal.SIGINT, id="uvicorn-2", marks=pytest.mark.long),
        pytest.param(AIOHTTP, signal.SIGTERM, id="aiohttp-15", marks=pytest.mark.long),
        pytest.param(AIOHTTP, signal.SIGINT, id="aiohttp-2"),
    ],
)
async def test_the_server_ends_by_a_signal_as_it_does_without_workers(
    command: tuple[str, ...], number: signal.Signals, server: EmbeddedServer, shop: Shop, start: Start
) -> None:
    codes = []
    for mode in ("embedded", "standalone"):
        app = await start(command, server.url, WORKERS_MODE=mode).at_work()
        assert len(await app.parts()) == (3 if mode == "embedded" else 0)
        app.signal(number)
        codes.append(await app.ended())
    assert codes[0] == codes[1]


async def test_an_application_starts_without_redis_and_works_once_it_is_there(
    own_server: EmbeddedServer, start: Start
) -> None:
    os.kill(own_server.pid, signal.SIGKILL)
    app = await start(FASTAPI, own_server.url).at_work()
    assert await app.state("prices") == "running"
    for part in ("orders", "archive"):
        assert await app.state(part) in ("waiting for Redis", "restarting")
    status, answer = await app.ask("/orders", LAMPS)
    assert status == 503, answer
    await asyncio.to_thread(own_server.restart, signal.SIGKILL)

    async def ready() -> bool:
        return await app.ask("/ready") == (200, {"ready": True})

    await wait_until(ready, "the parts to work")
    assert await app.ask("/orders", LAMPS) == (200, BILL)
    await app.stop()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(FASTAPI, id="fastapi"),
        pytest.param(AIOHTTP, id="aiohttp", marks=pytest.mark.long),
        pytest.param(DJANGO, id="django", marks=pytest.mark.long),
    ],
)
async def test_without_redis_it_ends_as_well(command: tuple[str, ...], start: Start) -> None:
    app = await start(command, NO_REDIS).at_work()
    assert await app.state("prices") == "running"
    assert await app.stop() in (0, -signal.SIGTERM)


async def test_the_same_file_as_a_service_beside_the_application(
    server: EmbeddedServer, shop: Shop, start: Start
) -> None:
    app = await start(FASTAPI, server.url, WORKERS_MODE="standalone").at_work()
    assert 'worker.mode is "standalone": nothing runs here; run redis-worker serve' in app.log
    assert await app.parts() == {}
    asked = asyncio.create_task(app.ask("/orders", LAMPS))

    async def pushed() -> bool:
        return len(await shop.waiting()) == 1

    await wait_until(pushed, "the order")
    serve = start(("redis_worker", "serve", str(FILE)), server.url, WORKERS_MODE="standalone")
    assert await asked == (200, BILL)
    assert await serve.stop() == 0
    await app.stop()


async def test_serve_leaves_an_embedded_file_to_its_application(
    server: EmbeddedServer, shop: Shop, start: Start
) -> None:
    serve = start(("redis_worker", "serve", str(FILE)), server.url)
    assert await serve.ended() == 2
    assert 'worker.mode is "embedded": nothing runs here, only in the application that embeds it' in serve.log
    assert await shop.redis.dbsize() == 0


async def test_of_several_web_workers_one_fires_each_instant(server: EmbeddedServer, shop: Shop, start: Start) -> None:
    app = await start((*FASTAPI, "--workers", "2"), server.url).at_work()

    async def both() -> bool:
        return await shop.redis.hlen(SUPERVISORS) == await shop.redis.zcard(shop.keys.workers) == 2

    await wait_until(both, "both processes")
    before = len(await shop.archived())

    async def fired() -> bool:
        return len(await shop.archived()) >= before + 5

    await wait_until(fired, "the cron job to fire")
    assert await app.ask("/orders", LAMPS) == (200, BILL)
    await app.stop()
    instants = await shop.archived()
    assert sorted(instants) == sorted(set(instants))
    [job] = await read_jobs(Connection(shop.redis, owned=False))
    assert job.counts.get("success") == len(instants)
    assert await shop.alone()


CRITICAL = """
import asyncio, signal
from contextlib import asynccontextmanager
from examples.embedded_app.asgi_lifespan import with_lifespan
from redis_worker import Supervisor


def end_application(waiting):
    if not waiting.cancelled() and waiting.exception() is not None:
        signal.raise_signal(signal.SIGTERM)


@asynccontextmanager
async def lifespan():
    async with Supervisor.from_file("workers.toml") as supervisor:
        waiting = asyncio.create_task(supervisor.wait())
        waiting.add_done_callback(end_application)
        yield {}


async def application(scope, receive, send):
    raise AssertionError


app = with_lifespan(application, lifespan)
"""


async def test_a_critical_part_that_cannot_start_fails_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "critical.py").write_text(CRITICAL)
    (tmp_path / "workers.toml").write_text('[daemons.other]\nrun = "no_such_module:run"\ncritical = true')
    app = start(("uvicorn", "--port", "0", "critical:app"), NO_REDIS)
    assert await app.ended() == 3
    assert "the critical part other has failed (the daemon 'no_such_module:run': no module named" in app.log
    assert "Application startup failed" in app.log


async def test_an_application_may_end_with_a_critical_part(start: Start, tmp_path: Path) -> None:
    (tmp_path / "critical.py").write_text(CRITICAL)
    (tmp_path / "workers.toml").write_text(
        '[daemons.other]\nrun = "tests.parts:fails"\narguments = { marks = "marks", after = 0.5 }\n'
        'restart = "never"\ncritical = true'
    )
    app = start(("uvicorn", "--port", "0", "critical:app"), NO_REDIS)
    assert await app.ended() == -signal.SIGTERM
    assert "other is critical, so all is stopped" in app.log
    assert "Application shutdown complete" in app.log
