"""A cron job as documented, in plain Python: the measure of its scripts in test_cron_model.py.

As in model.py, `Job` has one method for each step of the server, and `Process` the operations as generators of calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from redis_worker.broker.cron import Claim, Verdict
from redis_worker.broker.keys import CRON, CronKeys
from tests.model import START, Call, Steps

LEASE_MS = 15_000
FORGOTTEN_MS = 90 * 86_400_000
REMEMBERED, MOST_QUEUED = 4, 2
"""As the test sets them: instants that are remembered, and queued, at most."""


class Running(NamedTuple):
    """A run as it is stored: its trigger is due, queued or hand."""

    trigger: str
    instant: int
    started: int
    where: str


@dataclass
class Job:
    """The keys of one job, and the server's clock."""

    keys: CronKeys
    overlap: str
    input: str | None
    time: int = START
    fired: list[int] = field(default_factory=list)
    running: dict[str, int] = field(default_factory=dict)
    runs: dict[str, Running] = field(default_factory=dict)
    queued: list[int] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    pushed: list[str] = field(default_factory=list)
    known: bool = False
    ends: dict[str, int] = field(default_factory=dict)
    """The time until which a key is kept: 90 days from the last opening, if it existed then."""
    remembers: bool = True
    """False once a key has expired."""
    begun: int = 0
    """Runs begun so far."""

    @property
    def now(self) -> int:
        return self.time // 1000

    @property
    def floor(self) -> int:
        return int(self.record.get("floor", 0))

    @property
    def last(self) -> int:
        """The latest instant dealt with."""
        return max(self.floor, *self.fired[-1:], 0)

    def pass_time(self, microseconds: int) -> None:
        self.time += microseconds
        keys = self.keys
        places = {
            keys.fired: (self.fired,),
            keys.running: (self.running,),
            keys.runs: (self.runs,),
            keys.queued: (self.queued,),
            keys.ended: (self.ended,),
            keys.record: (self.record, self.counts),
        }
        for key in [key for key, end in self.ends.items() if end <= self.now]:
            del self.ends[key]
            self.remembers = False
            for place in places[key]:
                place.clear()

    def let_expiries_go(self) -> None:
        """Forget the end of each key that does not exist: it has none when it is made again."""
        existing = self.content()
        self.ends = {key: end for key, end in self.ends.items() if key in existing}

    def open(self, schedule: str, how: str) -> tuple[int, int]:
        record = self.record
        new = not self.fired and "floor" not in record
        changed = record.get("schedule") != schedule
        if (new and how != "hand") or (changed and how == "first"):
            record["floor"] = self.now
            record.pop("next", None)
        if "schedule" not in record or how == "first":
            record |= {"app": "app", "name": "job", "schedule": schedule, "timezone": "UTC"}
        self.ends = dict.fromkeys(self.content(), self.now + FORGOTTEN_MS)
        self.ends.pop(self.input or "", None)
        return self.now, self.last

    def register(self) -> None:
        self.known = True

    def claim(self, kind: str, instant: int, run: str, next: str, payload: bytes, where: str) -> tuple[int, Claim]:
        if run in self.running:
            self.running[run] = self.now + LEASE_MS
            return self.now, Claim(Verdict.FIRED, self.runs[run].instant, [])
        if run in self.ended or (kind != "due" and f"lost {run}" in self.ended):
            # It was repeated, and arrives late: the run has ended.
            return self.now, Claim(Verdict.EMPTY if kind == "queued" else Verdict.TAKEN, 0, [])
        lost = self.bury()
        if kind == "due" and instant > self.now:
            return self.now, Claim(Verdict.EARLY, instant - self.now, lost)
        if next:
            self.record["next"] = next
        verdict, instant = {"due": self.due, "queued": self.take, "hand": self.hand}[kind](instant, run)
        if verdict in (Verdict.SKIPPED, Verdict.FULL) and kind != "hand":
            self.counts["skipped"] += 1
        if verdict is not Verdict.FIRED:
            return self.now, Claim(verdict, 0, lost)
        if self.input is not None and kind != "queued":
            self.pushed.append(payload.decode())
            self.note("success" + self.by_hand(kind), instant, self.now, "", "0", where)
            self.counts["success"] += 1
        else:
            self.running[run] = self.now + LEASE_MS
            self.runs[run] = Running(kind, instant, self.now, where)
            self.begun += 1
        return self.now, Claim(verdict, instant, lost)

    def due(self, instant: int, run: str) -> tuple[Verdict, int]:
        overlap = self.overlap if self.input is None else "allow"
        if instant <= self.floor or instant in self.fired:
            if f"lost {run}" not in self.ended:
                return Verdict.TAKEN, instant
            # The very run that fired it: it begins only now.
            self.ended = [name for name in self.ended if name != f"lost {run}"]
            self.counts["lost"] -= 1
            self.begun -= 1
            overlap = "allow"
        self.remember([instant])
        if overlap == "skip" and self.running:
            return Verdict.SKIPPED, instant
        if overlap == "queue" and len(self.queued) >= MOST_QUEUED:
            return Verdict.FULL, instant
        if overlap == "queue" and (self.running or self.queued):
            self.queued = sorted({*self.queued, instant})
            return Verdict.QUEUED, instant
        return Verdict.FIRED, instant

    def take(self, instant: int, run: str) -> tuple[Verdict, int]:
        if not self.queued:
            return Verdict.EMPTY, 0
        if any(self.overlap != "allow" or its.trigger == "queued" for its in self.runs.values()):
            return Verdict.BUSY, 0
        return Verdict.FIRED, self.queued.pop(0)

    def hand(self, instant: int, run: str) -> tuple[Verdict, int]:
        must_wait = self.input is None and self.overlap != "allow" and self.running
        return Verdict.SKIPPED if must_wait else Verdict.FIRED, self.now

    def bury(self) -> list[str]:
        """Record the runs of dead processes as lost. Returns their processes."""
        lost = []
        for end, run in sorted((end, run) for run, end in self.running.items()):
            if end > self.now:
                continue
            del self.running[run]
            its = self.runs.pop(run)
            if run not in self.ended:
                self.ended.insert(0, f"lost {run}")
                reason = "its process is gone, or was cut off from Redis"
                self.note("lost", its.instant, its.started, reason, "", its.where)
                self.counts["lost"] += 1
                lost.append(its.where)
        self.let_expiries_go()
        return lost

    def remember(self, instants: Sequence[int]) -> None:
        self.fired = sorted({*self.fired, *instants})
        if surplus := self.fired[:-REMEMBERED]:
            self.record["floor"] = max(self.floor, surplus[-1])
            self.fired = self.fired[-REMEMBERED:]

    def finish(self, run: str, outcome: str, by_hand: bool, error: str, ms: int, its: Running, goes_on: bool) -> bool:
        """Return True if the run had been presumed lost."""
        if not goes_on:
            self.running.pop(run, None)
            self.runs.pop(run, None)
        if run in self.ended:
            return False
        was_lost = f"lost {run}" in self.ended
        if was_lost:
            self.counts["lost"] -= 1
        self.ended.insert(0, run)
        self.counts[outcome] += 1
        self.note(outcome + " by hand" * by_hand, its.instant, its.started, error, str(ms), its.where)
        return was_lost

    def give_up(self, last: int, until: int, number: int) -> bool:
        if last != self.last:
            return False
        self.record["floor"] = until
        self.counts["missed"] += number
        return True

    def queue(self, instants: Sequence[int]) -> int:
        new = [instant for instant in instants if instant > self.floor and instant not in self.fired]
        self.queued = sorted({*self.queued, *new})
        self.remember(new)
        return len(new)

    def renew(self, run: str) -> bool:
        if run in self.running:
            self.running[run] = self.now + LEASE_MS
        return run in self.running

    def note(self, outcome: str, instant: int, started: int, error: str, duration: str, where: str) -> None:
        self.record |= {"instant": instant, "started": started, "finished": self.now, "duration": duration}
        self.record |= {"outcome": outcome, "error": error, "worker": where}

    @staticmethod
    def by_hand(kind: str) -> str:
        return " by hand" if kind == "hand" else ""

    def content(self) -> dict[str, Any]:
        """All keys of the job that should exist."""
        keys = self.keys
        counts = {f"count:{outcome}": str(number) for outcome, number in self.counts.items()}
        found = {
            keys.fired: {str(instant): instant for instant in self.fired},
            keys.running: self.running,
            keys.runs: {run: " ".join(map(str, its)) for run, its in self.runs.items()},
            keys.queued: {str(instant): instant for instant in self.queued},
            keys.ended: self.ended,
            keys.record: {name: str(value) for name, value in self.record.items()} | counts,
            self.input or "": self.pushed,
        }
        return {key: value for key, value in found.items() if value}

    def snapshot(self) -> dict[str, Any]:
        return self.content() | ({CRON: {"app/job": self.keys.stem}} if self.known else {})


