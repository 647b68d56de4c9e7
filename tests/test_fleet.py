"""Several worker processes under one parent: who is replaced, who ends all, and how it stops."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from redis_worker import TaskClient
from redis_worker.cli.changes import Watched, sources
from redis_worker.file.plan import DaemonPart, Supervision
from redis_worker.supervisor.process import part_process
from redis_worker.supervisor.process.part_process import PartProcess
from redis_worker.supervisor.unit import Unit
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.errors import ConfigurationError, PartFailed
from tests.support import PATIENCE, Queue, WorkerProcess, wait_until

Start = Callable[..., WorkerProcess]


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


# --- a part in several processes ---


async def test_what_all_would_meet_is_met_once() -> None:
    """The others begin when the first one works, and not at all when it has failed for good."""
    made: list[str] = []

    def make() -> PartProcess:
        made.append("one")
        raise ConfigurationError("no such name")

    lost: list[BaseException] = []
    first = Unit("part", "part#1", Supervision(), make, lost.append)
    units = [first, *(Unit("part", f"part#{number}", Supervision(), make, lost.append, first) for number in (2, 3))]
    await asyncio.gather(*(unit.start() for unit in units))
    assert made == ["one"]
    assert [str(error) for error in lost] == ["no such name"]
    assert [unit.state for unit in units] == ["failed", "ended", "ended"]


async def test_one_that_awaits_a_change_is_not_given_up(caplog: pytest.LogCaptureFixture) -> None:
    def make() -> PartProcess:
        raise ConfigurationError("no such name")

    lost: list[BaseException] = []
    unit = Unit("part", "part#1", Supervision(awaits_change=True), make, lost.append)
    running = unit.start()
    await wait_until(lambda: "waiting for the next change" in caplog.text)
    assert unit.state == "failed"
    assert not running.done()
    unit.stop()
    await running
    assert lost == []


async def test_a_process_that_cannot_be_started_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(part_process, "_spawn", started)
    process = PartProcess(DaemonPart("d", "module:function"), "d#1", Wiring())
    with pytest.raises(PartFailed, match=r"its process cannot be started: .* Resource temporarily unavailable"):
        await process.run()


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / ".venv").mkdir()
    watched = Watched(lambda: sources(tmp_path))
    assert not watched.changed()
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".venv" / "other.py").touch()
    assert not watched.changed()
    module = tmp_path / "package" / "jobs.py"
    module.touch()
    assert watched.changed()
    assert not watched.changed()
    os.utime(module, ns=(0, 0))
    assert watched.changed()
    module.unlink()
    assert watched.changed()


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


@pytest.mark.parametrize("form", [(), ("-w", "3"), ("--watch", ".", "-w", "2")], ids=["one", "several", "watch"])
async def test_a_wrong_name_is_wrong_configuration(worker: Start, form: tuple[str, ...]) -> None:
    process = worker(*form, processor="nobody_has_this")
    assert await process.ended() == 2
    assert process.log.splitlines()[-1].startswith("Error: unknown processor 'nobody_has_this'"), process.log
    assert process.log.count("Error: ") == 1
    assert process.log.count(" failed: ") == ("--watch" in form)
    assert "Traceback" not in process.log


async def test_one_that_ends_without_being_told_is_replaced(queue: Queue, worker: Start, tmp_path: Path) -> None:
    """Somebody has sent it a SIGTERM of its own."""
    process = worker("-w", "2", "-c", "1", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 2)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    os.kill(pids(tmp_path)[0], signal.SIGTERM)
    (tmp_path / "open").touch()
    await wait_until(lambda: process.log.count(" -> ") == 3, "another worker")
    process.signal(signal.SIGTERM)
    assert await process.ended() == 0, process.log


async def test_a_third_signal_kills(queue: Queue, worker: Start, tmp_path: Path) -> None:
    """Also workers that do not react."""
    process = worker("-w", "2", "-c", "1", "--lease", "2", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 2)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    for pid in pids(tmp_path):
        os.kill(pid, signal.SIGSTOP)
    for said in ("stopping", "cancelling"):
        process.signal(signal.SIGTERM)
        await process.said(said)
    process.signal(signal.SIGTERM)
    assert await process.ended() == 1
    await wait_until(lambda: all(gone(pid) for pid in pids(tmp_path)))
    (tmp_path / "open").touch()  # for the queue to be whole again
    second = await worker("--lease", "2", processor="tests.processors:gate").started()
    await wait_until(lambda: queue.answered(2))
    await wait_until(queue.buried)
    second.signal(signal.SIGTERM)
    assert await second.ended() == 0


async def test_workers_outlive_a_killed_parent_to_finish_what_they_do(
    queue: Queue, worker: Start, tmp_path: Path
) -> None:
    process = worker("-w", "2", "-c", "1", processor="tests.processors:gate")
    await queue.push_tasks([[str(tmp_path)]] * 6)
    await wait_until(lambda: len(pids(tmp_path)) == 2)
    orphans = pids(tmp_path)
    process.kill()
    await wait_until(lambda: process.log.count("the supervisor is gone") == 2)
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
