"""A stand: one peer on a private server, its tasks, its workers, its results."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from redis import Redis

from benchmarks.contenders import ROOT, children_of, cpu_of
from benchmarks.peers.environments import Environment
from redis_worker.embedded import EmbeddedServer

_PATIENCE = 120.0


class PeerFailed(Exception):
    """Raised if a peer's program fails; the text has the end of its log."""


class Stand:
    """A peer with its server, as a `with` block that leaves nothing running."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self._stack = ExitStack()
        self.pushed = 0

    def __enter__(self) -> Self:
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-worker-peer-")))
        self._server = self._stack.enter_context(EmbeddedServer())
        self.redis: Any = self._stack.enter_context(Redis.from_url(self._server.url))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def started(self) -> int:
        """The number of slow tasks that have started."""
        path = self._folder / "started"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def push(self, task: str, count: int) -> None:
        """Enqueue `count` tasks. Raises PeerFailed."""
        self._run("push", task, str(count))
        self.pushed += count

    def ask(self, task: str, worker: subprocess.Popen[bytes]) -> None:
        """Enqueue one task, and check the result that `worker` gives. Raises PeerFailed."""
        self._run("ask", task, "1", worker=worker)

    def clear(self) -> None:
        """Empty the server."""
        self.redis.flushall()
        self.pushed = 0

    def answered(self) -> int:
        """Return the number of results."""
        command, key = self.environment.peer.counted
        if command == "KEYS":
            return len(self.redis.keys(key))
        if command == "LEFT":
            return self.pushed - int(self.redis.zcard(key))
        return int(self.redis.execute_command(command, key))

    def server_cpu(self) -> float:
        """Return the CPU time of the server so far, in seconds."""
        used = self.redis.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    @contextmanager
    def worker(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker; it is killed with all its processes at the end of the `with` block."""
        with self._process(self.environment.command(command, self._server.url), "worker.log") as process:
            yield process

    def check(self, process: subprocess.Popen[bytes]) -> None:
        """Raise PeerFailed if the worker has ended."""
        if process.poll() is not None:
            raise PeerFailed(f"its worker ended with status {process.returncode}: {self._end_of('worker.log')}")

    def _run(self, *arguments: str, worker: subprocess.Popen[bytes] | None = None) -> None:
        with self._process([*self.environment.program, *arguments], "program.log") as program:
            wait_until(lambda: program.poll() is not None or (worker and worker.poll() is not None), _PATIENCE)
            if worker is not None:
                self.check(worker)
            if program.returncode != 0:
                status = "takes too long" if program.returncode is None else f"ended with {program.returncode}"
                raise PeerFailed(f"{arguments[0]} {status}: {self._end_of('program.log')}")

    @contextmanager
    def _process(self, command: list[str], log: str) -> Iterator[subprocess.Popen[bytes]]:
        variables = self.environment.variables(self._server.url, self._folder / "started")
        with (self._folder / log).open("wb") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            kill(process)

    def _end_of(self, log: str) -> str:
        return (self._folder / log).read_text(errors="replace").strip()[-500:]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with all that it has started, as a loss of power does."""
    # Some peers give their processes sessions and groups of their own.
    tree = children_of(process.pid) if process.poll() is None else []
    for end, pid in ((os.killpg, process.pid), *((os.kill, child) for child in tree)):
        try:
            end(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Return the CPU time of a worker with its processes, in seconds."""
    return cpu_of(process.pid)


def wait_until(condition: Any, seconds: float, every: float = 0.05) -> bool:
    """Return True once `condition` holds, False after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True
