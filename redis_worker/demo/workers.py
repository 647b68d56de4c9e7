"""The workers of the demo, each on one queue."""

from __future__ import annotations

from pathlib import Path

from redis_worker.demo.processes import Processes, WorkerProcess
from redis_worker.demo.queue import DemoQueue

CONCURRENCY = 4
# The shortest lease: another worker soon recovers a dead worker's tasks.
LEASE = 2

# Prefixes of the log lines about tasks of dead workers; each has a `count` (reporting.py).
_RECOVERED = "recovered "
_CLAIMED_AGAIN = "claimed "


class Crew(Processes):
    """All workers; the end of the `with` block kills the rest."""

    def __init__(self, url: str, folder: Path, downloads: Path) -> None:
        """`folder` is their working directory; downloads go to `downloads`."""
        super().__init__(folder)
        self.queues: dict[WorkerProcess, DemoQueue] = {}
        self._url = url
        self._downloads = downloads

    def employ(self, title: str, queue: DemoQueue) -> WorkerProcess:
        """Start a worker on `queue`."""
        worker = self.start(title, self._arguments(queue), REDIS_WORKER_DOWNLOAD_DIR=str(self._downloads))
        self.queues[worker] = queue
        return worker

    def stop(self) -> None:
        """Request a graceful stop of all workers."""
        for worker in self.started:
            worker.stop()

    def has_ended(self) -> bool:
        """Return True if all workers have ended. Raises RedisWorkerError if one ended unexpectedly."""
        ended = [worker.has_ended() for worker in self.started]  # no short circuit: each call may raise
        return all(ended)

    def claimed_again(self) -> int:
        """Return the number of dead workers' tasks that other workers claimed."""
        return sum(line["count"] for worker in self.started for line in worker.lines(_CLAIMED_AGAIN))

    def _arguments(self, queue: DemoQueue) -> list[str]:
        return [
            *("run", "--url", self._url, "--input", queue.keys.waiting, "--output", queue.keys.output),
            *("--processor", queue.processor, "--concurrency", str(CONCURRENCY), "--lease", str(LEASE)),
            *("--log-format", "json"),
        ]


def recovered(worker: WorkerProcess, dead: str) -> int | None:
    """Return the number of tasks of `dead` that `worker` logged as recovered; None if it logged none yet."""
    counts = [line["count"] for line in worker.lines(_RECOVERED) if line["message"].endswith(dead)]
    return sum(counts) if counts else None
