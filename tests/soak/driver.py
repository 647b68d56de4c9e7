"""The driver: rounds of load and a fault, each followed by a rest in which is measured."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from redis_worker.broker.keys import Keys, topic_list
from redis_worker.embedded import EmbeddedServer
from tests.session import free_port
from tests.soak.measuring import Sample, measure, tree
from tests.support import PATIENCE, CommandProcess, held_in, wait_until

POOLS = {"quick": 400, "later": 200, "in_thread": 60, "in_process": 30, "parted": 100}
TOPICS_PUSHED = {"soak.plain": 60, "soak.once": 60, "soak.batch": 120}
_FILE = """
[worker]
name = "soak"
shutdown_timeout = 5
restart_backoff = 0.1
restart_backoff_max = 0.5
max_restarts = 100000
[redis]
url = "{url}"
[http]
port = {port}
[topics]
lease = 2
[topics."soak.plain"]
handler = "tests.soak.tasks:handle"
retries = 2
retry_backoff = 0.05
[topics."soak.once"]
handler = "tests.soak.tasks:handle"
idempotent = true
retries = 2
retry_backoff = 0.05
[topics."soak.batch"]
handler = "tests.soak.tasks:handle_many"
batch = {{ size = 20, within = 0.05 }}
[cron.tick]
schedule = "* * * * * *"
job = "tests.soak.tasks:tick"
"""
_POOL = """
[pools.{name}]
input = "soak:{name}"
output = "soak:{name}:out"
processor = "tests.soak.tasks:{processor}"
concurrency = 6
lease = 2
max_deliveries = 100
retries = 2
retry_backoff = 0.05
dead_limit = 100
{more}
"""
_LEAK = '[daemons.leak]\nrun = "tests.soak.tasks:leak"\narguments = {{ what = "{what}" }}\n'
# A log that stays short is quickly read at a restart.
_SERVER = ("--auto-aof-rewrite-min-size", "1mb")
# What the restarts of the server leave of the history: results, and the ids of what has been done.
_GROWING = ("out", "done", "dead", "dropped")


class Soak:
    """A server, a supervisor, and what is done to both."""

    def __init__(self, seed: int, leak: str | None = None) -> None:
        """`leak` is what a daemon of the supervisor leaks, so that the soak has something to find."""
        self._random = random.Random(seed)
        self._leak = leak
        self._ids = 0
        self.samples: list[Sample] = []
        self.pushed = 0
        self.scraped = 0
        self.faults: list[str] = []
        self._all: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("none", self._nothing),
            ("CLIENT KILL", self._kill_clients),
            ("restart", self._restart),
            ("kill -9 of the server", self._kill_server),
            ("CLIENT PAUSE", self._pause),
            ("SCRIPT FLUSH", self._flush_scripts),
            ("kill -9 of a process", self._kill_child),
            ("reload", self._reload),
        ]

    async def run(self, seconds: float, least: int = 8) -> None:
        """Run for `seconds`, and `least` rounds. Raises AssertionError where anything is lost or stops."""
        with tempfile.TemporaryDirectory() as folder, EmbeddedServer(persistent=True, options=_SERVER) as self._server:
            self._path = Path(folder) / "workers.toml"
            self._port = free_port()
            self._write(0)
            endless: Any = Retry(ConstantBackoff(0.1), 300)
            self._redis = Redis.from_url(self._server.url, retry=endless, retry_on_error=[RedisError, OSError])
            self._process = CommandProcess("serve", str(self._path), "--log-level", "warning", "--log-format", "json")
            try:
                await wait_until(self._answers, "the supervisor to answer")
                end = time.monotonic() + seconds
                while time.monotonic() < end or len(self.samples) < least:
                    await self._round()
                self._process.signal(signal.SIGTERM)
                code = await self._process.ended()
                assert code == 0, f"the supervisor ended with {code}: {self._process.log[-2000:]}"
            finally:
                await self._redis.aclose()
                self._process.close()

    def _write(self, version: int) -> None:
        processors = {name: name for name in POOLS} | {"parted": "later"}
        more = {"in_thread": "timeout = 0.3", "parted": "processes = 2", "quick": f"max_tasks = {10**9 + version}"}
        pools = (_POOL.format(name=name, processor=processors[name], more=more.get(name, "")) for name in POOLS)
        leak = _LEAK.format(what=self._leak) if self._leak else ""
        self._path.write_text(_FILE.format(url=self._server.url, port=self._port) + "".join(pools) + leak)

    async def _round(self) -> None:
        name, fault = self._all[len(self.samples) % len(self._all)]
        self.faults.append(name)
        await self._push()
        await asyncio.sleep(self._random.uniform(0, 0.3))
        await fault()
        await self._push()
        await self._scrape()
        await self._until_idle()
        await self._forget_results()
        self.samples.append(await self._measured())

    async def _push(self) -> None:
        for pool, count in POOLS.items():
            ids = range(self._ids, self._ids + count)
            await self._sent("RPUSH", f"soak:{pool}", *(json.dumps({"id": id, "task": [id, "x" * 50]}) for id in ids))
            self._ids += count
        for topic, count in TOPICS_PUSHED.items():
            ids = range(self._ids, self._ids + count)
            await self._sent("RPUSH", topic_list(topic), *(json.dumps({"id": id, "data": {"n": id}}) for id in ids))
            self._ids += count
        self.pushed += sum(POOLS.values()) + sum(TOPICS_PUSHED.values())

    async def _sent(self, *command: Any) -> None:
        """Send a command until it is answered; tasks that are pushed twice do no harm here."""
        await self._redis.execute_command(*command)

    async def _until_idle(self) -> None:
        """Wait until nothing waits, is delayed or in flight, and each task of the pools has its answer."""
        end = time.monotonic() + 2 * PATIENCE
        while left := await self._left() or await self._left():  # twice: what moves is missed by a single look
            assert self._process.alive, f"the supervisor has ended: {self._process.log[-2000:]}"
            assert time.monotonic() < end, f"not done: {left}; {self._process.log[-2000:]}"
            await asyncio.sleep(0.05)

    async def _left(self) -> dict[str, int]:
        left = {}
        for key in (*(f"soak:{pool}" for pool in POOLS), *map(topic_list, TOPICS_PUSHED)):
            keys = Keys(key)
            left[key] = int(await self._redis.llen(key)) + int(await self._redis.zcard(keys.delayed))
        async for key in self._redis.scan_iter("*:inflight:*", count=1000):
            left[key.decode()] = len(await held_in(self._redis, key))
        for pool, count in POOLS.items():
            left[f"no answer of {pool}"] = 2 * count - int(await self._redis.hlen(f"soak:{pool}:out"))
        return {key: count for key, count in left.items() if count}

    async def _forget_results(self) -> None:
        async for key in self._redis.scan_iter(count=1000):
            if key.decode().rpartition(":")[2] in _GROWING:
                await self._redis.delete(key)

    async def _measured(self) -> Sample:
        """Measure once nothing comes or goes any more."""
        latest, same = None, 0
        for _ in range(20):
            clients = [each for each in await self._redis.client_list() if each.get("cmd") != "client|list"]
            keys = [key async for key in self._redis.scan_iter(count=1000)]
            sample = measure(self._process.pid, len(clients), len(keys))
            same = same + 1 if sample[2:] == latest else 0
            latest = sample[2:]
            if same >= 3:
                break
            await asyncio.sleep(0.1)
        return sample

    async def _answers(self) -> bool:
        try:
            await asyncio.to_thread(_get, f"http://127.0.0.1:{self._port}/healthz")
        except OSError:
            assert self._process.alive, self._process.log
            return False
        return True

    async def _scrape(self) -> None:
        for path in ("/healthz", "/ready", "/metrics"):
            try:
                await asyncio.to_thread(_get, f"http://127.0.0.1:{self._port}{path}")
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != 503:  # not ready
                    raise
                continue
            self.scraped += 1

    async def _nothing(self) -> None:
        pass

    async def _kill_clients(self) -> None:
        await self._sent("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async def _restart(self) -> None:
        await asyncio.to_thread(self._server.restart)

    async def _kill_server(self) -> None:
        await asyncio.to_thread(self._server.restart, signal.SIGKILL)

    async def _pause(self) -> None:
        await self._sent("CLIENT", "PAUSE", 300)

    async def _flush_scripts(self) -> None:
        await self._sent("SCRIPT", "FLUSH")

    async def _kill_child(self) -> None:
        children = tree(self._process.pid)[1:]
        if children:
            try:
                os.kill(self._random.choice(children), signal.SIGKILL)
            except ProcessLookupError:
                pass

    async def _reload(self) -> None:
        self._write(len(self.samples))
        self._process.signal(signal.SIGHUP)


def _get(url: str) -> None:
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        answer.read()
