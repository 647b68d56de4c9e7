"""The threat model (docs/security.md): lines that are tested nowhere else, and that each test that it names exists."""

from __future__ import annotations

import ast
import asyncio
import hmac
import logging
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, TaskClient, TaskError, TopicWorker, WorkerPool, start_worker_pool
from redis_worker.broker.keys import TOPICS
from redis_worker.embedded import EmbeddedServer
from redis_worker.http import gate, pages
from redis_worker.http.server import HttpServer
from redis_worker.vocabulary.service import PartStatus
from tests.support import PATIENCE, ROOT, CommandProcess, Queue, Several, wait_until

PAGE = ROOT / "docs" / "security.md"


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


# The page


def named_tests() -> list[tuple[str, str]]:
    return re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE.read_text())


def test_each_test_that_the_page_names_exists() -> None:
    named = named_tests()
    assert len(named) > 30
    missing = [f"{file}::{name}" for file, name in named if name not in _tests_of(file)]
    assert not missing


def test_each_line_of_the_model_names_a_test() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("|") and "---" not in line]
    untested = [row for row in rows if "tests/" not in row and not row.rstrip().endswith("| test |")]
    assert rows
    assert not untested


def _tests_of(file: str) -> set[str]:
    path = ROOT / file
    tree = ast.parse(path.read_text()) if path.exists() else ast.Module([], [])
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


# A task names no code


CANARY = "from pathlib import Path\nPath('imported').touch()\ndef run(*arguments): Path('called').touch()\n"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize("execution", ["inline", "process"])
async def test_a_task_cannot_name_code(
    server: EmbeddedServer, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: str
) -> None:
    """In no member, in no form, and not by a pickle: a module that lies there for the taking is not imported."""
    (tmp_path / "canary.py").write_text(CANARY)
    monkeypatch.chdir(tmp_path)
    names = (
        "processor",
        "parser",
        "function",
        "module",
        "handler",
        "__class__",
        "py/object",
        "!!python/name",
        "kwargs",
    )
    await queue.push(
        *({"id": name, "task": [name], name: "canary:run"} for name in names),
        {"id": "task", "task": ["canary:run", {"__reduce__": ["canary", "run"], "py/object": "canary.run"}]},
        {"id": "canary:run", "task": ["canary"], "execution": "canary:run", "emit_ts": "canary:run"},
        pickle.dumps(_Evil()),
        pickle.dumps({"id": "p", "task": _Evil()}, protocol=0),
    )
    keys = (queue.keys.waiting, queue.keys.output)
    await start_worker_pool(server.url, *keys, "list", "tests.processors:echo", burst=True, execution=execution)
    results = await queue.results()
    assert {result["status"] for result in results.values()} == {"success"}
    assert len(results) == len(names) + 2
    assert len(await queue.dead()) == 2
    assert os.listdir(tmp_path) == ["canary.py"]
    assert "canary" not in sys.modules


