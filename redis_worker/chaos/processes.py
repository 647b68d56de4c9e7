"""Worker processes: real ones, started as a user would start them, with their logs in files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from redis_worker.engine.process_group import end_group
from redis_worker.vocabulary.errors import RedisWorkerError


class WorkerProcess:
    """A `redis-worker` process, with its log in a file."""

    def __init__(self, title: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.title = title
        self._killed = False
        self._stopping = False
        self._group_ended = False
        self._process = process
        self._log = log

    def __str__(self) -> str:
        return f"worker {self.title} (pid {self.pid})"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """Send SIGKILL, which leaves no chance to log or save anything, and wait for the end."""
        self._killed = True
        self._process.kill()
        self._process.wait()

    def kill_all(self) -> None:
        """Kill the process and all others of its group."""
        if self._process.poll() is None or (self._killed and not self.group_has_ended()):
            end_group(self.pid)
        self._killed = True
        self._process.wait()

    def group_has_ended(self) -> bool:
        """Return True if no process of its group is left."""
        if not self._group_ended:
            try:
                os.killpg(self.pid, 0)
            except ProcessLookupError:
                self._group_ended = True  # kept, because another group may get this number later
        return self._group_ended

    def stop(self) -> None:
        """Request a graceful stop."""
        self._stopping = True
        self._process.terminate()

    def has_ended(self) -> bool:
        """Return True if the process has ended. Raises RedisWorkerError if it failed or ended without a request."""
        code = self._process.poll()
        if code is None or self._killed:
            return self._killed
        if code or not self._stopping:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RedisWorkerError(f"{self} ended ({how}); its last log line: {self._last_line()}")
        return True

    def logged(self) -> int:
        """Return the number of lines in its log."""
        return self._log.read_bytes().count(b"\n")

    def lines(self, prefix: str) -> Iterator[dict[str, Any]]:
        """Yield the JSON log lines with a `count` whose messages start with `prefix`."""
        for text in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("{") and text.endswith("}"):  # the last line may be incomplete
                line = json.loads(text)
                if line["message"].startswith(prefix) and "count" in line:
                    yield line

    def _last_line(self) -> str:
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        try:
            return str(json.loads(last)["message"])
        except (ValueError, KeyError, TypeError):  # an error before the log is configured, or a traceback
            return last or "none"


class Processes:
    """Processes that this program starts; the end of the `with` block kills the rest."""

    def __init__(self, folder: Path, *modules: Path) -> None:
        """`folder` is their working directory, and the place of their logs; `modules` are folders to import from."""
        self.started: list[WorkerProcess] = []
        self._modules = modules
        self._folder = folder

    def __enter__(self) -> Self:
        # The other end closes with this process, even on SIGKILL: the workers then stop.
        self._lifeline, self._other_end = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.started:
            process.kill_all()
        os.close(self._lifeline)
        os.close(self._other_end)

    def start(self, title: str, arguments: Sequence[str], **environment: str) -> WorkerProcess:
        """Start `redis-worker` with `arguments`, and with `environment` in addition to the user's."""
        log = self._folder / f"{title.replace(' ', '-')}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "redis_worker", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=self._environment() | environment,
                # Not the user's directory: a .env there is meant for other workers.
                cwd=self._folder,
                pass_fds=(self._lifeline,),
                # Only this program receives Ctrl-C, and stops them.
                process_group=0,
            )
        self.started.append(WorkerProcess(title, process, log))
        return self.started[-1]

    def _environment(self) -> dict[str, str]:
        """Return the user's environment, without settings meant for other workers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_WORKER_")}
        # This package, even if not installed but found in the current directory.
        places = (Path(__file__).parents[2], *self._modules, environment.get("PYTHONPATH"))
        environment["PYTHONPATH"] = os.pathsep.join(str(place) for place in places if place)
        environment["REDIS_WORKER_LIFELINE"] = str(self._lifeline)  # cli/serving.py watches it
        return environment