class Process:
    """A process that has the job."""

    def __init__(self, job: Job, schedule: str, where: str) -> None:
        self.job = job
        self.schedule = schedule
        self.where = where
        self.opened = False

    def open(self, by_hand: bool) -> Steps[int]:
        how = "hand" if by_hand else "again" if self.opened else "first"
        _, last = yield Call("cron_open", partial(self.job.open, self.schedule, how))
        yield Call("HSET", self.job.register)
        self.opened = self.opened or not by_hand
        return last

    def claim(self, kind: str, instant: int, run: str, next: str, payload: bytes) -> Steps[Claim]:
        effect = partial(self.job.claim, kind, instant, run, next, payload, self.where)
        _, claim = yield Call("cron_claim", effect)
        return claim

    def finish(self, *ending: Any) -> Steps[bool]:
        """`ending` are the arguments of `Job.finish`."""
        return (yield Call("cron_finish", partial(self.job.finish, *ending)))

    def give_up(self, last: int, until: int, number: int) -> Steps[bool]:
        return (yield Call("cron_miss", partial(self.job.give_up, last, until, number)))

    def queue(self, instants: Sequence[int]) -> Steps[int]:
        return (yield Call("cron_queue", partial(self.job.queue, instants)))

    def renew(self, run: str) -> Steps[bool]:
        return (yield Call("renew", partial(self.job.renew, run)))
