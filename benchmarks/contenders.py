"""Contenders: the measured programs, each a process that pops tasks from the list and writes results."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
INPUT = "bench:input"
OUTPUT = "bench:output"


class ContenderDied(Exception):
    """Raised when a contender ended early; the text has the end of its log."""


@dataclass(frozen=True)
class Contender:
    """A measured program; its results are sums, or null."""

    name: str
    command: tuple[str, ...]
    """The arguments of `python -m`, with URL in place of the server's address."""
    sums: bool = True
    queue: str = ""
    """The queue of functions, by its name in function_tasks.py; empty for a pool."""
    functions: tuple[str, ...] = ()
    """The functions that the tasks call in turn; empty for tasks of a pool."""
    unique: bool = False
    """Tasks carry unique ids."""

    def result(self, number: int) -> bytes:
        """Return the correct result of task `number`."""
        return b'{"status":"success","result":%b}' % (b"%d" % (number + 5) if self.sums else b"null")


def bare_loop(batch: int = 200) -> Contender:
    """Return the bare loop, which pops `batch` tasks at a time."""
    return Contender(f"bare loop, {batch} at a time", ("benchmarks.bare_loop", "URL", INPUT, OUTPUT, str(batch)))


def worker(name: str, processor: str, *options: str) -> Contender:
    """Return `redis-worker run` with `processor`, which is `sum` or a no-op."""
    keys = ("--url", "URL", "--input", INPUT, "--output", OUTPUT)
    run = ("redis_worker", "run", *keys, "--processor", processor, "--log-level", "warning")
    return Contender(name, (*run, *options), sums=processor == "sum")


def functions(name: str, queue: str, called: tuple[str, ...], *options: str, unique: bool = False) -> Contender:
    """Return `redis-worker run` with a queue of functions, which tasks call in turn."""
    run = ("redis_worker", "run", f"benchmarks.function_tasks:{queue}", "--url", "URL", "--log-level", "error")
    return Contender(name, (*run, *options), sums=False, queue=queue, functions=called, unique=unique)


def supervised() -> Contender:
    """Return `redis-worker serve` with a pool of `sum`, which records metrics as well."""
    file = str(Path(__file__).parent / "workers.toml")
    return Contender("sum, in a supervisor", ("redis_worker", "serve", file, "--log-level", "warning"))


def idle_queue(index: int) -> str:
    """Return the name of an idle topic, or of an idle pool's list."""
    return f"idle{index}"


class Running:
    """The process of a contender."""

    def __init__(self, contender: Contender, process: subprocess.Popen[bytes], log: Path) -> None:
        self.contender = contender
        self.pid = process.pid
        self._process = process
        self._log = log

    def check(self) -> None:
        """Raise ContenderDied if the process has ended."""
        if self._process.poll() is not None:
            raise ContenderDied(
                f"{self.contender.name} ended with status {self._process.returncode}:\n{self._log.read_text()[-2000:]}"
            )

    def cpu(self) -> float:
        """Return the CPU time of the process and its children so far, in seconds; 0 without /proc."""
        return cpu_of(self.pid)


def cpu_of(pid: int) -> float:
    """Return the CPU time of a process and its children so far, in seconds; 0 without /proc."""
    seconds = 0.0
    for process in (pid, *children_of(pid)):
        try:
            fields = (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        seconds += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return seconds


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that they have started; none without /proc."""
    found: list[int] = []
    try:
        for thread in (Path("/proc") / str(pid) / "task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass
    return [pid for child in found for pid in (child, *children_of(child))]


@contextmanager
def running(contender: Contender, url: str) -> Iterator[Running]:
    """Start the contender's process, and kill it at the end of the `with` block."""
    command = [sys.executable, "-m", *(url if word == "URL" else word for word in contender.command)]
    # Settings of the user's own workers must not affect the measurement.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_")}
    environment["BENCH_URL"] = url  # for workers.toml
    with tempfile.TemporaryDirectory(prefix="redis-worker-bench-") as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
        try:
            yield Running(contender, process, log)
        finally:
            # A graceful stop would wait for the blocking pop, up to a second; no task can be lost here.
            process.kill()
            process.wait()
