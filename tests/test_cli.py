"""The command line: what it takes, what it prints, how it ends."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from redis_worker import Message, TopicWorker, WorkerPool, __version__
from redis_worker.broker.keys import TOPICS
from redis_worker.cli import main as command_line
from redis_worker.cli import pushing
from redis_worker.cli.payloads import Batch, payload, read_batches
from redis_worker.cli.pushing import Pusher, Target
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.counters import Counters
from redis_worker.service.progress import report
from tests.session import free_port
from tests.support import PATIENCE, ROOT, Queue, Topic, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]

COMMAND = (sys.executable, "-W", "error", "-m", "redis_worker")
RUN = ("run", "--input", "in", "--output", "out", "--processor", "sum", "--burst")
# Nobody listens on the lowest ports.
NOWHERE = "redis://127.0.0.1:1"


class Ended(NamedTuple):
    """A command that has come to its end."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """What it has printed, JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ended]]:
    """Runs the command in this process, which is quick, and in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    environment, root, logger = dict(os.environ), logging.getLogger(), logging.getLogger("redis_worker")
    handlers, levels = root.handlers[:], (root.level, logger.level)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as ended:
            command_line.main(arguments)
        assert isinstance(ended.value.code, int)
        return Ended(ended.value.code, *capsys.readouterr())

    yield run
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    logger.setLevel(levels[1])
    os.environ.clear()
    os.environ.update(environment)


@pytest.fixture
def outside(tmp_path: Path) -> Callable[..., Ended]:
    """Runs the command as users do, in a folder of its own."""

    def run(*arguments: str, env: Mapping[str, str] | None = None, input: bytes = b"") -> Ended:
        ended = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=os.environ | dict(env or {}),
            input=input,
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
        return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())

    return run


class Terminal:
    """The command in a terminal of its own, whose Ctrl-C it gets."""

    def __init__(self, *arguments: str, stdout: Any = None) -> None:
        self._terminal, theirs = pty.openpty()
        self._shown = b""
        take = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", take, *COMMAND, *arguments],
            cwd=ROOT,
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)

    @property
    def shown(self) -> str:
        """What has been written to the terminal so far."""
        while select.select([self._terminal], [], [], 0)[0]:
            try:
                self._shown += os.read(self._terminal, 65536)
            except OSError:
                break  # nobody is on the other side any more
        return self._shown.decode()

    def interrupt(self) -> None:
        os.write(self._terminal, b"\x03")

    async def ended(self) -> int:
        await wait_until(lambda: (self.shown, self.process.poll())[1] is not None, "the command to end")
        assert self.shown is not None
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def terminal() -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def start(*arguments: str, stdout: Any = None) -> Terminal:
        opened.append(Terminal(*arguments, stdout=stdout))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


# --- what there is ---


def test_version(outside: Callable[..., Ended]) -> None:
    assert outside("--version") == (0, f"redis-worker {__version__}\n", "")


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from redis_worker.cli.main import cli; cli(['run', '--help'], standalone_mode=False); "
        "print({'redis', 'asyncio', 'orjson', 'uvloop', 'tenacity', 'ssl', 'multiprocessing'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    assert shown.stdout.endswith("\nset()\n"), shown.stdout


@pytest.mark.parametrize("name", [None, *command_line.cli.commands])
def test_every_help_has_an_example(inside: Callable[..., Ended], name: str | None) -> None:
    shown = inside(*([name] if name else []), "--help")
    assert shown.code == 0
    assert re.search(r"Examples?:\n +redis-worker ", shown.out)


@pytest.mark.parametrize("name", [name for name in command_line.cli.commands if name != "demo"])
def test_every_option_can_be_set_in_the_environment(name: str) -> None:
    example = (ROOT / ".env.example").read_text()
    for parameter in command_line.cli.commands[name].params:
        if parameter.param_type_name == "option":
            variable = parameter.envvar if isinstance(parameter.envvar, str) else (parameter.envvar or [""])[0]
            assert variable.startswith("REDIS_WORKER_")
            assert f"\n#{variable}=" in example, f"{variable} is not explained in .env.example"


def test_processors_are_listed(inside: Callable[..., Ended]) -> None:
    shown = inside("processors")
    assert shown.code == 0
    assert [line.split()[0] for line in shown.out.splitlines()][:4] == ["sum", "add100", "fibonacci", "download"]
    assert all(len(line.split()) > 4 for line in shown.out.splitlines())


# --- wrong usage and configuration: exit code 2 ---

PUSH = ("push", "--input", "in", "--url", NOWHERE)
PUBLISH = ("publish", "--url", NOWHERE)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "Usage: "),
        (("rnu",), "No such command 'rnu'"),
        (("run",), "Missing option '--input'"),
        (("run", "--inptu", "x"), "Did you mean '--input'?"),
        ((*RUN, "more"), "--input is not for a queue of functions ('more')"),
        (("run", "--input", "", "--output", "b", "--processor", "sum"), "'--input': it must not be empty"),
        ((*RUN, "--url", ""), "'--url': it must not be empty"),
        ((*RUN, "--http", "localhost"), "'--http': HTTP listens on HOST:PORT, as 127.0.0.1:8084"),
        ((*RUN, "--input", "out"), "the input list and the output hash are both named 'out'"),
        ((*RUN, "--input", "\udcff"), "'\\udcff' is not UTF-8"),
        ((*RUN, "--processor", "sums"), "unknown processor 'sums': did you mean sum?"),
        ((*RUN, "--parser", "lst"), "unknown parser 'lst': did you mean list?"),
        ((*RUN, "--processor", "json:laods"), "module json has no function 'laods'; did you mean loads?"),
        ((*RUN, "--timeout", "3"), "an inline call cannot be interrupted"),
        ((*RUN, "--timeout", "0"), "0.0 is not in the range x>0"),
        ((*RUN, "--lease", "nan"), "'nan' is not a number of seconds"),
        ((*RUN, "--lease", "1"), "1.0 is not in the range x>=2"),
        ((*RUN, "--concurrency", "many"), "'many' is not a valid integer"),
        ((*RUN, "--watch", "nowhere"), "'nowhere' does not exist"),
        ((*RUN, "--embedded", "--url", NOWHERE), "--embedded starts a temporary server: use it without --url"),
        ((*RUN, "--url", "http://u:hush@host"), "must begin with one of redis://"),
        ((*RUN, "--url", "redis://u:hush@host:port"), "'redis://u:***@***' is not valid"),
        ((*RUN, "--url", "redis+sentinel://u:hush@host"), "name the sentinel service"),
        (("push", "--url", "localhost", "--input", "in", "1"), "must begin with one of redis://"),
        (("result", "--url", "localhost", "--output", "out", "1"), "must begin with one of redis://"),
        (("result", "--output", "out"), "Missing argument 'ID...'"),
        (PUSH, "give tasks either as arguments or in a file"),
        ((*PUSH, "1", "--file", "tasks"), "give tasks either as arguments or in a file"),
        ((*PUSH, "1", "--wait"), "--wait needs --output KEY, the hash of results"),
        ((*PUSH, "1", "2", "--id", "a"), "--id needs exactly one task"),
        ((*PUSH, "1", "--id", ""), "'--id': it must not be empty"),
        ((*PUSH, "1", "--delay", "-1"), "'--delay': -1.0 is not in the range"),
        ((*PUSH, "1", "--delay", "99999999999d"), "'--delay': 8639999999913600.0 seconds is too long"),
        ((*PUSH, "1", "--at", "noon"), "'--at': 'noon' is not a time in the form 2026-12-01T09:00:00+08:00"),
        ((*PUSH, "1", "--at", "0001-01-01"), "'--at': '0001-01-01' is"),
        ((*PUSH, "1", "--at", "1960-01-01T00:00Z"), "'--at': '1960-01-01T00:00Z' is before 1970"),
        ((*PUSH, "1", "--delay", "1", "--at", "2030-01-01"), "--left, --delay and --at exclude each other"),
        ((*PUSH, "--file", "absent"), "cannot read absent: No such file or directory"),
        ((*PUSH, "--file", "."), "cannot read .: Is a directory"),
        ((*PUSH, "[1]", "[30"), "task 2 ([30): not JSON: unexpected end of data, at character 4"),
        ((*PUSH, "hello"), """task 1 (hello): not JSON: unexpected character, expected a JSON value, at character 1"""),
        ((*PUSH, "hello"), """a JSON text needs quotes: '"text"'"""),
        ((*PUSH, " "), "task 1 ( ): empty, not a JSON value"),
        ((*PUSH, "NaN"), "task 1 (NaN): not JSON"),
        ((*PUSH, '{"id":true,"task":1}'), "the id is a boolean, not a string or an integer"),
        ((*PUSH, '{"id":8,"task":1}', "--id", "7"), "the payload has the id 8, but --id is '7'"),
        (PUBLISH, "Missing argument 'TOPIC'"),
        ((*PUBLISH, "", "1"), "'TOPIC': it must not be empty"),
        ((*PUBLISH, "\udcff", "1"), "'\\udcff' is not UTF-8"),
        ((*PUBLISH, "order.*", "1"), "'order.*' is not a valid topic: a topic has no spaces, braces, brackets, * or ?"),
        ((*PUBLISH, "t"), "give data either as arguments or in a file with --file PATH"),
        ((*PUBLISH, "t", "1", "--file", "tasks"), "give data either as arguments or in a file with --file PATH"),
        ((*PUBLISH, "t", "1", "2", "--id", "a"), "--id needs exactly one message"),
        ((*PUBLISH, "t", "--file", "x", "--id", "a"), "--id needs exactly one message"),
        ((*PUBLISH, "t", "1", "--delay", "1", "--at", "2030-01-01"), "--delay and --at exclude each other"),
        ((*PUBLISH, "t", "1", "--delay", "-1"), "'--delay': -1.0 is not in the range"),
        ((*PUBLISH, "t", "1", "--delay", "soon"), "'--delay': 'soon' is not a valid float"),
        ((*PUBLISH, "t", "1", "--at", "noon"), "'--at': 'noon' is not a time in the form 2026-12-01T09:00:00+08:00"),
        ((*PUBLISH, "t", "[1]", "[30"), "message 2 ([30): not JSON: unexpected end of data, at character 4"),
        ((*PUBLISH, "t", "1e999"), "message 1 (1e999): not JSON"),
    ],
)
def test_wrong_usage(inside: Callable[..., Ended], arguments: tuple[str, ...], expected: str) -> None:
    ended = inside(*arguments)
    assert ended.code == 2, ended.err
    assert expected in ended.err
    assert "Traceback" not in ended.err
    assert "hush" not in ended.err
    if arguments:
        assert ended.err.count("Error: ") == 1
    assert ended.out == ""


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        (
            "raise RuntimeError('no luck')",
            (),
            "module t_mine fails on import at {folder}/t_mine.py:1: RuntimeError: no l",
        ),
        ("work = lambda a: a", ("--execution", "process"), "define it at the top level of a module"),
        ("async def work(a): ...", ("--execution", "thread"), "a coroutine function cannot run as thread"),
    ],
)
def test_a_processor_that_cannot_be_used(
    server: EmbeddedServer,
    outside: Callable[..., Ended],
    tmp_path: Path,
    module: str,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    (tmp_path / "t_mine.py").write_text(module)
    ended = outside(*RUN, "--processor", "t_mine:work", "--url", server.url, *arguments)
    assert ended.code == 2
    assert ended.err.startswith("Error: ")
    assert expected.format(folder=tmp_path) in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_defect_is_one_line_too(inside: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("nobody has thought of this")

    monkeypatch.setattr("redis_worker.cli.run.redis_url", fail)
    ended = inside(*RUN)
    assert ended.code == 1
    assert ended.err.startswith("Error: this is a defect of redis-worker, please report it: ZeroDivisionError: nobody")
    assert len(ended.err.splitlines()) == 1
    assert "Traceback" in inside(*RUN, "-v").err


# --- where settings come from ---


@pytest.mark.parametrize(
    ("option", "environment", "file", "expected"),
    [
        (None, {}, {}, "redis://localhost:6379/0"),
        (None, {}, {"REDIS_URL": "redis://file:1"}, "redis://file:1"),
        (None, {}, {"REDIS_WORKER_URL": "redis://mine:1", "REDIS_URL": "redis://file:1"}, "redis://mine:1"),
        (None, {"REDIS_URL": "redis://env:1"}, {"REDIS_URL": "redis://file:1"}, "redis://env:1"),
        (None, {"REDIS_URL": "redis://env:1"}, {"REDIS_WORKER_URL": "redis://file:1"}, "redis://env:1"),
        (None, {"REDIS_URL": "redis://env:1"}, {"REDIS_HOST": "file"}, "redis://env:1"),
        (None, {"REDIS_HOST": "env"}, {"REDIS_URL": "redis://file:1", "REDIS_PORT": "7"}, "redis://env:7/0"),
        (None, {"REDIS_URL": ""}, {"REDIS_URL": "redis://file:1", "REDIS_HOST": "file"}, "redis://file:6379/0"),
        ("redis://option:1", {"REDIS_WORKER_URL": "redis://env:1", "REDIS_PORT": "x"}, {}, "redis://option:1"),
        (None, {"REDIS_HOST": "h", "REDIS_PORT": "7", "REDIS_DB": "3", "REDIS_TLS": "yes"}, {}, "rediss://h:7/3"),
        (None, {"REDIS_HOST": "::1", "REDIS_PASSWORD": ""}, {}, "redis://[::1]:6379/0"),
        (None, {"REDIS_HOST": "h", "REDIS_PASSWORD": "a/b@c#d:é"}, {}, "redis://:a%2Fb%40c%23d%3A%C3%A9@h:6379/0"),
        (None, {"REDIS_HOST": "h", "REDIS_USERNAME": "me", "REDIS_PASSWORD": "x"}, {}, "redis://me:x@h:6379/0"),
    ],
)
def test_the_address_of_redis(
    inside: Callable[..., Ended],
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    environment: dict[str, str],
    file: dict[str, str],
    expected: str,
) -> None:
    for name in ("URL", "HOST", "PORT", "PASSWORD", "USERNAME", "DB", "TLS"):
        monkeypatch.delenv(f"REDIS_{name}", raising=False)
    os.environ.update(environment)
    Path(".env").write_text("".join(f"{name}={value}\n" for name, value in file.items()))
    used: list[str] = []
    monkeypatch.setattr("redis_worker.cli.serving.work", lambda url, *_: used.append(url) or 0)
    assert inside(*RUN, *(("--url", option) if option else ())).code == 0
    assert used == [expected]


def test_option_before_environment_before_file(inside: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[dict[str, Any]] = []
    monkeypatch.setattr("redis_worker.cli.serving.work", lambda url, given, *_: settings.append(given) or 0)
    names = ("INPUT=file", "OUTPUT=file", "PROCESSOR=file", "CONCURRENCY=1", "BURST=true", "LEASE=5")
    Path(".env").write_bytes(b"\xef\xbb\xbf" + "".join(f"REDIS_WORKER_{name}\r\n" for name in names).encode())
    os.environ |= {"REDIS_WORKER_OUTPUT": "env", "REDIS_WORKER_CONCURRENCY": "2", "REDIS_WORKER_BURST": "no"}
    assert inside("run", "-c", "3").code == 0
    used = settings[0]
    assert (used["input_key"], used["output_key"], used["processor"]) == ("file", "env", "file")
    assert (used["concurrency"], used["burst"], used["lease"]) == (3, False, 5.0)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"REDIS_PORT": "tcp://10.0.0.1:6379"},
            "REDIS_PORT must be a whole number up to 65535, but is not; set it, or",
        ),
        ({"REDIS_PORT": "-1"}, "REDIS_PORT must be a whole number"),
        ({"REDIS_PORT": "99999"}, "REDIS_PORT must be a whole number up to 65535"),
        ({"REDIS_DB": "first"}, "REDIS_DB must be a whole number"),
        ({"REDIS_TLS": "maybe"}, "REDIS_TLS must be true or false"),
        ({"REDIS_HOST": "localhost:6379"}, "a port goes to REDIS_PORT"),
        ({"REDIS_HOST": "redis://localhost"}, "a URL to REDIS_URL"),
        ({"REDIS_WORKER_CONCURRENCY": "many"}, "REDIS_WORKER_CONCURRENCY in the environment or in .env: Invalid value"),
        ({"REDIS_WORKER_VERBOSE": "perhaps"}, "REDIS_WORKER_VERBOSE in the environment or in .env: Invalid value"),
    ],
)
def test_wrong_settings(inside: Callable[..., Ended], environment: dict[str, str], expected: str) -> None:
    os.environ |= environment
    ended = inside(*RUN)
    assert ended.code == 2
    assert expected in ended.err


def test_an_unreadable_env_file(inside: Callable[..., Ended], tmp_path: Path) -> None:
    Path(".env").write_bytes(b"\xff\xfeR\0E\0")
    ended = inside("--version")
    assert ended.code == 2
    assert f".env in {tmp_path} cannot be read: " in ended.err


def test_a_url_goes_before_embedded_in_the_environment(
    inside: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    monkeypatch.setattr("redis_worker.cli.serving.work", lambda url, *_: used.append(url) or 0)
    os.environ["REDIS_WORKER_EMBEDDED"] = "1"
    assert inside(*RUN, "--url", NOWHERE).code == 0
    assert used == [NOWHERE]


# --- Redis unreachable or refusing: exit code 3 ---


@pytest.mark.parametrize(
    "arguments",
    [
        (*RUN, "--connect-timeout", "0.1"),
        (*RUN, "--connect-timeout", "0.1", "-w", "2"),
        ("push", "--input", "in", "1"),
        ("publish", "order.created", "1"),
        ("result", "--output", "out", "1"),
    ],
)
def test_nobody_there(outside: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = outside(*arguments, env={"REDIS_URL": "redis://me:hush@127.0.0.1:1/0"})
    assert ended.code == 3
    said = ended.err.splitlines()[-1]
    assert "no Redis at redis://me:***@127.0.0.1:1/0" in said
    assert "is it running, and is the address right?" in said
    assert ended.err.count("Error: ") == 1
    assert "hush" not in ended.err
    assert "Traceback" not in ended.err


async def test_a_server_is_waited_for(server: EmbeddedServer, tmp_path: Path) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:
        command = [*COMMAND, *RUN, "--url", f"redis://127.0.0.1:{port}", "--connect-timeout", "0"]
        process = subprocess.Popen(command, cwd=tmp_path)
        listener.settimeout(PATIENCE)
        listener.accept()[0].close()
    try:
        with EmbeddedServer(server.binary, port=port):
            await wait_until(lambda: process.poll() is not None)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0


@pytest.mark.parametrize("size", ["1", "2"])
async def test_ctrl_c_ends_the_wait_for_a_server(terminal: Callable[..., Terminal], size: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        started = terminal(*RUN, "--url", url, "--connect-timeout", "0", "-w", size)
        with silent.accept()[0]:
            started.interrupt()
            assert await started.ended() == 0
    assert "stopping: work has not begun" in started.shown
    assert "Traceback" not in started.shown


@pytest.fixture(scope="module")
def locked(server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """A server that asks for a password."""
    with EmbeddedServer(server.binary, options=("--requirepass", "secret")) as running:
        yield running


@pytest.mark.parametrize("arguments", [RUN, ("push", "--input", "in", "1"), ("result", "--output", "out", "1")])
def test_a_wrong_password(locked: EmbeddedServer, outside: Callable[..., Ended], arguments: tuple[str, ...]) -> None:
    ended = outside(*arguments, env={"REDIS_PORT": str(locked.port), "REDIS_PASSWORD": "hush"})
    assert ended.code == 3
    assert "Redis refuses the login: " in ended.err
    assert "check the user name and password" in ended.err
    assert "hush" not in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_right_password(locked: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    env = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(locked.port), "REDIS_PASSWORD": "secret"}
    ended = outside(*RUN, env=env)
    assert ended.code == 0, ended.err
    assert f"sum on redis://:***@127.0.0.1:{locked.port}/0: in -> out" in ended.err
    assert "secret" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((*RUN, "--input", "{key}"), "the input key '{key}' holds a string, not a list"),
        ((*RUN, "--output", "{key}"), "the output key '{key}' holds a string, not a hash"),
        ((*RUN, "--input", "{key}", "-w", "2"), "the input key '{key}' holds a string, not a list"),
        (("push", "--input", "{key}", "1"), "cannot push to '{key}': a key holds another type"),
        (("push", "--input", "in", "--output", "{key}", "1", "--wait"), "cannot wait for results in '{key}'"),
        (("result", "--output", "{key}", "1"), "cannot read results from '{key}'"),
        (("result", "--output", "{key}", "1", "--wait", "60"), "cannot read results from '{key}'"),
    ],
)
async def test_keys_of_the_wrong_type(
    queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended], arguments: tuple[str, ...], expected: str
) -> None:
    key = queue.keys.waiting
    await queue.redis.set(key, "text")
    ended = outside(*(argument.format(key=key) for argument in arguments), "--url", server.url)
    assert ended.code == 3
    assert expected.format(key=key) in ended.err
    assert ended.err.count("Error: ") == 1
    assert "Traceback" not in ended.err


async def test_a_wrong_type_that_comes_later_is_a_failure(queue: Queue, worker: Start) -> None:
    process = await worker().started()
    await queue.redis.set(queue.keys.output, "text")
    await queue.push({"id": 1, "task": [1]})
    assert await process.ended() == 1
    assert "Error: a key holds another type than it should" in process.log
    assert "Traceback" not in process.log
    await queue.redis.delete(queue.keys.output)


# --- run: what it says ---


async def test_a_line_for_each_task_and_json(queue: Queue, worker: Start) -> None:
    await queue.push({"id": 7, "task": [1, 2]}, {"id": "b", "task": [1, "x"]})
    process = worker("--burst", "-v", "--log-format", "json")
    assert await process.ended() == 0
    lines = [json.loads(line) for line in process.log.splitlines()]
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)
    tasks = {line["task"]: line for line in lines if "task" in line}
    assert tasks["7"]["outcome"] == "succeeded"
    assert tasks["7"]["duration"] >= 0
    assert tasks["7"]["level"] == "debug"
    assert tasks["b"]["outcome"] == "failed"
    assert "should be a number" in tasks["b"]["message"]
    assert f"{queue.keys.waiting} -> {queue.keys.output}, 4 at once, inline" in lines[0]["message"]
    assert lines[-1]["message"].startswith("ended: 2 processed, 1 failed, ")
    assert (lines[-1]["processed"], lines[-1]["failed"]) == (2, 1)


async def test_no_line_for_each_task(queue: Queue, worker: Start) -> None:
    await queue.push_tasks([[n] for n in range(5)])
    process = worker("--max-tasks", "3")
    assert await process.ended() == 0
    lines = process.log.splitlines()
    assert " sum on redis://" in lines[0]
    assert " ended: 3 processed, 0 failed, " in lines[-1]
    assert " task " not in process.log
    assert len(await queue.waiting()) == 2


def test_errors_are_json_lines_too(outside: Callable[..., Ended]) -> None:
    ended = outside(*RUN, "--log-format", "json", "--log-level", "error", "--url", NOWHERE, "--connect-timeout", "0.1")
    assert ended.code == 3
    line = json.loads(ended.err)
    assert line["level"] == "error"
    assert line["message"].startswith("no Redis at ")


async def test_counts_and_rate_while_there_is_work(caplog: pytest.LogCaptureFixture) -> None:
    class Pool:
        counters = Counters()
        running = 0

    pool = Pool()
    caplog.set_level("INFO", "redis_worker")
    reporting = asyncio.create_task(report(pool, 0.01))  # type: ignore[arg-type]
    try:
        await asyncio.sleep(0.1)
        assert caplog.messages == []  # nothing to do, nothing to say
        pool.counters.succeeded, pool.counters.failed = 4, 1
        await wait_until(lambda: caplog.messages)
        assert caplog.messages == ["5 processed (500/s), 1 failed, 0 running"]
        pool.running = 2
        await wait_until(lambda: len(caplog.messages) > 2)
        assert caplog.messages[1] == "5 processed (0/s), 1 failed, 2 running"
    finally:
        reporting.cancel()


async def test_ctrl_c_reaches_each_worker_of_a_fleet_once(
    queue: Queue, server: EmbeddedServer, terminal: Callable[..., Terminal], tmp_path: Path
) -> None:
    await queue.push_tasks([[str(tmp_path)]] * 2)
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    started = terminal("run", "--url", server.url, *keys, "--processor", "tests.processors:gate", "-w", "2", "-c", "1")
    await wait_until(lambda: (tmp_path / "running").exists() and len((tmp_path / "running").read_text().split()) == 2)
    started.interrupt()
    await wait_until(lambda: started.shown.count("stopping: 1 task is running; once more to cancel") == 2)
    (tmp_path / "open").touch()
    assert await started.ended() == 0, started.shown
    assert started.shown.count("] stopping") == 2, started.shown
    assert "cancelling" not in started.shown
    assert started.shown.count("ended: 1 processed, 0 failed") == 2


# --- push ---


@pytest.mark.parametrize(
    ("text", "id", "expected"),
    [
        ("[30]", "a", '{"id":"a","task":[30],"emit_ts":'),
        (" [ 30 ] ", "a", '{"id":"a","task":[ 30 ],"emit_ts":'),
        ("null", "a", '{"id":"a","task":null,"emit_ts":'),
        ('{"n":1}', "a", '{"id":"a","task":{"n":1},"emit_ts":'),
        ("123456789012345678901234567890", 'q"é', '{"id":"q\\"é","task":123456789012345678901234567890,"emit_ts":'),
        ("1.234567890123456789", "a", '{"id":"a","task":1.234567890123456789,"emit_ts":'),
        ('{"id": 0, "task": null, "more": 1.50}', None, '{"id": 0, "task": null, "more": 1.50}'),
        ('{"id":7,"task":1}', "7", '{"id":7,"task":1}'),
        ('{"id":null,"task":[12345678901234567890123]}', "a", '{"id":"a","task":[12345678901234567890123]}'),
        ('{"task":1,"more":2}', "a", '{"task":1,"more":2,"id":"a"}'),
    ],
)
def test_payloads(text: str, id: str | None, expected: str) -> None:
    made = payload(text.encode(), id)
    assert made.raw.decode().startswith(expected)
    assert made.id == str(json.loads(made.raw)["id"])


async def test_push_prints_the_ids(queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    push = ("push", "--url", server.url, "--input", queue.keys.waiting)
    long = 2**70
    first = outside(*push, "[1]", f'{{"id":{long},"task":[{long}]}}', "--", "-5")
    assert first.code == 0, first.err
    ids = first.out.splitlines()
    assert outside(*push, "--left", "--id", "mine", "[2]") == (0, "mine\n", "")
    pushed = [json.loads(raw) for raw in await queue.waiting()]
    assert [str(task["id"]) for task in pushed] == ["mine", *ids]
    assert [task["task"] for task in pushed] == [[2], [1], [long], -5]
    assert len(set(ids)) == 3


FILE = b'\xef\xbb\xbf[1]\r\n\r\n   \n{"id":"a","task":[2]}\r\n\n[3]'


@pytest.mark.parametrize("source", ["file", "standard input"])
async def test_push_a_file(
    queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended], tmp_path: Path, source: str
) -> None:
    (tmp_path / "tasks.jsonl").write_bytes(FILE)
    path = "tasks.jsonl" if source == "file" else "-"
    push = ("push", "--url", server.url, "--input", queue.keys.waiting, "--file", path)
    ended = outside(*push, input=FILE)
    assert ended.code == 0, ended.err
    pushed = [json.loads(raw) for raw in await queue.waiting()]
    assert [task["task"] for task in pushed] == [[1], [2], [3]]
    assert [task["id"] for task in pushed] == ended.out.split()
    (tmp_path / "tasks.jsonl").write_bytes(b"")
    assert outside(*push, input=b"") == (0, "", "")


@pytest.mark.parametrize("before", [0, 1, 16, 20_000])
async def test_nothing_after_a_bad_line_is_pushed(
    queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended], tmp_path: Path, before: int
) -> None:
    (tmp_path / "tasks").write_text("[1]\n" * before + "[1\n" + "[1]\n" * 20_000)
    ended = outside("push", "--url", server.url, "--input", queue.keys.waiting, "--file", "tasks")
    assert ended.code == 1
    assert f"Error: tasks:{before + 1}: not JSON: unexpected end of data, at character 3; " in ended.err
    so_far = {0: "nothing was pushed", 1: "1 task was pushed, and nothing after it"}
    assert so_far.get(before, f"{before} tasks were pushed, and nothing after it") in ended.err
    assert len(await queue.waiting()) == len(ended.out.splitlines()) == before


def test_a_file_is_read_as_it_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text("[1]\n" * 100_000)
    with open(path, "rb", buffering=0) as file:
        batches = read_batches(file, "tasks")
        first = next(batches)
        assert first.size == file.tell() <= 1 << 16
        rest = list(batches)
    assert len(first.payloads) + sum(len(batch.payloads) for batch in rest) == 100_000
    assert first.size + sum(batch.size for batch in rest) == path.stat().st_size


def test_a_slow_pipe_is_not_waited_for() -> None:
    """Each line is there as soon as it is written, and one in several pieces is put together."""
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as file, open(writing, "wb", buffering=0) as pipe:
        batches = read_batches(file, "pipe")

        def tasks() -> list[Any]:
            return [json.loads(item.raw)["task"] for item in next(batches).payloads]

        pipe.write(b"[1]\n")
        assert tasks() == [[1]]
        pipe.write(b"[2]\n[3,")
        assert tasks() == [[2]]
        pipe.write(b"4")
        assert tasks() == []
        pipe.write(b",5]\n\n6")
        assert tasks() == [[3, 4, 5]]
        pipe.close()
        assert tasks() == [6]
        assert next(batches, None) is None


def test_a_file_that_fails_in_the_middle() -> None:
    class Failing:
        pieces = iter([b"[1]\n[2"])

        def fileno(self) -> int:
            return 0

        def read(self, _: int) -> bytes:
            for piece in self.pieces:
                return piece
            raise OSError(5, "Input/output error")

    first, second = read_batches(Failing(), "tape")  # type: ignore[arg-type]
    assert len(first.payloads) == 1
    assert second.error == "tape: Input/output error"


async def test_wait_prints_results_as_they_arrive(queue: Queue, server: EmbeddedServer, worker: Start) -> None:
    process = await worker().started()
    # What an earlier task of this id has left is not the answer.
    await queue.redis.hset(queue.keys.output, "again", '{"status":"success","result":"stale"}')
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    with subprocess.Popen(
        [*COMMAND, "push", "--url", server.url, *keys, "--wait", "--file", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as push:
        assert push.stdin
        assert push.stdout
        assert push.stderr
        push.stdin.write(b'{"id":"again","task":[18446744073709551616,1]}\n')
        line = await asyncio.to_thread(push.stdout.readline)
        assert line == b'{"id":"again","status":"success","result":18446744073709551617}\n'
        push.stdin.write('{"id":"wrong","task":["é"]}\n'.encode())
        answer = json.loads(await asyncio.to_thread(push.stdout.readline))
        assert (answer["id"], answer["status"]) == ("wrong", "error")
        push.stdin.write(b'{"id":"last","task":[1]}\nnonsense\n')
        answer = json.loads(await asyncio.to_thread(push.stdout.readline))
        assert answer == {"id": "last", "status": "success", "result": 1}
        error = await asyncio.to_thread(push.stderr.read)
        assert b"Error: standard input:4: not JSON: " in error
        assert await asyncio.to_thread(push.wait, PATIENCE) == 1
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0


async def test_wait_exits_with_1_where_a_task_has_failed(
    queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended]
) -> None:
    """Whichever it is, and whatever comes after it."""
    keys = ("--url", server.url, "--input", queue.keys.waiting, "--output", queue.keys.output)
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum"):
        for tasks, code in (("[1]\n[2]", 0), ('["x"]\n[2]', 1), ('[1]\n["x"]', 1)):
            # Slowly, so that each line is a batch of its own.
            ended = await asyncio.to_thread(_push_slowly, [*COMMAND, "push", *keys, "--wait", "--file", "-"], tasks)
            assert (ended.code, ended.err) == (code, "")
            assert [json.loads(line)["status"] for line in ended.out.splitlines()] == [
                "error" if "x" in line else "success" for line in tasks.splitlines()
            ]


def _push_slowly(command: list[str], tasks: str) -> Ended:
    """Send each line after the answer to the one before."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as push:
        assert push.stdin
        assert push.stdout
        assert push.stderr
        out = b""
        for line in tasks.splitlines():
            push.stdin.write(f"{line}\n".encode())
            push.stdin.flush()
            out += push.stdout.readline()
        push.stdin.close()
        error = push.stderr.read()
        return Ended(push.wait(PATIENCE), out.decode(), error.decode())


