"""The dashboard: each of its queries, asked of a Prometheus that scrapes a busy worker, and none of them is empty.

Grafana itself cannot be had from Debian, PyPI or npm.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import asyncpg
from confluent_kafka import Producer
from redis import Redis

from deploy.checks.compose import free_port
from deploy.checks.running import DEPLOY, CheckFailed, need, say, tool
from redis_worker.embedded import EmbeddedServer
from redis_worker.embedded_postgres import EmbeddedPostgres
from redis_worker.mock_kafka import MockKafka

_PATIENCE = 90.0
_SCRAPE = """
global: {{scrape_interval: 1s, scrape_timeout: 900ms}}
scrape_configs:
  - job_name: redis-worker
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
_FILE = """
[worker]
name = "dashboard"
[redis]
url = "{url}"
[http]
port = {port}
[pools.work]
input = "work:input"
output = "work:output"
processor = "jobs:work"
concurrency = 4
retries = 1
retry_backoff = 0.5
[cron.tick]
job = "jobs:tick"
schedule = "* * * * * *"
[kafka]
brokers = "{brokers}"
group = "dashboard"
[kafka.rows]
topics = ["rows"]
handler = "jobs:to_row"
[kafka.rows.sink]
type = "postgres"
dsn = "{dsn}"
table = "rows"
key = ["id"]
"""
_JOBS = '''
import asyncio

async def work(arguments):
    """Take some time, and fail for each fifth task."""
    await asyncio.sleep(0.02)
    if arguments[0] % 5 == 0:
        raise ValueError("a fifth task")
    return arguments[0]

def to_row(message):
    return message.data

def tick():
    """Do nothing, once a second."""
'''


def check_dashboard() -> None:
    """Run a busy worker, its servers and Prometheus, until each query has a value. Raises CheckFailed."""
    need(("prometheus",), ("prometheus",))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        redis, kafka = stack.enter_context(EmbeddedServer()), stack.enter_context(MockKafka())
        database = stack.enter_context(EmbeddedPostgres())
        asyncio.run(_create_table(database.dsn))
        port = free_port()
        servers = {"url": redis.url, "brokers": kafka.brokers, "dsn": database.dsn}
        Path(folder, "workers.toml").write_text(_FILE.format(port=port, **servers))
        Path(folder, "jobs.py").write_text(_JOBS)
        Path(folder, "prometheus.yml").write_text(_SCRAPE.format(port=port))
        stack.enter_context(_busy(redis.url, kafka.brokers))
        command = (tool("redis-worker"), "serve", "workers.toml")
        worker = stack.enter_context(_running(folder, *command, PYTHONPATH=folder))
        prometheus = f"127.0.0.1:{free_port()}"
        options = ("--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={prometheus}")
        stack.enter_context(_running(folder, "prometheus", *options))
        queries = _queries()
        seconds = _until_each_has_a_value(prometheus, queries, worker)
    say(f"grafana: each of {len(queries)} queries of the dashboard has a value after {seconds:.0f} s of work")


def _queries() -> list[str]:
    """Return the queries of the panels and of the variable, as Grafana sends them."""
    dashboard = json.loads((DEPLOY / "grafana" / "redis_worker.json").read_text())
    written = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries = [query.replace("$queue", ".+").replace("$__rate_interval", "15s") for query in written]
    return [*dict.fromkeys(queries), "count by (queue) (redis_worker_tasks_total)"]


def _until_each_has_a_value(prometheus: str, queries: list[str], worker: subprocess.Popen[bytes]) -> float:
    """Wait until each query has had a number as its answer, and return the seconds. Raises CheckFailed."""
    begun, empty = time.monotonic(), queries
    while empty := [query for query in empty if not _has_value(prometheus, query)]:
        if time.monotonic() - begun > _PATIENCE or worker.poll() is not None:
            raise CheckFailed(f"grafana: {len(empty)} queries are empty:\n" + "\n".join(empty))
        time.sleep(1)
    return time.monotonic() - begun


def _has_value(prometheus: str, query: str) -> bool:
    try:
        with urlopen(f"http://{prometheus}/api/v1/query?{urlencode({'query': query})}", timeout=10) as answer:
            found: dict[str, Any] = json.load(answer)
    except (URLError, ConnectionError) as error:
        if "HTTP Error" in str(error):
            raise CheckFailed(f"grafana: {query}: {error}") from None
        return False  # it has only begun
    return any(math.isfinite(float(series["value"][1])) for series in found["data"]["result"])


async def _create_table(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("create table rows (id integer primary key, n integer not null check (n <> 7))")
    await connection.close()


@contextmanager
def _busy(url: str, brokers: str) -> Iterator[None]:
    """Push tasks and send messages, some of which fail, during the block."""
    stopped = threading.Event()
    redis, producer = Redis.from_url(url), Producer({"bootstrap.servers": brokers})

    def push() -> None:
        for first in itertools.count(step=40):  # more than the pool does
            if stopped.wait(0.1):
                break
            for number in range(first, first + 40):
                redis.rpush("work:input", json.dumps({"id": number, "task": [number], "emit_ts": time.time()}))
                producer.produce("rows", json.dumps({"id": number, "n": number % 10}))
            producer.poll(0)

    pushing = threading.Thread(target=push, daemon=True)
    pushing.start()
    try:
        yield
    finally:
        stopped.set()
        pushing.join()
        producer.flush(1)
        redis.close()


@contextmanager
def _running(folder: str, *command: str, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program during the block; a failure of the block shows its log."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield process
        except CheckFailed as error:
            log.seek(0)
            raise CheckFailed(f"{error}\n{command[0]} writes:\n{log.read().decode()[-1500:]}") from error
        finally:
            process.terminate()
            process.wait()
