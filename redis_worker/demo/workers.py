"""The worker processes of the demo: real ones, started as a user would start them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from redis_worker.demo.queue import DemoQueue
from redis_worker.vocabulary.errors import RedisWorkerError

if TYPE_CHECKING:
    from typing import Self

CONCURRENCY = 4
# The shortest there is: a dead worker's tasks are soon with another.
LEASE = 2

# How the log lines begin that tell of tasks of dead workers; each has a `count` (reporting.py).
_RECOVERED = "recovered "
_CLAIMED_AGAIN = "claimed "


class WorkerProcess:
    """One `redis-worker run`. Its log lines go to a file, and are read there."""

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
        """SIGKILL: it has no chance to say or save anything. Returns when it is gone."""
        self._killed = True
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self._stopping = True
        self._process.terminate()

    def has_ended(self) -> bool:
        """Whether it has. Raises RedisWorkerError when nobody asked it to, or when it failed."""
        code = self._process.poll()
        if code is None or self._killed:
            return self._killed
        if code or not self._stopping:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            raise RedisWorkerError(f"{self} ended ({how}); its last words: {self._last_words()}")
        return True

    def recovered(self, dead: str) -> int | None:
        """How many tasks it says it has recovered of the dead worker; None when it has said nothing yet."""
        counts = [line["count"] for line in self._lines(_RECOVERED) if line["message"].endswith(dead)]
        return sum(counts) if counts else None

    def claimed_again(self) -> int:
        """How many tasks that dead workers had held it says it has claimed."""
        return sum(line["count"] for line in self._lines(_CLAIMED_AGAIN))

    def _lines(self, beginning: str) -> Iterator[dict[str, Any]]:
        for text in self._log.read_text(encoding="utf-8", errors="replace").splitlines():
            if text.startswith("{") and text.endswith("}"):  # the last one may be half written
                line = json.loads(text)
                if line["message"].startswith(beginning) and "count" in line:
                    yield line

    def _last_words(self) -> str:
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        try:
            return str(json.loads(last)["message"])
        except (ValueError, KeyError, TypeError):  # an error before there is a log, or a traceback
            return last or "none"


class Crew:
    """All workers; whoever is still there at the end of the `with` block is killed."""

    def __init__(self, url: str, folder: Path, downloads: Path) -> None:
        """`folder` is where they work; what they download goes to `downloads`."""
        self.members: list[WorkerProcess] = []
        self._url = url
        self._folder = folder
        self._downloads = downloads

    def __enter__(self) -> Self:
        # Its other end closes with this process, however that ends: the workers then stop by themselves.
        self._lifeline, self._other_end = os.pipe()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                # Not where the user is: a .env there is meant for other workers.
                cwd=self._folder,
                pass_fds=(self._lifeline,),
                # Ctrl-C comes to the demo alone, which ends them.
                process_group=0,
            )
        self.members.append(WorkerProcess(title, queue, process, log))
        return self.members[-1]

    def stop(self) -> None:
        """Ask all for a graceful stop."""
        for member in self.members:
            member.stop()

    def has_ended(self) -> bool:
        """Whether all have. Raises RedisWorkerError when one did that should not have."""
        ended = [member.has_ended() for member in self.members]  # all are asked, for each may raise
        return all(ended)

    def claimed_again(self) -> int:
        """How many tasks that dead workers had held were claimed by others."""
        return sum(member.claimed_again() for member in self.members)

    def _command(self, queue: DemoQueue) -> list[str]:
        return [
            *(sys.executable, "-m", "redis_worker", "run", "--url", self._url),
            *("--input", queue.keys.waiting, "--output", queue.keys.output, "--processor", queue.processor),
            *("--concurrency", str(CONCURRENCY), "--lease", str(LEASE), "--log-format", "json"),
        ]

    def _environment(self) -> dict[str, str]:
        """The user's environment, without settings that are meant for other workers."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith("REDIS_WORKER_")}
        # This package, also where it is not installed but found in the current directory.
        package = str(Path(__file__).parents[2])
        ours["PYTHONPATH"] = os.pathsep.join(filter(None, (package, ours.get("PYTHONPATH"))))
        ours["REDIS_WORKER_DOWNLOAD_DIR"] = str(self._downloads)
        ours["REDIS_WORKER_LIFELINE"] = str(self._lifeline)  # cli/lifeline.py has it watched
        return ours
