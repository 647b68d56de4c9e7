"""Several worker processes under one parent, which replaces the dead and restarts all on a change of source."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from redis_worker.cli.fleet_member import LIFELINE, NUMBER, URL
from redis_worker.cli.source_files import Sources
from redis_worker.engine.process_group import end_group
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.fleet")

_TICK = 0.1
# A worker that lived for less than this died young: the next one waits, longer each time.
_YOUNG = 5.0
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# What a worker may take to end beyond --shutdown-timeout, in seconds, before it is killed.
_GRACE = 15.0
# Exit codes of wrong configuration and of a refusing Redis: the next worker would say the same.
_CONFIGURATION = 2
_FINAL = (_CONFIGURATION, 3)
_NAMES = {number.value: number.name for number in signal.Signals}


class Child:
    """A place in the fleet, and the worker process that has it just now."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.due = 0.0
        """When the next process may start."""
        self.code: int | None = None
        """The exit code of the last process, once there is to be no other."""
        self._started = 0.0
        self._pause = 0.0
        self._kill_at: float | None = None

    @property
    def ending(self) -> bool:
        """True when its process has been told to end and has not done so."""
        return self._kill_at is not None

    @property
    def working(self) -> bool:
        """True when it has a process that is to go on."""
        return self.process is not None and not self.ending

    def start(self, environment: dict[str, str], lifeline: int) -> None:
        self._started = time.monotonic()
        try:
            # Ignored from birth, or it would end a worker that is not yet prepared for it.
            with _ignored(signal.SIGUSR1):
                self.process = subprocess.Popen(
                    _command(),
                    env=environment,
                    pass_fds=(lifeline,),
                    # Ctrl-C reaches the parent only, which passes it on once.
                    start_new_session=True,
                )
        except OSError as error:
            logger.warning("worker process %d cannot be started: %s", self.number, error)
            self.pause()

    def stop(self, patience: float) -> None:
        """Have the process end gracefully; after `patience` seconds it is killed. A second call does nothing."""
        if self.process is not None and not self.ending:
            self._kill_at = time.monotonic() + patience
            self.process.terminate()

    def ended(self) -> int | None:
        """The exit code of a process that has ended since the last call. Kills one that is overdue."""
        if self.process is None:
            return None
        code = self.process.poll()
        if code is not None:
            end_group(self.process.pid)  # what it has started, and did not end
            self.process = self._kill_at = None
        elif self._kill_at is not None and time.monotonic() >= self._kill_at:
            logger.warning("worker process %d does not end: killing it; others recover what it held", self.number)
            self.process.kill()
            self._kill_at = time.monotonic() + _GRACE
        return code

    def pause(self) -> float:
        """Put the next process off, each time for longer when they die young. Returns the seconds."""
        young = time.monotonic() - self._started < _YOUNG
        self._pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self._pause * 2)) if young else _FIRST_PAUSE
        self.due = time.monotonic() + self._pause
        return self._pause

    def start_over(self) -> None:
        """The next process may start at once, whatever became of the last."""
        self.due = self._pause = 0.0