async def test_a_result_cannot_name_code(
    server: EmbeddedServer, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can write to the output hash deceives the reader, and has it run nothing."""
    monkeypatch.chdir(tmp_path)
    evil = [
        pickle.dumps(_Evil()),
        b'{"status":"error","error":{"__reduce__":["os","mkdir"]}}',
        b'{"status":1}',
        b"\xff",
    ]
    async with TaskClient(server.url, queue.keys.waiting, queue.keys.output) as client:
        for raw in evil:
            await queue.redis.hset(queue.keys.output, "x", raw)
            with pytest.raises(TaskError):
                await client.result("x", PATIENCE)
    assert os.listdir(tmp_path) == []


# Names of topics


async def test_a_known_topic_that_is_no_name_is_ignored_with_one_warning(
    server: EmbeddedServer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    names = [b"", b"a b", b"t*", b"{t}", b"mq:x", b"\xff", b"\x1b[2J b"]
    for name in (*names, b"good"):
        await redis.sadd(TOPICS, name)
        await redis.rpush(b"mq:" + name, b'{"id":1,"data":1}')
    worker, seen = TopicWorker(server.url), []

    @worker.default_handler
    async def handle(message: Message) -> None:
        seen.append(message.topic)

    work = asyncio.create_task(worker.run())
    await wait_until(lambda: seen or work.done())
    await worker.stop_consumers()  # which one that is no name would end
    worker.stop()
    await work
    assert seen == ["good"]
    assert all([await redis.llen(b"mq:" + name) == 1 for name in names])
    [warning] = [record for record in caplog.records if "are no topics" in record.getMessage()]
    assert "'{mq}:topics'" in warning.getMessage()


# The HTTP port


TOKEN = "t0k3n-of-1-test"


async def _exchange(address: str, raw: bytes) -> bytes:
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(raw)
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _get(path: str, *headers: str, method: str = "GET") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: h", "Connection: close", *headers, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"POST /ready HTTP/1.1\r\nHost: h\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /ready HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["target", "TLS", "header", "long", "gzip", "chunk"],
)
async def test_a_request_that_is_no_http_leaves_no_traceback(raw: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Every client could fill the log with them."""
    caplog.set_level(logging.INFO)
    server = HttpServer("127.0.0.1:0", TOKEN)
    async with server.answering(Several(), lambda _: pytest.fail("nothing is read")):
        assert server.listening
        await _exchange(server.listening, raw + _get("/healthz"))
        assert b"200 OK" in await _exchange(server.listening, _get("/healthz"))
    assert [record for record in caplog.records if record.exc_info or "cannot be answered" in record.getMessage()] == []


async def test_an_error_of_its_own_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = HttpServer("127.0.0.1:0")
    monkeypatch.setattr(pages, "not_ready", lambda service: 1 // 0)
    async with server.answering(Several(), lambda _: pytest.fail("nothing is read")):
        assert server.listening
        answer = await _exchange(server.listening, _get("/ready"))
    assert b" 500 " in answer.splitlines()[0]
    assert b"Zero" not in answer
    assert any(record.exc_info and record.exc_info[0] is ZeroDivisionError for record in caplog.records)


async def test_http_shows_and_changes_nothing() -> None:
    """Of each page there is the GET; no other method, path or body does anything."""
    server = HttpServer("127.0.0.1:0", TOKEN)
    async with server.answering(Several(), lambda _: pytest.fail("nothing is read")):
        assert server.listening
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for path in ("/healthz", "/ready", "/metrics"):
                answer = await _exchange(server.listening, _get(path, method=method))
                assert answer.startswith(b"HTTP/1.1 405 "), (method, path)
        for path in ("/", "/..", "/metrics/..%2f..%2fetc/passwd", "/static", "/debug", "//metrics", "/METRICS"):
            assert (await _exchange(server.listening, _get(path))).startswith(b"HTTP/1.1 404 "), path


async def test_the_token_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much of it is right, all of it is compared, and by the function that is made for it."""
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def compare(given: Any, wanted: Any) -> bool:
        compared.append((given, wanted))
        return real(given, wanted)

    monkeypatch.setattr(gate.hmac, "compare_digest", compare)
    server = HttpServer("127.0.0.1:0", TOKEN)
    async with server.answering(Several(), lambda _: pytest.fail("nothing is read")):
        assert server.listening
        for given in ("", "t", TOKEN[:-1], TOKEN + "x", "x" * len(TOKEN), "ß", TOKEN.upper()):
            compared.clear()
            header = f"Authorization: Bearer {given}"
            answer = await _exchange(server.listening, _get("/metrics", header))
            assert answer.startswith(b"HTTP/1.1 401 "), given
            assert compared == [(given.encode(), TOKEN.encode())]
            assert TOKEN.encode() not in answer


async def test_pages_show_no_password_and_no_markup(server: EmbeddedServer, queue: Queue) -> None:
    """A part or queue is named by whoever writes the file; its error by whatever raised."""
    password = "s3Cr3t-of-pages"
    url = server.url.replace("://", f"://default:{password}@")
    keys = queue.keys
    async with WorkerPool(url, keys.waiting, keys.output, "list", "sum", http="127.0.0.1:0") as pool:
        assert pool.http_address
        shown = b"".join(
            [
                await _exchange(pool.http_address, _get("/healthz")),
                await _exchange(pool.http_address, _get("/ready")),
                await _exchange(pool.http_address, _get("/metrics")),
                await _exchange(pool.http_address, _get("/metrics", "Accept: application/json")),
            ]
        )
    assert b"redis_worker_tasks_total" in shown
    assert password.encode() not in shown
    evil = '"} 1\nforged 2\n<script>'
    http = HttpServer("127.0.0.1:0")
    async with http.answering(Several(PartStatus(evil, "pool", "failed", 0, evil)), lambda _: pytest.fail("no queue")):
        assert http.listening
        metrics = (await _exchange(http.listening, _get("/metrics"))).partition(b"\r\n\r\n")[2]
        ready = await _exchange(http.listening, _get("/ready"))
    assert b"\nforged" not in metrics
    assert b"application/json" in ready
    assert b"\nforged" not in ready


# The machine


def test_the_folder_of_an_embedded_server_is_its_users_alone(server: EmbeddedServer) -> None:
    assert server.folder.stat().st_mode & 0o777 == 0o700


async def test_the_command_line_of_a_worker_shows_no_password_of_the_environment(
    server: EmbeddedServer, queue: Queue
) -> None:
    """Nor those of its processes; what is written on a command line is on it, as the README warns."""
    password = "s3Cr3t-of-ps"
    url = server.url.replace("://", f"://default:{password}@")
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output, "--processor", "sum")
    process = CommandProcess("run", *keys, "-w", "2", env={"REDIS_URL": url})
    try:
        await wait_until(lambda: process.log.count(" -> ") >= 2 or not process.alive)
        shown = subprocess.run(["ps", "-A", "-ww", "-o", "args="], capture_output=True, text=True, check=True).stdout
        assert queue.keys.waiting in shown
        assert password not in shown
        assert password not in process.log
    finally:
        process.process.terminate()
        await process.ended()
        process.close()


@pytest.mark.parametrize(
    "arguments", [["dead", "requeue", "\x1b[2J\u202e"], ["\x1b[2J"], ["peek", "--\x9b\n12:00 forged"]]
)
def test_a_wrong_argument_is_shown_without_what_a_terminal_obeys(arguments: list[str]) -> None:
    """A script may pass on what others wrote."""
    ended = subprocess.run(
        [sys.executable, "-m", "redis_worker", *arguments],
        env=os.environ | {"PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ended.stderr), ended.stderr
    assert not re.search("^12:00", ended.stderr, re.MULTILINE)
