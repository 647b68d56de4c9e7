"""The two measurements of a peer: its rate, and the tasks it answers after a `kill -9`."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from statistics import median

from benchmarks.peers.environments import Environment
from benchmarks.peers.stand import PeerFailed, Stand, cpu, kill, wait_until

# Seconds that a drain should take, the least and most tasks of one, and the tasks of the first.
_SECONDS, _LEAST, _MOST, _FIRST = 2.0, 500, 400_000, 500
# The rate is measured after this share of the tasks, so that no start of an interpreter is in it.
_FROM = 0.2
_PATIENCE = 60.0
# Looking for results takes at most this share of the time: some are counted by KEYS.
_LOOKING = 0.05

RUNNING, WAITING = 2, 4
"""Slow tasks at work and in the queue when a worker is killed."""
AFTER_KILL = 90.0
"""Seconds that a new worker has."""


@dataclass
class Rates:
    """What the drains of one kind of task have measured."""

    environment: Environment
    task: str
    command: str
    rates: list[float] = field(default_factory=list)
    costs: list[tuple[float, float]] = field(default_factory=list)
    """CPU time of worker and server for each task, in microseconds."""
    failure: str = ""

    @property
    def rate(self) -> float:
        """Tasks per second."""
        return median(self.rates)

    def measure(self) -> None:
        """Drain once; before the first time, find out how many tasks take long enough."""
        try:
            with Stand(self.environment) as stand:
                if not self.rates:
                    with stand.worker(self.command) as process:
                        self._check_result(stand, process)
                    self._count = self._fitting(stand)
                while not self.drain(stand, self._count):
                    self._count *= 2
        except PeerFailed as error:
            self.failure = str(error)

    @property
    def _name(self) -> str:
        return self.task.partition(" ")[0]

    def _check_result(self, stand: Stand, process: subprocess.Popen[bytes]) -> None:
        try:
            stand.ask(self._name, process)
        except PeerFailed:
            stand.check(process)
            # SAQ's workers, while they start, abort a job that another one of them has just taken.
            stand.ask(self._name, process)

    def _fitting(self, stand: Stand) -> int:
        """Return the number of tasks that takes about two seconds."""
        count = _FIRST
        while not self.drain(stand, count) and count < _MOST:
            count *= 8
        first = self.rates.pop() if self.rates else _MOST
        self.costs.clear()
        return max(_LEAST, min(_MOST, int(first * _SECONDS)))

    def drain(self, stand: Stand, count: int) -> bool:
        """Drain `count` tasks. Return False if that was too fast to be measured."""
        stand.clear()
        stand.push(self._name, count)
        first = int(count * _FROM)
        with stand.worker(self.command) as process:
            begun = (self._wait_for(stand, process, first), time.perf_counter(), cpu(process), stand.server_cpu())
            ended = (self._wait_for(stand, process, count), time.perf_counter(), cpu(process), stand.server_cpu())
        done, seconds, worker, server = (after - before for before, after in zip(begun, ended, strict=True))
        if done:
            self.rates.append(done / seconds)
            self.costs.append((worker * 1e6 / done, server * 1e6 / done))
        return bool(done)

    def _wait_for(self, stand: Stand, process: subprocess.Popen[bytes], count: int) -> int:
        end = time.monotonic() + _PATIENCE
        while True:
            begun = time.monotonic()
            if (found := stand.answered()) >= count:
                return found
            stand.check(process)
            if begun > end:
                raise PeerFailed(f"{found} of {count} tasks are done after {_PATIENCE:g} s")
            time.sleep(max(0.005, (time.monotonic() - begun) / _LOOKING))


@dataclass(frozen=True)
class Survived:
    """The tasks that were answered after a kill."""

    answered: int
    seconds: float
    """The time of the last answer, since the new worker was started."""


def survived(environment: Environment) -> Survived | str:
    """Kill a worker of default settings with two tasks at work and four queued; a new one has 90 s.

    Returns the reason if that cannot be measured.
    """
    command = environment.peer.killed
    try:
        with Stand(environment) as stand:
            stand.push("slow", RUNNING + WAITING)
            with stand.worker(command) as process:
                if not wait_until(lambda: stand.started >= RUNNING, _PATIENCE):
                    raise PeerFailed("no two tasks have started")
                kill(process)
            return _answers(stand, command)
    except PeerFailed as error:
        return str(error)


def _answers(stand: Stand, command: str) -> Survived:
    answered, last, begun = 0, 0.0, time.monotonic()
    with stand.worker(command) as process:
        while (now := time.monotonic() - begun) < AFTER_KILL and answered < RUNNING + WAITING:
            stand.check(process)
            if (found := stand.answered()) > answered:
                answered, last = found, now
            time.sleep(0.1)
    return Survived(answered, last)