class Fleet:
    """Keeps `size` workers with this command line running."""

    def __init__(self, size: int, url: str, *, finite: bool, shutdown_timeout: float, sources: Sources | None) -> None:
        """`finite` says that workers end by themselves when their work is done; otherwise they are replaced."""
        self._children = [Child(number) for number in range(1, size + 1)]
        self._url = url
        self._finite = finite
        self._patience = shutdown_timeout + _GRACE
        self._sources = sources
        self._received = 0
        self._passed_on = 0
        self._show = False
        self._stopping = False
        self._restarted = False
        # The sources are wrong since the last change: the next change may mend them.
        self._broken = False
        # One goes first: what is wrong with all of them is to be said once.
        self._proven = False
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)

    def run(self) -> int:
        """Returns the worst of the exit codes, when no worker is left and none is to come."""
        watching = f", watching {self._sources.folder}" if self._sources else ""
        logger.info("%d worker process%s%s", len(self._children), "es" * (len(self._children) > 1), watching)
        with self._ours, self._theirs, _signals_taken(self._receive, self._ask):
            try:
                while any(child.code is None for child in self._children):
                    self._step()
                    time.sleep(_TICK)
            finally:
                for child in self._children:
                    if child.process is not None:
                        child.process.kill()
                        child.process.wait()
                        end_group(child.process.pid)
        return max(child.code or 0 for child in self._children)

    def _step(self) -> None:
        self._pass_on_signals()
        with contextlib.suppress(BlockingIOError):
            self._proven |= bool(self._ours.recv(1024))
        if self._sources is not None and not self._stopping and self._sources.changed():
            self._restart()
        for child in self._children:
            asked = child.ending
            if (code := child.ended()) is not None:
                self._settle(child, code, asked)
            elif child.process is None and child.code is None:
                self._fill(child)

    def _fill(self, child: Child) -> None:
        """Start a process in an empty place, if it is time for it."""
        if self._stopping:
            child.code = 0
            return
        first = not any(other.working for other in self._children)
        if (self._proven or first) and not self._broken and time.monotonic() >= child.due:
            child.start(self._environment(child.number), self._theirs.fileno())

    def _settle(self, child: Child, code: int, asked: bool) -> None:
        """Decide what follows the end of a process; `asked` says that it had been told to end."""
        if self._stopping:
            # One that had not yet taken over the signals when they came has nothing to finish either.
            child.code = 0 if code == -signal.SIGTERM else code if code >= 0 else 1
        elif asked:
            child.start_over()
        elif code == _CONFIGURATION and self._restarted:
            self._broken = True
            logger.warning("waiting for the next change")
        elif code in _FINAL:
            child.code = code
            self._stop()
        elif code == 0 and self._finite:
            child.code = 0
        else:
            pause = child.pause()
            how = f"killed by {_NAMES.get(-code, -code)}" if code < 0 else f"exit code {code}"
            logger.warning("worker process %d ended (%s); the next one starts in %.1f s", child.number, how, pause)

    def _restart(self) -> None:
        logger.info("a source file changed: restarting")
        self._restarted, self._broken, self._proven = True, False, False
        for child in self._children:
            child.start_over()
            child.stop(self._patience)

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.stop(self._patience)

    def _receive(self, *_: object) -> None:
        self._received += 1

    def _ask(self, *_: object) -> None:
        self._show = True

    def _pass_on_signals(self) -> None:
        """First: stop gracefully; second: cancel; third: kill. One at a time, for equal signals at once become one.

        SIGUSR1 goes to all as it is: each shows what it runs.
        """
        if self._show:
            self._show = False
            for child in self._children:
                if child.process is not None:
                    child.process.send_signal(signal.SIGUSR1)
        if self._passed_on == self._received:
            return
        self._passed_on += 1
        if self._passed_on == 1:
            self._stop()
            return
        for child in self._children:
            if child.process is not None:
                child.process.send_signal(signal.SIGINT if self._passed_on == 2 else signal.SIGKILL)

    def _environment(self, number: int) -> dict[str, str]:
        told = {LIFELINE: str(self._theirs.fileno()), URL: self._url, NUMBER: str(number)}
        if self._sources is not None:
            # Bytecode is known by size and second: of two quick changes it may hide the later one.
            told["PYTHONDONTWRITEBYTECODE"] = "1"
        return os.environ | told


def _command() -> list[str]:
    # -m would put the working directory first on the path, where a redis.py of the user's hides the real one.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    return [sys.executable, *safe, "-m", "redis_worker", *sys.argv[1:]]


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextlib.contextmanager
def _signals_taken(receive: Callable[..., None], ask: Callable[..., None]) -> Iterator[None]:
    handlers = {signal.SIGINT: receive, signal.SIGTERM: receive, signal.SIGUSR1: ask}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