async def test_wait_holds_pushing_up_when_nobody_answers(
    queue: Queue, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(pushing, "_UNANSWERED", 2)
    batches = (Batch([payload(b'{"id":%d,"task":1}' % n)], 0) for n in range(5))
    target = Target(server.url, queue.keys.waiting, queue.keys.output, left=False, wait=True)
    pusher = asyncio.create_task(Pusher(target).run(batches))
    for answered in range(5):
        await wait_until(lambda: _length(queue, min(5, answered + 3)))  # noqa: B023 - it is awaited here
        await queue.redis.hset(queue.keys.output, str(answered), '{"status":"success","result":null}')
    assert await pusher == 0
    printed = [json.loads(line)["id"] for line in capfdbinary.readouterr().out.splitlines()]
    assert sorted(printed) == ["0", "1", "2", "3", "4"]


async def _length(queue: Queue, expected: int) -> bool:
    length = len(await queue.waiting())
    assert length <= expected
    return length == expected


async def test_a_reader_that_leaves_is_no_error(queue: Queue, server: EmbeddedServer, tmp_path: Path) -> None:
    path = tmp_path / "tasks"
    path.write_text("[1]\n" * 200_000)
    with subprocess.Popen(
        [*COMMAND, "push", "--url", server.url, "--input", queue.keys.waiting, "--file", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert await asyncio.to_thread(process.stdout.readline)
        process.stdout.close()
        assert await asyncio.to_thread(process.stderr.read) == b""
    assert process.returncode == 1


@pytest.mark.parametrize("wait", [False, True])
async def test_ctrl_c_in_the_middle_of_a_push(queue: Queue, server: EmbeddedServer, wait: bool) -> None:
    keys = ("--input", queue.keys.waiting, "--output", queue.keys.output)
    with subprocess.Popen(
        [*COMMAND, "push", "--url", server.url, *keys, "--file", "-", *(["--wait"] if wait else [])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    ) as process:
        assert process.stdin
        process.stdin.write(b"[1]\n")
        await wait_until(queue.waiting)
        process.send_signal(signal.SIGINT)
        await wait_until(lambda: process.poll() is not None)  # it does not wait for another line
        assert process.stderr
        said = process.stderr.read().decode()
    # It may have come before the push was acknowledged.
    assert re.fullmatch(r"Interrupted: (1 task was pushed|0 tasks were pushed, and perhaps 1 more)\n\n", said)
    assert process.returncode == 130


@pytest.mark.parametrize("redirected", [False, True])
async def test_a_progress_bar_on_a_terminal(
    queue: Queue, server: EmbeddedServer, terminal: Callable[..., Terminal], tmp_path: Path, redirected: bool
) -> None:
    path, ids = tmp_path / "tasks", tmp_path / "ids"
    path.write_text("[1]\n" * 40_000)
    push = ("push", "--url", server.url, "--input", queue.keys.waiting, "--file", str(path))
    with ids.open("wb") as file:
        started = terminal(*push, stdout=file if redirected else None)
        assert await started.ended() == 0
    assert "pushing" in started.shown
    assert "100%" in started.shown
    assert len(await queue.waiting()) == 40_000
    assert len(ids.read_text().splitlines()) == (40_000 if redirected else 0)
    # A bar and a line for each task do not go together.
    assert ("40000 tasks were pushed; to get the ids, redirect the output" in started.shown) is not redirected


# --- publish ---


async def test_publish(topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    publish = ("publish", "--url", server.url, topic.name)
    whole = '{"id":1,"task":2,"data":3}'
    first = outside(*publish, '"é😀"', f"[{2**70}]", "1.234567890123456789", whole, "null", "--", "-5")
    assert first.code == 0, first.err
    ids = first.out.splitlines()
    assert outside(*publish, "--id", "mine", ' { "n" : 1 } ') == (0, "mine\n", "")
    raws = await topic.waiting()
    messages = [json.loads(raw) for raw in raws]
    assert [list(message) for message in messages] == [["id", "topic", "data", "published_at"]] * 7
    assert [message["id"] for message in messages] == [*ids, "mine"]
    assert len(set(ids)) == 6
    assert {message["topic"] for message in messages} == {topic.name}
    # Whatever it looks like it is data, and stands there as it was written.
    written = ['"é😀"', f"[{2**70}]", "1.234567890123456789", whole, "null", "-5", '{ "n" : 1 }']
    assert all(f'"data":{data},"published_at":' in raw.decode() for data, raw in zip(written, raws, strict=True))
    assert abs(messages[0]["published_at"] - time.time()) < 3600
    assert await topic.redis.smembers(TOPICS) == {topic.name.encode()}


async def test_publish_for_later(topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    publish = ("publish", "--url", server.url, topic.name)
    before = await _now(topic)
    assert outside(*publish, "--delay", "24h", "--id", "a", "1").out == "a\n"
    after = await _now(topic)
    outside(*publish, "--at", "2126-12-01T09:00:00+08:00", "--id", "b", "2")
    # A time without a zone is the one on the wall, here eight hours east of Greenwich.
    outside(*publish, "--at", "2126-12-01T09:00", "--id", "c", "3", env={"TZ": "UTC-8"})
    due = {json.loads(raw)["id"]: at for raw, at in (await topic.delayed()).items()}
    assert before + 86_400_000 <= due["a"] < after + 86_400_000 + 1
    assert due["b"] == due["c"] == datetime(2126, 12, 1, 1, tzinfo=UTC).timestamp() * 1000
    assert await topic.waiting() == []
    assert await topic.redis.smembers(TOPICS) == {topic.name.encode()}


async def _now(topic: Topic) -> float:
    """The server's time, in milliseconds."""
    seconds, micros = await topic.redis.time()
    return float(seconds * 1000 + micros / 1000)


async def test_what_is_published_is_handled(
    topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended]
) -> None:
    worker = TopicWorker(server.url)
    seen: dict[str, Any] = {}

    @worker.handler(topic.name)
    async def note(message: Message) -> None:
        seen[message.id] = message.data

    async with worker:
        publish = ("publish", "--url", server.url, topic.name)
        await asyncio.to_thread(outside, *publish, "--id", "now", f'{{"é":{2**70}}}')
        await asyncio.to_thread(outside, *publish, "--id", "soon", "--delay", "10ms", "1")
        await wait_until(lambda: len(seen) == 2)
    assert seen == {"now": {"é": 2**70}, "soon": 1}


@pytest.mark.parametrize("source", ["file", "standard input"])
async def test_publish_a_file(
    topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended], tmp_path: Path, source: str
) -> None:
    (tmp_path / "data.jsonl").write_bytes(FILE)
    path = "data.jsonl" if source == "file" else "-"
    ended = outside("publish", "--url", server.url, topic.name, "--file", path, input=FILE)
    assert ended.code == 0, ended.err
    messages = [json.loads(raw) for raw in await topic.waiting()]
    assert [message["data"] for message in messages] == [[1], {"id": "a", "task": [2]}, [3]]
    assert [message["id"] for message in messages] == ended.out.split()


async def test_nothing_after_a_bad_line_is_published(
    topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended]
) -> None:
    ended = outside("publish", "--url", server.url, topic.name, "--file", "-", input=b"1\n2\n[3\n4\n")
    assert ended.code == 1
    assert "Error: standard input:3: not JSON: unexpected end of data, at character 3; " in ended.err
    assert "2 messages were pushed, and nothing after it" in ended.err
    assert len(await topic.waiting()) == len(ended.out.splitlines()) == 2


async def test_publish_to_what_is_no_list(topic: Topic, server: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    await topic.redis.set(topic.keys.waiting, "text")
    ended = outside("publish", "--url", server.url, topic.name, "1")
    assert (ended.code, ended.out) == (3, "")
    assert f"cannot push to '{topic.keys.waiting}': a key holds another type" in ended.err


# --- result ---


async def test_results(queue: Queue, server: EmbeddedServer, outside: Callable[..., Ended]) -> None:
    results = {"a": '{"status":"success","result":[1,"😀"]}', "7": '{"status":"error","error":"Parse error: no"}'}
    await queue.redis.hset(queue.keys.output, mapping=results)
    result = ("result", "--url", server.url, "--output", queue.keys.output)
    # In a locale that has no emoji, too: JSON is UTF-8.
    good = outside(*result, "a", env={"PYTHONIOENCODING": "ascii"})
    assert good == (0, '{"id":"a","status":"success","result":[1,"😀"]}\n', "")
    failed = outside(*result, "a", "7", "--delete")
    assert failed.code == 1
    assert {line["id"]: line.get("error") for line in failed.lines} == {"a": None, "7": "Parse error: no"}
    missing = outside(*result, *"abcde")
    assert missing == (1, "", "Error: no result for a, b, c and 2 more\n")


async def test_result_waits(queue: Queue, server: EmbeddedServer) -> None:
    command = [*COMMAND, "result", "--url", server.url, "--output", queue.keys.output, "late", "--wait", str(PATIENCE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        await wait_until(lambda: _subscribed(queue))
        await queue.redis.hset(queue.keys.output, "late", '{"status":"success","result":1}')
        output, _ = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0
    assert json.loads(output) == {"id": "late", "status": "success", "result": 1}


async def _subscribed(queue: Queue) -> bool:
    return any(client["sub"] == "1" for client in await queue.redis.client_list())
