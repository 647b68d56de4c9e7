"""The consumers: processes that serve workers.toml, to be stopped, or killed as a machine would be."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from redis_worker.process_guard import ProcessGuard

FILE = Path(__file__).with_name("workers.toml")
_ROOT = FILE.parents[2]


class Consumers:
    """Processes of one consumer group; those left at the end are stopped, and killed if this process is killed."""

    def __init__(self, brokers: str, dsn: str, file: Path = FILE) -> None:
        self._command = [sys.executable, "-m", "redis_worker", "serve", str(file), "--log-level", "error"]
        self._environment = os.environ | {"KAFKA_BROKERS": brokers, "POSTGRES_DSN": dsn}
        self._guard = ProcessGuard(Path(tempfile.gettempdir()) / f"redis-worker-{secrets.token_hex(8)}")
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for log in sorted(self._guard.folder.iterdir()):
            sys.stderr.write(log.read_text(encoding="utf-8"))
        self._guard.dismiss()

    def start(self) -> None:
        """Start one more."""
        log = self._guard.folder / secrets.token_hex(4)
        self._running.append(self._guard.spawn(self._command, log, cwd=_ROOT, env=self._environment))

    @property
    def oldest(self) -> int:
        """The process id of the consumer that was started first of those that run."""
        return self._running[0].pid

    def kill(self) -> None:
        """Kill the consumer that was started first of those that run."""
        victim = self._running.pop(0)
        victim.kill()
        victim.wait()

    def failed(self) -> list[int]:
        """Return the exit codes of those that have ended by themselves."""
        return [code for code in (process.poll() for process in self._running) if code is not None]

    def stop(self) -> list[int]:
        """Stop all that run, and return their exit codes."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait() for process in self._running]
        self._running.clear()
        return codes
