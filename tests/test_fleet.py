"""Several worker processes under one parent: who is replaced, who ends the fleet, and how it stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_worker import TaskClient
from redis_worker.cli import fleet
from redis_worker.cli import source_files as sources
from redis_worker.cli.fleet import Child, Fleet
from redis_worker.cli.source_files import Sources
from tests.support import PATIENCE, Queue, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]

# What the workers of the tests below begin with. Each run of one writes a line to `starts`; `mark` writes
# down what happens to it.
PRELUDE = """
import os, signal, sys, time
from pathlib import Path

folder = Path({folder!r})
number = int(os.environ["REDIS_WORKER_FLEET_NUMBER"])
with (folder / "starts").open("a") as file:
    file.write(f"{{number}}\\n")
start = len((folder / "starts").read_text().splitlines())

def mark(what):
    with (folder / what).open("a") as file:
        file.write(f"{{number}}\\n")

def count(what):
    return len((folder / what).read_text().splitlines()) if (folder / what).exists() else 0

def until(what, times=1):
    end = time.monotonic() + 60
    while count(what) < times and time.monotonic() < end:
        time.sleep(0.002)

def ready():
    os.write(int(os.environ["REDIS_WORKER_LIFELINE"]), b".")

def on(number, do):
    signal.signal(number, lambda *_: do())

def stop():
    mark("stopped")
    os._exit(0)

def change(path, text):
    # In one step: a look between two would see two changes.
    new = folder / f"{{number}}.new"
    new.write_text(text)
    new.replace(path)
