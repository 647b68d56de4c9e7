"""Standard streams that are closed, and that cannot show everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, Queue

Command = Callable[..., subprocess.CompletedProcess[bytes]]

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]
# All at once in each run; each of them alone in the long one.
SOME_CLOSED = [form if form == CLOSED[-1] else pytest.param(form, marks=pytest.mark.long) for form in CLOSED]
LATIN = {"PYTHONIOENCODING": "latin-1"}
ASCII = {"PYTHONIOENCODING": "ascii:strict"}
PLAIN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


def command(*arguments: str | bytes, closed: str = "", **env: str) -> subprocess.CompletedProcess[bytes]:
    """What a command says; nothing of what is `closed`."""
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"] if closed else []
    return subprocess.run(
        [*shell, sys.executable, "-W", "error", "-m", "redis_worker", *arguments],
        cwd=ROOT,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def sound(ended: subprocess.CompletedProcess[bytes]) -> None:
    said = ended.stdout + ended.stderr
    assert b"Traceback" not in said, said.decode(errors="replace")
    assert b"defect" not in said, said.decode(errors="replace")
    assert ended.returncode in (0, 1, 2, 3), said.decode(errors="replace")


@pytest.mark.parametrize("closed", SOME_CLOSED)
@pytest.mark.parametrize("form", [[], ["-w", "2"], ["--execution", "process"]])
async def test_a_worker_whose_streams_are_closed(
    queue: Queue, server: EmbeddedServer, closed: str, form: list[str]
) -> None:
    await queue.push_tasks([[1, 2]] * 10)
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    processor = "tests.process_tasks:add" if "process" in form else "sum"
    ended = command("run", "--url", server.url, *keys, "--processor", processor, "--burst", *form, closed=closed)
    assert ended.returncode == 0, ended.stderr
    assert {result["result"] for result in (await queue.results()).values()} == {3}
    assert len(await queue.results()) == 10


FILE = """
[redis]
url = "{url}"
[daemons.d]
run = "tests.process_tasks:writes"
arguments = {{ path = "{path}" }}
processes = 1
restart = "never"
"""


@pytest.mark.parametrize("closed", SOME_CLOSED)
async def test_a_part_in_a_process_of_its_own_whose_streams_are_closed(
    server: EmbeddedServer, tmp_path: Path, closed: str
) -> None:
    (tmp_path / "workers.toml").write_text(FILE.format(url=server.url, path=tmp_path / "mark"))
    ended = command("serve", str(tmp_path / "workers.toml"), closed=closed)
    sound(ended)
    assert (tmp_path / "mark").read_text() == "done"


@pytest.mark.parametrize("closed", SOME_CLOSED)
async def test_commands_whose_streams_are_closed(queue: Queue, server: EmbeddedServer, closed: str) -> None:
    at = ("--url", server.url)
    on = (*at, "--input", queue.keys.waiting)
    assert command("push", *on, "[1]", closed=closed).returncode == 0
    assert len(await queue.waiting()) == 1
    for arguments, code in (
        (("status", *at), 0),
        (("peek", *on), 0),
        (("purge", *on), 2),
        (("dead", "list", *on), 0),
        (("result", *at, "--output", queue.keys.output, "none"), 1),
        (("run", "--nonsense"), 2),
        (("check", "no-file"), 2),
    ):
        ended = command(*arguments, closed=closed)
        sound(ended)
        assert ended.returncode == code, (arguments, ended.stderr)


@pytest.mark.parametrize(
    "env",
    [LATIN, pytest.param(ASCII, marks=pytest.mark.long), pytest.param(PLAIN_C, marks=pytest.mark.long)],
    ids=["latin-1", "ascii", "C"],
)
async def test_what_a_stream_cannot_show_is_escaped(
    queue: Queue, server: EmbeddedServer, tmp_path: Path, env: dict[str, str]
) -> None:
    at = ("--url", server.url)
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    await queue.push({"id": "日本", "task": "x"}, "日".encode(), {"id": "é", "task": [1]})
    (tmp_path / "日本.toml").write_text('[redis]\nurl = "日本"\n', encoding="utf-8")
    for arguments in (
        ("peek", *at, *keys[:2]),
        ("run", *at, *keys, "--processor", "sum", "--burst"),
        ("dead", "list", *at, *keys[:2]),
        ("dead", "show", *at, *keys[:2]),
        ("result", *at, *keys[2:], "日本", "é", "fehlt"),
        ("status", *at, "--input", "日本"),
        ("status", *at, "--input", "日本", "--json"),
        ("doctor", *at, "--input", "日本"),
        ("pause", *at, "--input", "日本"),
        ("resume", *at, "--input", "日本"),
        ("check", str(tmp_path / "日本.toml")),
        ("run", *at, *keys, "--processor", "日本"),
        ("push", *at, *keys[:2], "日本"),
    ):
        sound(command(*arguments, **env))
    shown = command("status", *at, "--input", "日本", **env)
    assert shown.returncode == 0
    assert "日本".encode() in shown.stdout or rb"\u65e5\u672c" in shown.stdout
    assert json.loads(command("status", *at, "--input", "日本", "--json", **env).stdout)["queues"][0]["name"] == "日本"
    await queue.redis.delete(queue.keys.waiting)


async def test_files_are_read_as_utf_8_whatever_the_locale_is(queue: Queue, server: EmbeddedServer) -> None:
    """Any file that is opened without an encoding is an error here."""
    await queue.push_tasks([[1]])
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    ended = command(
        *("run", "--url", server.url, *keys, "--processor", "sum", "--burst", "-w", "2"),
        PYTHONWARNDEFAULTENCODING="1",
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("env", [{}, PLAIN_C], ids=["UTF-8", "C"])
def test_env_is_read_whatever_the_locale_is(tmp_path: Path, env: dict[str, str]) -> None:
    def said(text: str) -> str:
        (tmp_path / ".env").write_text(text, encoding="utf-8")
        command = [sys.executable, "-m", "redis_worker", "status"]
        ours = os.environ | env | {"PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, cwd=tmp_path, env=ours, capture_output=True, timeout=PATIENCE, check=False)
        sound(ended)
        return ended.stderr.decode()

    unreachable = "REDIS_PORT=1\nREDIS_WORKER_CONNECT_TIMEOUT=1\n"
    assert "no Redis at redis://" in said(f"REDIS_PASSWORD='日${{本'\n{unreachable}")
    assert "no Redis at redis://" in said(f"REDIS_WORKER_INPUT=日本\n{unreachable}")
    assert "NAME: embedded null byte" in said(f"NAME=a\0b\n{unreachable}")


COMMANDS = [
    ["run", "--input", "?", "--output", "o", "--processor", "sum"],
    ["run", "--input", "i", "--output", "?", "--processor", "sum"],
    ["run", "--input", "i", "--output", "o", "--processor", "?"],
    ["run", "--input", "i", "--output", "o", "--processor", "sum", "--parser", "?"],
    ["run", "--input", "i", "--output", "o", "--processor", "sum", "--url", "redis://?"],
    ["run", "--input", "i", "--output", "o", "--processor", "sum", "--http", "?"],
    ["run", "--input", "i", "--output", "o", "--processor", "sum", "--watch", "?"],
    ["run", "--input", "i", "--output", "o", "--processor", "sum", "--timeout", "?"],
    ["push", "--input", "i", "?"],
    ["push", "--input", "i", "--id", "?", "1"],
    ["push", "--input", "i", "--file", "?"],
    ["push", "--input", "i", "--at", "?", "1"],
    ["push", "--input", "i", "--delay", "?", "1"],
    ["publish", "?", "1"],
    ["publish", "t", "?"],
    ["publish", "t", "--id", "?", "1"],
    ["result", "--output", "o", "?"],
    ["status", "--input", "?"],
    ["status", "?"],
    ["peek", "--input", "?"],
    ["purge", "--input", "?", "--yes"],
    ["pause", "--input", "?"],
    ["resume", "--input", "?"],
    ["dead", "list", "--input", "?"],
    ["dead", "list", "--input", "i", "--id", "?"],
    ["dead", "list", "--input", "i", "--reason", "?"],
    ["dead", "requeue", "--input", "i", "--reason", "?"],
    ["doctor", "--input", "?"],
    ["serve", "?"],
    ["serve", "no-file", "--only", "?"],
    ["check", "?"],
    ["check", "no-file", "--except", "?"],
    ["cron", "run", "?"],
    ["cron", "run", "job", "?"],
    ["cron", "list", "?"],
    ["?"],
    ["--?"],
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_an_argument_that_is_not_utf_8_is_no_defect(server: EmbeddedServer, arguments: list[str]) -> None:
    written = [argument.encode().replace(b"?", b"\xff") for argument in arguments]
    ended = command(*written, REDIS_URL=server.url, **LATIN)
    sound(ended)
    assert ended.returncode in (1, 2) or arguments[:2] == ["dead", "list"], ended.stderr
