"""Ids, reasons and errors are written by anybody: they forge no line, and a terminal obeys nothing in them."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_worker.broker.operator.supervisors import SupervisorStatus
from redis_worker.cli.logs import configure
from redis_worker.embedded import EmbeddedServer
from redis_worker.environment import environment_and_file, url_of
from redis_worker.vocabulary.errors import ConfigurationError
from tests.support import PATIENCE, ROOT, CommandProcess, Queue, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]

EVIL = "t\n12:00:00.000 error: forged\r\x1b[31m\x9b2J\x7f\u202egnp\u2028\t\ufeff日本"
SHOWN = r"t\n12:00:00.000 error: forged\r\u001b[31m\u009b2J\u007f\u202egnp\u2028\t\ufeff日本"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def harmless(text: str) -> None:
    assert not OBEYED.search(text), repr(text)
    assert not re.search(r"^(12:00|error)", text, re.MULTILINE), text


@pytest.fixture
def command(server: EmbeddedServer) -> Callable[..., str]:
    """What a command says, all in all."""

    def run(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "redis_worker", *arguments, "--url", server.url],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        return (ended.stdout + ended.stderr).decode()

    return run


FILE = """
[redis]
url = "{url}"
[pools.p]
input = "{queue.keys.waiting}"
output = "{queue.keys.output}"
processor = "tests.process_tasks:refuse"
processes = 1
"""


@pytest.mark.parametrize("form", ["thread", "process", "part"])
async def test_a_log_of_lines_is_not_forged(
    queue: Queue, server: EmbeddedServer, worker: Start, tmp_path: Path, form: str
) -> None:
    if form == "part":
        (tmp_path / "workers.toml").write_text(FILE.format(url=server.url, queue=queue))
        process: CommandProcess = CommandProcess("serve", str(tmp_path / "workers.toml"), "-v")
    else:
        process = worker("-v", "--execution", form, processor="tests.process_tasks:refuse")
    try:
        await queue.push({"id": EVIL, "task": [EVIL]}, {"id": "nothing to refuse", "task": []}, EVIL.encode())
        await wait_until(lambda: queue.answered(2))
        await wait_until(queue.dead)
        await wait_until(lambda: process.log.count(SHOWN) >= 2)
        process.signal(signal.SIGTERM)
        assert await process.ended() == 0
        harmless(process.log)
        assert f"task {SHOWN} failed" in process.log
    finally:
        process.close()


async def test_a_log_of_json_says_it_as_it_is(queue: Queue, worker: Start) -> None:
    process = worker("--log-format", "json", processor="tests.process_tasks:refuse")
    await queue.push({"id": EVIL, "task": [EVIL]})
    await wait_until(lambda: queue.answered(1))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    harmless(process.log)
    lines = [json.loads(line) for line in process.log.splitlines()]
    (line,) = [line for line in lines if "task" in line]
    assert line["task"] == EVIL
    assert EVIL in line["message"]


def test_users_have_their_lines_and_tracebacks(capfd: pytest.CaptureFixture[str]) -> None:
    """Records of others are taken as they come; lines after the first are indented, and so are no records."""
    root, handlers, level = logging.getLogger(), logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure("info", "text")
        try:
            raise ValueError(EVIL)
        except ValueError:
            logging.getLogger("theirs").exception(f"two\nlines and {EVIL}")
        logging.getLogger("theirs").warning("%(name)s: %(count)05.1f %%", {"name": EVIL, "count": 2})
        logging.getLogger("theirs").warning("%r, %s, %s", EVIL, ValueError(EVIL), None)
        configure("info", "json")
        logging.getLogger("theirs").warning("big", extra={"number": 2**70, "file": "\udcff"})
    finally:
        root.handlers[:], root.level = handlers, level
    said = capfd.readouterr().err
    harmless(said)
    assert "two\n  lines and t\n  12:00:00.000 error: forged" in said
    assert "\n  Traceback (most recent call last):\n" in said
    assert f"warning: {SHOWN}: 002.0 %\n" in said
    assert f", {SHOWN}, None\n" in said
    assert json.loads(said.splitlines()[-1])["number"] == 2**70


@pytest.mark.long  # tests/fuzz runs the commands in one process
async def test_what_commands_show_is_harmless(
    queue: Queue, server: EmbeddedServer, worker: Start, command: Callable[..., str]
) -> None:
    at = ("--input", queue.keys.waiting)
    pretty = b'{"id": 0,\r\n\t"task": ["\xc2\x9b"]}'
    await queue.push(pretty)
    assert json.loads(command("peek", *at).splitlines()[0]) == json.loads(pretty)
    await queue.redis.delete(queue.keys.waiting)
    await queue.push({"id": EVIL, "task": [EVIL]}, {"id": 1, "task": [1], "pad": "\u202e\x9b"}, EVIL.encode())
    assert SHOWN.removeprefix("t") in command("peek", *at)
    harmless(command("peek", *at))
    process = worker("--max-deliveries", "1", processor="tests.process_tasks:refuse")
    await wait_until(lambda: queue.answered(2))
    await wait_until(queue.dead)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0
    letter = json.dumps(
        {"raw": "x", "id": EVIL, "reason": EVIL, "attempts": 1, "at": 0, "worker": "w"}, ensure_ascii=False
    )
    await queue.redis.rpush(queue.keys.dead, letter)
    out = ("--output", queue.keys.output)
    for arguments in (
        ("dead", "list", *at),
        ("dead", "show", *at),
        ("result", *out, EVIL),
        ("result", *out, f"{EVIL}, not there"),
        ("push", *at, "--id", EVIL, "1"),
        ("peek", *at),
        ("purge", *at, "--yes"),
    ):
        harmless(command(*arguments))
    assert SHOWN in command("dead", "list", *at)
    (shown,) = [line for line in command("dead", "show", *at).splitlines() if '"x"' in line]
    assert json.loads(shown) == json.loads(letter)  # escaped as JSON escapes it
    assert json.loads(command("result", *out, EVIL))["id"] == EVIL


async def test_the_status_of_evil_parts_and_queues_is_harmless(
    queue: Queue, server: EmbeddedServer, command: Callable[..., str]
) -> None:
    told = {
        "name": EVIL, "host": EVIL, "pid": 1, "version": "1", "at": time.time(), "beat": 10,
        "parts": [{"name": EVIL, "kind": "daemon", "state": EVIL, "restarts": 0, "error": EVIL}],
    }  # fmt: skip
    await queue.redis.hset("{redis_worker}:supervisors", EVIL, json.dumps(told))
    await queue.redis.sadd("{redis_worker}:queues", EVIL)
    try:
        for form in ((), ("--json",)):
            harmless(command("status", *form))
        harmless(command("doctor"))
    finally:
        await queue.redis.delete("{redis_worker}:supervisors", "{redis_worker}:queues")
    assert SupervisorStatus  # what reads it


@pytest.mark.parametrize(
    ("written", "password"),
    [
        (r"'a${HOME}b'", "a${HOME}b"),
        (r"'#a #b # c'  # a comment", "#a #b # c"),
        (r"'it\'s \n'", r"it's \n"),
        (r"'${'", "${"),
        (r"a#b", "a#b"),
        (r"#ab", "#ab"),
        (r"p${OTHER}", "pother"),
        (r'"p${OTHER}"', "pother"),
        (r'"p${NONE:-default}"', "pdefault"),
        (r"a$b$", "a$b$"),
        ("' '", " "),
        ("'日本'", "日本"),
        ("p #comment", "p"),
        ("'${OTHER}'\nREDIS_PASSWORD=${REDIS_PASSWORD}", "${OTHER}"),
    ],
)
def test_every_password_can_be_written_in_env(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, password: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for export in ("", "export "):
        text = f"# it's a comment\nOTHER='other'\n\n{export}REDIS_PASSWORD={written}\nAFTER=1\n"
        Path(".env").write_text(text, encoding="utf-8")
        found = environment_and_file({})
        assert (found["REDIS_PASSWORD"], found["AFTER"]) == (password, "1")
    assert url_of(found).startswith("redis://:")


def test_a_line_of_env_that_is_wrong_is_named_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("A=1\n\n# a comment\nREDIS_PASSWORD='secret\nB=2\n")
    assert environment_and_file({}) == {"A": "1", "B": "2"}
    assert "line 4" in caplog.text
    assert "secret" not in caplog.text
    Path(".env").write_bytes(b"A=\xff\n")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        environment_and_file({})
    assert os.getcwd() == str(tmp_path)
