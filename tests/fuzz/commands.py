"""The command line: every list of arguments ends with an exit code, and a sentence where that is not 0."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch

import click

from redis_worker import WorkerPool
from redis_worker.cli import main
from redis_worker.embedded import EmbeddedServer
from tests.fuzz.files import EXAMPLE, toml
from tests.fuzz.inputs import PIECES, any_bytes, json_value, mutated
from tests.fuzz.running import OBEYED, Target, Violation

_CODES = (0, 1, 2, 3, 130)
# Seconds after which a command that waits for something, such as `push --wait`, gets a Ctrl-C.
_PATIENCE = 2.0
_VALUES = [
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "3",
        "1e9",
        "nan",
        "inf",
        "1.5m",
        "99999999999999999999",
        "-",
        "--",
        "a",
        "a b",
        "mq:x",
        "x.y",
        "{a}",
    ),
    *(
        "[30]",
        '{"id":"t1","task":[30]}',
        "null",
        "{",
        '"x',
        "sum",
        "list",
        "no.such:thing",
        "json:loads",
        "a:b:c",
        "workers.toml",
    ),
    *(
        "tasks.jsonl",
        "/nowhere",
        ".",
        "redis://127.0.0.1:1",
        "redis://:pw@h",
        "http://h",
        "unix:///x",
        "127.0.0.1:0",
        "[::1]:99999",
    ),
    *(
        "2026-12-01T09:00:00+08:00",
        "1969-01-01",
        "9999-12-31",
        "debug",
        "json",
        "text",
        "async",
        "thread",
        "pools",
        "cron,topics",
    ),
    *("\x1b[2J", "\n", "\u202e", "😀", "%s", "é", "x" * 3000, "../..", "*", "at-most-once"),
]


def _words(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield each command with its options."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from _words(inner, (*path, name))
    yield path, [name for parameter in command.params for name in parameter.opts if name.startswith("-")]


COMMANDS = list(_words(main.cli))
_OPTIONS = sorted({*(option for _, options in COMMANDS for option in options), "--help", "--version", "--no-such"})


def arguments(random: Random) -> list[str]:
    """Return arguments of a command: its own options and those of others, with values that fit seldom."""
    path, options = random.choice(COMMANDS)
    words = list(path)
    for _ in range(random.randrange(7)):
        if random.random() < 0.75:
            words.append(random.choice(options if options and random.random() < 0.9 else _OPTIONS))
        if random.random() < 0.7:
            words.append(random.choice(_VALUES) if random.random() < 0.9 else json_value(random).decode())
    if "--input" not in words and random.random() < 0.5:
        words += ["--input", "in", "--output", "out", "--processor", "sum"][: random.choice((2, 4, 6))]
    return words


class Commands(Target):
    """In this process, with a server of its own; commands that would work without an end only begin to."""

    name = "commands"
    batch = 20
    share = 0.015

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        server = self._stack.enter_context(EmbeddedServer())
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        before = os.getcwd()
        self._stack.callback(os.chdir, before)
        os.chdir(folder)
        Path("workers.toml").write_bytes(EXAMPLE)
        Path("tasks.jsonl").write_bytes(b"[1]\n\xff\n")
        self._environment = {**os.environ, "REDIS_URL": server.url, "PYTHONPATH": str(Path(__file__).parents[2])}
        self._stack.enter_context(patch.dict(os.environ, {"REDIS_URL": server.url}))
        for where, replaced in _ENDLESS.items():
            self._stack.enter_context(patch(where, replaced))
        self._stack.enter_context(patch.object(socket, "getaddrinfo", _local_only(socket.getaddrinfo)))
        self._stack.enter_context(_logging_as_before())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    def make(self, random: Random) -> bytes:
        """Return arguments, each ended by a NUL, then what comes on standard input."""
        words = [os.fsencode(word.replace("\0", "")) for word in arguments(random)]
        if words and random.random() < 0.4:
            at = random.randrange(len(words))
            words[at] = mutated(random, words[at], PIECES).replace(b"\0", b"")
        lines = mutated(random, b"[1]\n[2]\n")
        given = random.choice((b"", json_value(random), lines, any_bytes(random), toml(random)))
        return b"".join(word + b"\0" for word in words) + b"\n" + given

    def feed(self, inputs: Sequence[bytes]) -> None:
        for raw in inputs:
            try:
                self._check(raw, *self._run(*parted(raw)))
            except Violation:
                raise
            except BaseException as error:
                raise Violation(f"it raises {error!r}", raw) from error

    def _check(self, raw: bytes, code: int, shown: str, complaints: str) -> None:
        if code not in _CODES:
            raise Violation(f"the exit code is {code}: {complaints}", raw)
        if "Traceback (most" in complaints or "this is a defect" in complaints:
            raise Violation(complaints, raw)
        if code in (2, 3) and not complaints.strip():
            raise Violation(f"the exit code is {code}, without a sentence", raw)
        if OBEYED.search(complaints.replace("\t", "")):
            raise Violation(f"what it writes is not harmless: {complaints!r}", raw)

    def _run(self, words: list[str], given: bytes) -> tuple[int, str, str]:
        out, err = _Stream(), _Stream()
        with tempfile.TemporaryFile() as stdin:
            stdin.write(given)
            stdin.seek(0)
            with _standard_input(stdin.fileno()), redirect_stdout(out), redirect_stderr(err), _interrupted():
                code = main._run(words)
        return code, out.text(), err.text()


class CommandProcesses(Commands):
    """The same as real processes."""

    name = "command-processes"
    batch = 1
    share = 0.00005

    def _run(self, words: list[str], given: bytes) -> tuple[int, str, str]:
        if words[:1] in (["run"], ["serve"], ["demo"], ["cron"]) or "--watch" in words:
            words = [*words, "--no-such-option"]
        try:
            ended = subprocess.run(
                [sys.executable, "-W", "error", "-m", "redis_worker", *words],
                input=given, env=self._environment, capture_output=True, timeout=60, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            if "--wait" in words:
                return 130, "", ""
            raise
        return ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode()


def parted(raw: bytes) -> tuple[list[str], bytes]:
    """Return the arguments in `raw`, and what comes on standard input."""
    words, _, given = raw.rpartition(b"\0\n") if b"\0\n" in raw else (b"", b"", raw[1:])
    return [os.fsdecode(word) for word in words.split(b"\0")] if words else [], given


class _Stream(io.TextIOWrapper):
    """A standard stream as main() leaves it: it shows whatever its encoding lacks in another form."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        super().__init__(self._bytes, encoding="utf-8", errors="backslashreplace", write_through=True)

    def text(self) -> str:
        return self._bytes.getvalue().decode()


