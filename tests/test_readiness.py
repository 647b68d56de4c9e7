"""`/ready` while nothing is consumed, and the public way to the same Redis as the command line's."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import redis_worker
from redis_worker import ConfigurationError, TopicWorker, WorkerPool
from redis_worker.embedded import EmbeddedServer
from redis_worker.http.subject import not_ready
from tests.support import PATIENCE, ROOT, Several, Topic, wait_until


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


async def ready(worker: TopicWorker | WorkerPool) -> tuple[int, dict[str, Any]]:
    def ask() -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://{worker.http_address}/ready", timeout=PATIENCE) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    return await asyncio.to_thread(ask)


async def handle(message: Any) -> None: ...


async def test_a_topic_worker_is_ready_while_it_consumes(server: EmbeddedServer, topic: Topic) -> None:
    async with TopicWorker(server.url, http="127.0.0.1:0") as worker:
        code, answer = await ready(worker)
        assert (code, answer["status"], answer["reason"]) == (503, "not ready", "nothing is consumed")
        assert "consumers" not in answer
        worker.handler(topic.name)(handle)
        await wait_until(worker.consuming)
        code, answer = await ready(worker)
        assert (code, answer["consumers"]) == (200, "running")
        await worker.stop_consumers()
        assert (await ready(worker))[0] == 503
        await worker.start_consumer(topic.name)
        assert (await ready(worker))[0] == 200


def test_a_supervisor_without_parts_is_not_ready() -> None:
    assert not_ready(Several()) == "no part runs"


@pytest.mark.parametrize(
    ("env", "file", "expected"),
    [
        ({}, "", "redis://localhost:6379/0"),
        ({"REDIS_URL": "redis://a"}, "REDIS_URL=redis://b", "redis://a"),
        ({}, "REDIS_URL=redis://b", "redis://b"),
        ({"REDIS_WORKER_URL": "redis://w", "REDIS_URL": "redis://a"}, "", "redis://w"),
        ({"REDIS_HOST": "h", "REDIS_PASSWORD": "p w", "REDIS_TLS": "yes"}, "", "rediss://:p%20w@h:6379/0"),
        ({"REDIS_HOST": "h"}, "REDIS_URL=redis://b\nREDIS_PORT=7", "redis://h:7/0"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "x"}, "", "REDIS_PORT must be a whole number up to 65535"),
    ],
)
def test_a_program_reads_the_environment_as_the_command_line_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: dict[str, str], file: str, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(file)
    for name in [name for name in os.environ if name.startswith("REDIS_")]:
        monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    try:
        found = redis_worker.redis_url_from_environment()
    except ConfigurationError as error:
        found = str(error)
    assert expected in found
    assert dict(os.environ) == before
    if not found.startswith("redis"):
        return
    command = "import sys, redis_worker.cli.main as m, redis_worker.cli.options as o; o.load_env_file(); " + (
        "import os; print(os.environ.get('REDIS_WORKER_URL') or os.environ.get('REDIS_URL') or o.redis_url(None))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert shown.stdout.strip() == found
