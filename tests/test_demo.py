"""The demo as a user sees it, with real processes; and its ledger, which would say what is lost or wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis as redis_py

from redis_worker.broker.keys import Keys
from redis_worker.chaos.journal import Journal
from redis_worker.demo.plan import Plan, files_to_serve, make_plan
from redis_worker.demo.story import Account, account, open_ledger
from redis_worker.embedded import EmbeddedServer
from tests.processes import alive, descendants
from tests.support import ended_in_time

ROOT = Path(__file__).parent.parent

# Tests run by nohup or in the background of a shell inherit that SIGINT is ignored.
DEMO = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from redis_worker.cli.main import main
main(["demo", *sys.argv[1:]])
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    """With a temporary folder of its own, so that a look shows what was left there."""
    return os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)} | more


def demo(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "redis_worker", "demo", *arguments],
        env=environment(folder, **more),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path, Path]]:
    """A demo in a session of its own, and the files with its output and its errors."""
    output, errors = folder.with_suffix(".out"), folder.with_suffix(".err")
    with output.open("wb") as out, errors.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", DEMO],
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    try:
        yield process, output, errors
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


def test_nothing_is_lost_and_the_killed_workers_tasks_are_delivered_again(folder: Path) -> None:
    run = demo(folder, "--tasks", "400")

    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    held = re.search(r"\(pid \d+\) holds (\d+) tasks: kill -9", run.stdout)
    again = re.search(r"(\d+) delivered again, lost 0\.", run.stdout)
    assert held, run.stdout
    assert again, run.stdout
    assert int(again[1]) >= int(held[1]) > 0
    assert re.search(r"^  total +400 .* 0 +0$", run.stdout, re.MULTILINE), run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert list(folder.iterdir()) == []


def test_settings_meant_for_other_workers_do_no_harm(folder: Path) -> None:
    (folder / ".env").write_text("REDIS_WORKER_BURST=1\nREDIS_WORKER_MAX_TASKS=1\nREDIS_URL=redis://no.invalid\n")

    run = demo(folder, "--tasks", "100", REDIS_WORKER_DELIVERY="at-most-once", REDIS_WORKER_PROCESSES="2")

    assert (run.returncode, run.stderr) == (0, ""), run.stdout


@pytest.mark.parametrize(
    "moment",
    ["kill -9", *(pytest.param(name, marks=pytest.mark.long) for name in ("file server", "tasks pushed", "recovered"))],
)
def test_ctrl_c_ends_it_quietly_and_leaves_nothing_behind(folder: Path, moment: str) -> None:
    with started(folder) as (process, output, errors):
        assert ended_in_time(lambda: moment in output.read_text() or process.poll() is not None, 60.0)
        assert process.poll() is None, output.read_text() + errors.read_text()
        processes = descendants(process.pid)

        os.killpg(process.pid, signal.SIGINT)  # as the terminal does

        assert process.wait(60) == 130
        assert len(processes) >= 2, "at least the server and its guard"
        assert alive(processes) == set()
        assert errors.read_text().strip() == ""  # click ends the line with the ^C in it
        assert list(folder.iterdir()) == []


def test_nothing_outlives_a_demo_that_is_killed(folder: Path) -> None:
    with started(folder) as (process, output, errors):
        assert ended_in_time(lambda: "kill -9" in output.read_text() or process.poll() is not None, 60.0)
        assert process.poll() is None, output.read_text() + errors.read_text()
        processes = descendants(process.pid)

        process.kill()

        assert ended_in_time(lambda: not alive(processes), 60.0)
        assert ended_in_time(lambda: not list(folder.iterdir()), 60.0)


def test_without_a_server_it_says_what_to_do(folder: Path) -> None:
    run = demo(folder, REDIS_SERVER="/nowhere/redis-server")

    assert run.returncode == 2
    assert run.stdout == ""
    assert re.fullmatch(r"Error: REDIS_SERVER is .*\n", run.stderr)
    assert list(folder.iterdir()) == []


def test_on_a_terminal_it_shows_bars(folder: Path) -> None:
    pytest.importorskip("rich")
    terminal, side = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "redis_worker", "demo", "--tasks", "100"],
        env=environment(folder, TERM="xterm", COLUMNS="80", LINES="40"),
        stdout=side,
        stderr=side,
    )
    os.close(side)
    with process, open(terminal, "rb", buffering=0) as screen:
        shown = b""
        try:
            while piece := screen.read(65536):
                shown += piece
        except OSError:  # the end, on Linux
            pass

    text = shown.decode()
    assert process.returncode == 0, text
    assert "━" in text
    assert "24 of 24" in text
    assert "lost 0" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is hidden"


@pytest.mark.parametrize("tasks", [100, 101, 400, 6000])
def test_the_plan_has_every_fate_in_every_queue(tasks: int) -> None:
    plan = make_plan(tasks, "http://127.0.0.1:1", Path("/nowhere"))

    everything = [task for queue in plan.values() for task in queue]
    assert len({task.raw for task in everything}) == len({task.id for task in everything}) == tasks
    for queue in plan.values():
        assert {task.fate for task in queue} == {"succeeded", "failed", "dead"}


class Books:
    """A queue whose tasks have all come to the right end, by hand, for a test to tamper with."""

    def __init__(self, client: redis_py.Redis, folder: Path, processor: str, plan: Plan) -> None:
        self.plan = plan[processor]
        self.keys = Keys(f"demo:{processor}:input", f"demo:{processor}:output")
        self.client = client
        self._journal = Journal(folder)
        self._ends: dict[str, list[tuple[str | bytes, ...]]] = {}
        for task in self.plan:
            if task.fate == "dead":
                letter = b'{"raw":"%b"}' % task.raw.replace(b'"', b'\\"')
                self._ends[task.id] = [("RPUSH", self.keys.dead, letter)]
            else:
                ending = b'so."}' if task.fate == "failed" else b""
                self._ends[task.id] = [("HSET", self.keys.output, task.id, task.answers[0] + ending)]

    def tamper(self, id: str, answer: str | None) -> None:
        """Let the task have `answer` in place of the right one; None: let it disappear."""
        self._ends[id] = [] if answer is None else [("HSET", self.keys.output, id, answer)]

    def balance(self) -> Account:
        self.client.rpush(self.keys.waiting, *(task.raw for task in self.plan))
        for task in self.plan:
            with self.client.pipeline(transaction=True) as step:
                for command in [("LPOP", self.keys.waiting), *self._ends[task.id]]:
                    step.execute_command(*command)
                step.execute()
        ledger = open_ledger(self.keys, self.plan)
        for transaction in self._journal.transactions():
            ledger.observe(transaction, time.time())
        return account(ledger, self.plan)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer(persistent=True) as server:
        yield server


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(server.url) as client:
        yield client
        client.flushall()


@pytest.fixture
def books(client: redis_py.Redis, server: EmbeddedServer, folder: Path) -> Books:
    return Books(client, server.folder, "sum", make_plan(100, "http://127.0.0.1:1", folder))


def test_the_ledger_balances_when_all_is_well(books: Books) -> None:
    assert books.balance() == Account(pushed=31, succeeded=26, failed=4, dead=1)


def test_the_ledger_sees_what_is_lost(books: Books) -> None:
    for id in ("sum-1", next(task.id for task in books.plan if task.fate == "dead")):
        books.tamper(id, None)

    assert books.balance() == Account(pushed=31, succeeded=25, failed=4, lost=2)


@pytest.mark.parametrize(
    "answer",
    [
        '{"status":"success","result":112}',
        '{"status":"success","result":111.0}',
        '{"status":"success","result":"111"}',
        '{"status":"error","error":"Processing error: no"}',
        "",
    ],
)
def test_the_ledger_sees_a_wrong_answer(books: Books, answer: str) -> None:
    books.tamper("sum-1", answer)

    assert books.balance() == Account(pushed=31, succeeded=25, failed=4, dead=1, wrong=1)


def test_the_ledger_sees_a_success_that_should_be_none(books: Books) -> None:
    failing = next(task for task in books.plan if task.fate == "failed")
    books.tamper(failing.id, '{"status":"success","result":1}')

    assert books.balance() == Account(pushed=31, succeeded=26, failed=3, dead=1, wrong=1)


def test_the_ledger_sees_what_was_never_pushed(books: Books) -> None:
    books.client.hset(books.keys.output, "stranger", '{"status":"success","result":1}')
    books.client.rpush(books.keys.dead, '{"raw":"stranger"}')

    assert books.balance() == Account(pushed=31, succeeded=26, failed=4, dead=1, wrong=2)


def test_the_ledger_looks_at_the_files(client: redis_py.Redis, server: EmbeddedServer, folder: Path) -> None:
    plan = make_plan(100, "http://127.0.0.1:1", folder)
    for path, content in files_to_serve(plan).items():
        (folder / path[1:]).write_bytes(content)
    (folder / "file-1.txt").unlink()
    (folder / "file-2.txt").write_bytes(b"something else")

    balance = Books(client, server.folder, "download", plan).balance()

    assert balance == Account(pushed=24, succeeded=18, failed=3, dead=1, wrong=2)