@contextmanager
def _standard_input(descriptor: int) -> Iterator[None]:
    kept, stdin = os.dup(0), sys.stdin
    os.dup2(descriptor, 0)
    with open(0, encoding="utf-8", closefd=False) as given:
        sys.stdin = given
        try:
            yield
        finally:
            sys.stdin = stdin
            os.dup2(kept, 0)
            os.close(kept)


@contextmanager
def _interrupted() -> Iterator[None]:
    """Press Ctrl-C, in the end several times."""
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _logging_as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("redis_worker")
    before = root.handlers[:], root.level, own.level
    try:
        yield
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        own.setLevel(before[2])


def _local_only(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """No name is looked up, and no other machine reached."""

    def look_up(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in ("127.0.0.1", "localhost", "::1", None):
            return resolve(host, *arguments, **options)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    return look_up


def _work(url: str, settings: dict[str, Any]) -> int:
    WorkerPool(url, **settings)
    return 0


def _end(*arguments: Any, **options: Any) -> int:
    return 0


class _NoServer:
    url = "redis://127.0.0.1:1"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


# What works until it is stopped, or starts processes: it is given its settings, and ends.
_ENDLESS: dict[str, Any] = {
    "redis_worker.cli.serving.work": _work,
    "redis_worker.cli.workers.supervise": _end,
    "redis_worker.cli.supervising.supervise": _end,
    "redis_worker.cli.declared.serve_declared": _end,
    "redis_worker.demo.story.run_demo": _end,
    "redis_worker.embedded.EmbeddedServer": _NoServer,
}