"""


class Workers:
    """Runs fleets whose workers are short scripts."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch

    def run(self, script: str, size: int = 2, *, finite: bool = False, watch: Path | None = None) -> int:
        """The exit code of the fleet."""
        command = [sys.executable, "-S", "-E", "-c", PRELUDE.format(folder=str(self.folder)) + script]
        self._monkeypatch.setattr(fleet, "_command", lambda: command)
        # A fleet that would never end is told to by this process's own signals.
        guards = [threading.Timer(PATIENCE + i, os.kill, (os.getpid(), signal.SIGTERM)) for i in range(3)]
        for guard in guards:
            guard.start()
        try:
            watched = Sources(watch) if watch else None
            return Fleet(size, "redis://unused", finite=finite, shutdown_timeout=0.0, sources=watched).run()
        finally:
            for guard in guards:
                guard.cancel()

    def marks(self, what: str) -> list[int]:
        """The numbers of the workers that have marked `what`, in order."""
        path = self.folder / what
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Workers:
    caplog.set_level("INFO", "redis_worker")
    monkeypatch.setattr(fleet, "_TICK", 0.005)
    monkeypatch.setattr(fleet, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(sources, "_LOOK_EVERY", 0.01)
    return Workers(tmp_path, monkeypatch)


@pytest.mark.parametrize("code", [2, 3])
def test_what_ails_all_ends_the_fleet_and_the_others_gracefully(workers: Workers, code: int) -> None:
    script = f"""
if number == 1:
    on(signal.SIGTERM, stop)
    ready()
    until("never")
sys.exit({code})
"""
    assert workers.run(script) == code
    assert workers.marks("starts") == [1, 2]
    assert workers.marks("stopped") == [1]


def test_it_is_said_once(workers: Workers) -> None:
    """One goes first: the others would only have repeated it."""
    assert workers.run("sys.exit(2)", size=5) == 2
    assert workers.marks("starts") == [1]


def test_the_dead_are_replaced(workers: Workers, caplog: pytest.LogCaptureFixture) -> None:
    script = """
if start == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if start == 2:
    sys.exit(1)
if start == 3:
    os.kill(os.getpid(), getattr(signal, "SIGRTMIN", signal.SIGKILL - 1) + 1)  # one without a name, on Linux
"""
    assert workers.run(script, size=1, finite=True) == 0
    assert workers.marks("starts") == [1, 1, 1, 1]
    assert "worker process 1 ended (killed by SIGKILL); the next one starts in" in caplog.text
    assert "worker process 1 ended (exit code 1)" in caplog.text


def test_one_that_ends_without_being_told_is_replaced(workers: Workers) -> None:
    """Somebody has sent it a SIGTERM of its own."""
    assert workers.run("sys.exit(3 if start == 3 else 0)", size=1) == 3


def test_those_whose_work_is_done_are_not_replaced(workers: Workers) -> None:
    assert workers.run("ready()", size=3, finite=True) == 0
    assert sorted(workers.marks("starts")) == [1, 2, 3]


def test_a_pause_grows_as_long_as_they_die_young(monkeypatch: pytest.MonkeyPatch) -> None:
    child = Child(1)
    child._started = time.monotonic()
    assert [child.pause() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    monkeypatch.setattr(fleet, "_YOUNG", 0.0)
    assert child.pause() == 0.5


def test_a_process_that_cannot_be_started_is_tried_again(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, failures = subprocess.Popen, [BlockingIOError(11, "Resource temporarily unavailable")]

    def popen(*arguments: object, **settings: object) -> subprocess.Popen[bytes]:
        if failures:
            raise failures.pop()
        return start(*arguments, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(subprocess, "Popen", popen)
    assert workers.run("", size=1, finite=True) == 0
    assert "worker process 1 cannot be started: [Errno 11] Resource temporarily unavailable" in caplog.text


# --- signals ---


def test_a_signal_reaches_each_worker_once(workers: Workers) -> None:
    """One of the workers plays the user who presses Ctrl-C."""
    script = """
on(signal.SIGINT, lambda: mark("interrupted"))
on(signal.SIGTERM, lambda: mark("told"))
ready()
mark("up")
if number == 2:
    until("up", 2)
    os.kill(os.getppid(), signal.SIGINT)
until("told", 2)
time.sleep(0.1)
"""
    assert workers.run(script) == 0
    assert sorted(workers.marks("told")) == [1, 2]
    assert workers.marks("interrupted") == []


def test_a_second_signal_cancels_and_a_third_one_kills(workers: Workers) -> None:
    script = """
on(signal.SIGTERM, lambda: mark("told"))
on(signal.SIGINT, lambda: mark("cancelled"))
ready()
mark("up")
if number == 2:
    until("up", 2)
    for sign in ("told", "cancelled", "never"):
        os.kill(os.getppid(), signal.SIGTERM)
        until(sign, 2)
until("never")
"""
    assert workers.run(script) == 1
    assert sorted(workers.marks("told")) == [1, 2]
    assert sorted(workers.marks("cancelled")) == [1, 2]


def test_a_worker_that_does_not_end_is_killed(
    workers: Workers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "_GRACE", 0.2)
    script = """
on(signal.SIGTERM, lambda: mark("told"))
ready()
if number == 2:
    os.kill(os.getppid(), signal.SIGINT)
    until("told", 2)
    sys.exit(0)
until("never")
"""
    assert workers.run(script) == 1
    assert "worker process 1 does not end: killing it" in caplog.text


def test_workers_that_have_hardly_begun_have_nothing_to_finish(workers: Workers) -> None:
    """They have not taken over the signals: SIGTERM ends them, and that is no failure."""
    assert workers.run('os.kill(os.getppid(), signal.SIGTERM); until("never")', size=1) == 0


# --- changed sources ---


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A source file in a folder to be watched."""
    path = tmp_path / "watched" / "jobs.py"
    path.parent.mkdir()
    path.touch()
    return path


def test_a_change_restarts_all_gracefully(workers: Workers, source: Path) -> None:
    script = f"""
if start > 2:
    ready()
    mark("again")
    until("again", 2)
    sys.exit(3)
on(signal.SIGTERM, stop)
ready()
mark("up")
if number == 2:
    until("up", 2)
    change({str(source)!r}, "changed")
until("never")
"""
    assert workers.run(script, watch=source.parent) == 3
    assert sorted(workers.marks("starts")) == [1, 1, 2, 2]
    assert sorted(workers.marks("stopped")) == [1, 2]


def test_changes_that_come_while_workers_end_cancel_nothing(workers: Workers, source: Path) -> None:
    script = f"""
def told():
    mark("told")
    change({str(source)!r}, "changed again")
    time.sleep(0.2)
    os._exit(0)

if start > 1:
    sys.exit(3)
on(signal.SIGTERM, told)
ready()
change({str(source)!r}, "changed")
until("never")
"""
    assert workers.run(script, size=1, watch=source.parent) == 3
    assert workers.marks("told") == [1]


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_a_source_that_is_broken_by_a_change_is_waited_for(
    workers: Workers, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start it is an error like any other; later its author is at work on it."""

    def mend() -> None:
        end = time.monotonic() + PATIENCE
        while "waiting for the next change" not in caplog.text and time.monotonic() < end:
            time.sleep(0.01)
        replace(source, "mended")

    script = f"""
text = Path({str(source)!r}).read_text()
if text == "broken":
    sys.exit(2)
if text == "mended":
    ready()
    mark("mended")
    until("mended", 2)
    sys.exit(3)
on(signal.SIGTERM, stop)
ready()
mark("up")
if number == 2:
    until("up", 2)
    change({str(source)!r}, "broken")
until("never")
"""
    mending = threading.Thread(target=mend)
    mending.start()
    assert workers.run(script, watch=source.parent) == 3
    mending.join()
    assert len(workers.marks("starts")) == 2 + 1 + 2  # one was enough to see that it is broken
    assert sorted(workers.marks("mended")) == [1, 2]


def test_what_counts_as_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_LOOK_EVERY", 0.0)
    (tmp_path / "package").mkdir()
    (tmp_path / ".venv").mkdir()
    seen = Sources(tmp_path)
    assert not seen.changed()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".venv" / "other.py").touch()
    assert not seen.changed()
    module = tmp_path / "package" / "jobs.py"
    module.touch()
    assert seen.changed()
    assert not seen.changed()
    os.utime(module, ns=(0, 0))
    assert seen.changed()
    module.unlink()
    assert seen.changed()


# --- real workers ---


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has waited for it."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except ProcessLookupError:
        return True
    except OSError:
        return False


def pids(folder: Path) -> list[int]:
    """The processes in which the processor `gate` runs, one for each task."""
    path = folder / "running"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


async def test_a_killed_worker_is_replaced_and_nothing_lost(queue: Queue, worker: Start, tmp_path: Path) -> None:
    process = worker("-w", "2", "-c", "1", "--lease", "2", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 6)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    await wait_until(lambda: len(set(pids(tmp_path))) == 3, "another worker to take a task")
    (tmp_path / "open").touch()
    await wait_until(lambda: queue.answered(6))
    await wait_until(lambda: queue.buried(2))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log
    assert process.log.count("] ended: ") == 2
    assert "[1] " in process.log
    assert "[2] " in process.log


async def test_workers_outlive_a_killed_parent_to_finish_what_they_do(
    queue: Queue, worker: Start, tmp_path: Path
) -> None:
    process = worker("-w", "2", "-c", "1", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 6)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    orphans = pids(tmp_path)
    process.kill()
    await wait_until(lambda: process.log.count("the parent process is gone") == 2)
    assert not any(gone(pid) for pid in orphans)
    (tmp_path / "open").touch()
    await wait_until(lambda: all(gone(pid) for pid in orphans), "the workers to end by themselves")
    assert len(await queue.results()) == 2
    assert len(await queue.waiting()) == 4


async def test_watch_restarts_with_the_changed_source(queue: Queue, worker: Start, tmp_path: Path) -> None:
    source = tmp_path / "t_watched.py"
    source.write_text("def work(a): return 1")
    process = worker("--watch", str(tmp_path), processor="t_watched:work", env={"PYTHONPATH": str(tmp_path)})
    await queue.push({"id": "before", "task": []})
    await wait_until(lambda: queue.answered(1))
    replace(source, "def work(a) return 2")
    await wait_until(lambda: "waiting for the next change" in process.log)
    assert "fails on import at " in process.log
    assert "Traceback" not in process.log
    await queue.push({"id": "after", "task": []})
    replace(source, "def work(a): return 'three'")
    await wait_until(lambda: queue.answered(2))
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log
    assert {id: result["result"] for id, result in (await queue.results()).items()} == {"before": 1, "after": "three"}


async def test_an_embedded_server_serves_all_workers(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "redis_worker", "run", "--input", "in", "--output", "out", "--embedded", "-w", "2"]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen([*command, "--processor", "sum"], stderr=file) as process:
        try:
            await wait_until(lambda: log.read_text().count(" -> ") == 2)
            url = re.search(r"redis-worker push --url (\S+) --input in --output out --wait", log.read_text())
            assert url, log.read_text()
            async with TaskClient(url[1], "in", "out") as client:
                assert await client.run([1, 2], PATIENCE) == 3
            process.send_signal(signal.SIGINT)
            await wait_until(lambda: process.poll() is not None)
        finally:
            process.kill()
    assert process.returncode == 0, log.read_text()
    assert "[2] ended: " in log.read_text()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url[1].rpartition(":")[2].partition("/")[0]))
