"""The ledger of a cron job: each instant is fired once, and none is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redis_worker.broker.keys import CronKeys
from redis_worker.chaos.journal import Command
from redis_worker.chaos.ledger import Ledger, Violation
from redis_worker.chaos.replay import Change
from redis_worker.vocabulary.payload import loads

# Seconds by which an instant may be late: no fault lasts as long.
_LATEST = 30.0


class CronLedger(Ledger):
    """The ledger of a job that runs a function, and of one that pushes a task; both fire once a second."""

    def __init__(self, run: CronKeys, pushed: CronKeys, waiting: str, ran: Callable[[], Sequence[int]]) -> None:
        """`waiting` is the list that tasks are pushed to; `ran` returns the instants for which the function began,
        if it is one that notes them.
        """
        super().__init__()
        self.twice = self.missed = self.lost = 0
        self._names = {run.fired.encode(): "run", pushed.fired.encode(): "push"}
        self._runs = run.runs.encode()
        self._claims: dict[int, bytes] = {}
        """The instants of runs that have begun, and the names of these."""
        self._waiting, self._ended = waiting.encode(), run.ended.encode()
        self._fired: dict[str, set[int]] = {"run": set(), "push": set()}
        self._tasks = 0
        self._last = 0.0
        self._lost_runs: set[bytes] = set()
        self._ran = ran
        self._history: dict[int, list[tuple[float, str]]] = {}

    def observe(self, transaction: list[Command], at: float) -> None:
        """See Ledger."""
        self._last = at
        for command in transaction:
            for change in self._replay.apply(command):
                self._follow(change, at)

    def close(self) -> None:
        """See Ledger."""
        for kind, fired in self._fired.items():
            if not fired:
                continue
            last = max(fired)
            if self._last - last / 1000 > _LATEST:
                self._violate(last, f"was the last one fired by the job that {_does(kind)}, long before the end")
            for instant in sorted(set(range(min(fired), last + 1, 1000)) - fired):
                self.missed += 1
                self._violate(instant, f"was left out by the job that {_does(kind)}")
        began = self._ran()
        for instant in sorted(set(began)):
            if began.count(instant) > 1:
                self._repeat(instant, f"ran {began.count(instant)} times")
            if instant not in self._fired["run"]:
                self._violate(instant, "ran, and was not fired")
        self.lost = len(self._lost_runs)
        if self._tasks != len(self._fired["push"]):
            self.violations.append(Violation(f"{self._tasks} tasks for {len(self._fired['push'])} instants"))

    def counts(self) -> dict[str, int]:
        """See Ledger."""
        return {
            "instants": len(self._fired["run"]) + len(self._fired["push"]),
            "runs": len(self._claims),
            "tasks": self._tasks,
            "runs ended by the death of their process": self.lost,
            "left out": self.missed,
            "fired twice": self.twice,
        }

    def _follow(self, change: Change, at: float) -> None:
        kind = self._names.get(change.key)
        if kind is not None and change.entered:
            instant = int(change.element)
            self._history.setdefault(instant, []).append((at, f"fired by the job that {_does(kind)}"))
            if instant in self._fired[kind]:
                self._repeat(instant, f"was fired twice by the job that {_does(kind)}")
            self._fired[kind].add(instant)
            self.settled += 1
        elif change.key == self._runs and change.entered:
            instant = int(change.value.split()[1])
            if self._claims.setdefault(instant, change.element) != change.element:
                self._repeat(instant, "has two runs")
        elif change.key == self._waiting and change.entered:
            loads(change.element)
            self._tasks += 1
        elif change.key == self._ended and change.element.startswith(b"lost "):
            self._lost_runs.add(change.element) if change.entered else self._lost_runs.discard(change.element)

    def _repeat(self, instant: int, text: str) -> None:
        self.twice += 1
        self._violate(instant, text)

    def _violate(self, instant: int, text: str) -> None:
        self.violations.append(Violation(f"instant {instant} {text}", str(instant), self._history.get(instant, [])))


def _does(kind: str) -> str:
    return "runs a function" if kind == "run" else "pushes tasks"
