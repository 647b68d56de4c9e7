"""Several worker processes under one parent, which replaces the dead and restarts all on a change of source."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("redis_worker.fleet")

# The child's end of a pipe that closes when the parent is gone, however it went.
_LIFELINE = "REDIS_WORKER_LIFELINE"
_URL = "REDIS_WORKER_FLEET_URL"
_TICK = 0.1
_LOOK_EVERY = 0.5
# A child that lived for less than this died young: the next one waits, longer each time.
_YOUNG = 5.0
_LONGEST_WAIT = 30.0
# Exit codes of wrong configuration and of a refusing Redis: the next child would say the same.
_FINAL = (2, 3)


def run_fleet(processes: int, watch: Path | None, url: str) -> int:
    """Keep `processes` workers with this command line running; the worst of their exit codes."""
    return _Fleet(processes, watch, url).run()


def fleet_url() -> str | None:
    """In a worker of a fleet: the Redis URL the parent has settled on; None elsewhere."""
    return os.environ.get(_URL) if _LIFELINE in os.environ else None


def stop_with_parent(stop: Callable[[], None]) -> None:
    """In a worker of a fleet: call `stop` when the parent is gone."""
    lifeline = os.environ.get(_LIFELINE)
    if lifeline is None:
        return
    loop = asyncio.get_running_loop()

    def gone() -> None:
        loop.remove_reader(int(lifeline))
        stop()

    loop.add_reader(int(lifeline), gone)


class _Child:
    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.wait = 0.0
        self.due = 0.0
        self.code: int | None = None
        """The exit code of a child that has ended and will not be replaced."""


class _Fleet:
    def __init__(self, processes: int, watch: Path | None, url: str) -> None:
        self._children = [_Child(number) for number in range(processes)]
        self._watch = watch
        self._url = url
        self._signals = 0
        self._restarting = False

    def run(self) -> int:
        before = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}
        lifeline, self._lifeline = os.pipe()
        self._child_end = lifeline
        snapshot, looked = self._snapshot(), time.monotonic()
        logger.info("%d worker processes%s", len(self._children), f", watching {self._watch}" if self._watch else "")
        try:
            while any(child.code is None for child in self._children):
                for child in self._children:
                    self._tend(child)
                if self._watch and time.monotonic() - looked >= _LOOK_EVERY:
                    now, looked = self._snapshot(), time.monotonic()
                    if now != snapshot:
                        snapshot = now
                        self._restart()
                time.sleep(_TICK)
        finally:
            for child in self._children:
                if child.process is not None and child.process.poll() is None:
                    child.process.kill()
                    child.process.wait()
            os.close(lifeline)
            os.close(self._lifeline)
            for number, handler in before.items():
                signal.signal(number, handler)
        return max(child.code or 0 for child in self._children)

    def _tend(self, child: _Child) -> None:
        """Start the child when it is due; see whether it has ended."""
        if child.code is not None:
            return
        if child.process is None:
            if self._signals:
                child.code = 0
            elif time.monotonic() >= child.due:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            return
        child.process = None
        if self._signals or (code == 0 and not self._restarting_child(child)) or code in _FINAL:
            # One that had not yet taken over the signals when they came has nothing to finish either.
            stopped = self._signals and -code in (signal.SIGTERM, signal.SIGINT)
            child.code = 0 if stopped else code if code >= 0 else 1
            if code in _FINAL:
                self._end_all()
            return
        self._replace(child, code)

    def _restarting_child(self, child: _Child) -> bool:
        restarting, child.due = child.due < 0, 0.0
        return restarting

    def _replace(self, child: _Child, code: int) -> None:
        if code == 0:
            child.wait = 0.0
        elif time.monotonic() - child.started < _YOUNG:
            child.wait = min(_LONGEST_WAIT, max(0.5, child.wait * 2))
        else:
            child.wait = 0.5
        child.due = time.monotonic() + child.wait
        if code != 0:
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            logger.warning("worker process %d ended (%s); the next one starts in %.1f s", child.number, how, child.wait)

    def _start(self, child: _Child) -> None:
        child.started = time.monotonic()
        child.process = subprocess.Popen(
            [sys.executable, "-m", "redis_worker", *sys.argv[1:]],
            env=os.environ | {_LIFELINE: str(self._child_end), _URL: self._url},
            pass_fds=(self._child_end,),
            # Ctrl-C reaches the parent only, which passes it on once.
            start_new_session=True,
        )

    def _restart(self) -> None:
        logger.info("a source file changed: restarting")
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.due = -1.0
                child.process.terminate()

    def _receive(self, number: int, _frame: object) -> None:
        self._signals += 1
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _end_all(self) -> None:
        self._receive(signal.SIGTERM, None)

    def _snapshot(self) -> dict[str, int]:
        """When each Python file under the watched folder was last changed."""
        if self._watch is None:
            return {}
        found: dict[str, int] = {}
        for path in self._watch.rglob("*.py"):
            try:
                found[str(path)] = path.stat().st_mtime_ns
            except OSError:
                continue  # gone between the two
        return found
