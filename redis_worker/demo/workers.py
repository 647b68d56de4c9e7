"""Worker processes of the demo: real ones, started as a user would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from redis_worker.demo.queue import DemoQueue
from redis_worker.vocabulary.errors import RedisWorkerError

CONCURRENCY = 4
# The shortest lease: another worker soon recovers a dead worker's tasks.
LEASE = 2

# Prefixes of the log lines about tasks of dead workers; each has a `count` (reporting.py).
_RECOVERED = "recovered "
_CLAIMED_AGAIN = "claimed "


class WorkerProcess:
    """A `redis-worker run` process, with its log in a file."""

    def __init__(self, title: str, queue: DemoQueue, process: subprocess.Popen[bytes], log: Path) -> None:
        self.title = title
        self.queue = queue
        self._killed = False
        self._stopping = False
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

    def recovered(self, dead: str) -> int | None:
        """Return the number of tasks of `dead` that it logged as recovered; None if it logged none yet."""
        counts = [line["count"] for line in self._lines(_RECOVERED) if line["message"].endswith(dead)]
        return sum(counts) if counts else None

    def claimed_again(self) -> int:
        """Return the number of dead workers' tasks that it logged as claimed."""
        return sum(line["count"] for line in self._lines(_CLAIMED_AGAIN))

    def _lines(self, prefix: str) -> Iterator[dict[str, Any]]:
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


class Crew:
    """All workers; the end of the `with` block kills the rest."""

    def __init__(self, url: str, folder: Path, downloads: Path) -> None:
        """`folder` is their working directory; downloads go to `downloads`."""
        self.members: list[WorkerProcess] = []
        self._url = url
        self._folder = folder
        self._downloads = downloads

    def __enter__(self) -> Self:
        # The other end closes with this process, even on SIGKILL: the workers then stop.
        self._lifeline, self._other_end = os.pipe()
        return self

    def __exit__(self, *_: object) -> None:
        for member in self.members:
            member.kill()
        os.close(self._lifeline)
        os.close(self._other_end)

    def start(self, title: str, queue: DemoQueue) -> WorkerProcess:
        """Start a worker on `queue`."""
        log = self._folder / f"{title.replace(' ', '-')}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                self._command(queue),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                env=self._environment(),
                # Not the user's directory: a .env there is meant for other workers.
                cwd=self._folder,
                pass_fds=(self._lifeline,),
                # Only the demo receives Ctrl-C, and stops them.
                process_group=0,
            )
        self.members.append(WorkerProcess(title, queue, process, log))
        return self.members[-1]

    def stop(self) -> None:
        """Request a graceful stop of all workers."""
        for member in self.members:
            member.stop()

    def has_ended(self) -> bool:
        """Return True if all workers have ended. Raises RedisWorkerError if one ended unexpectedly."""
        ended = [member.has_ended() for member in self.members]  # no short circuit: each call may raise
        return all(ended)

    def claimed_again(self) -> int:
        """Return the number of dead workers' tasks that other workers claimed."""
        return sum(member.claimed_again() for member in self.members)

    def _command(self, queue: DemoQueue) -> list[str]:
        return [
            *(sys.executable, "-m", "redis_worker", "run", "--url", self._url),
            *("--input", queue.keys.waiting, "--output", queue.keys.output, "--processor", queue.processor),
            *("--concurrency", str(CONCURRENCY), "--lease", str(LEASE), "--log-format", "json"),
        ]

    def _environment(self) -> dict[str, str]:
        """Return the user's environment, without settings meant for other workers."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_WORKER_")}
        # This package, even if not installed but found in the current directory.
        package = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (package, environment.get("PYTHONPATH"))))
        environment["REDIS_WORKER_DOWNLOAD_DIR"] = str(self._downloads)
        environment["REDIS_WORKER_LIFELINE"] = str(self._lifeline)  # cli/lifeline.py watches it
        return environment
