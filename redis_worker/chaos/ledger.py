"""The ledger: follows each task through the journal and holds every step against what the mode promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, NamedTuple

from redis_worker.broker.keys import ARRIVED, BUNDLE, BUNDLES, TASKS, Keys
from redis_worker.chaos.journal import Command
from redis_worker.chaos.replay import Change, Replay
from redis_worker.vocabulary.payload import loads

Fate = Literal["answered", "dead", "any"]

# Places of a settled task.
_ANSWERED, _DEAD, _COMPLETED = "answered", "dead", "completed"
_ENDS = frozenset((_ANSWERED, _DEAD, _COMPLETED))
_WAITING, _DELAYED, _IN_FLIGHT = "waiting", "delayed", "in flight"


class Violation(NamedTuple):
    """A broken promise."""

    text: str
    id: str = ""
    """The offending task; empty if it concerns none."""
    history: Sequence[tuple[float, str]] = ()
    """Its steps: time of day in seconds since the epoch, and the place it came to."""


class Ledger(ABC):
    """The follower of a run, which judges it."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []
        self.settled = 0
        """Number of settled tasks or instants."""
        self._replay = Replay()

    @abstractmethod
    def observe(self, transaction: list[Command], at: float) -> None:
        """Take note of a transaction, seen at the time `at`, in seconds since the epoch."""

    @abstractmethod
    def close(self) -> None:
        """Judge the final state; no worker runs any more."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Return the numbers of the run, by name, in the order to print them."""


@dataclass(slots=True)
class Record:
    """A task, and where it is now."""

    id: str
    raw: bytes
    fate: Fate = "any"
    is_right: Callable[[bytes], bool] | None = None
    """Returns True for a right answer, if these are known."""
    places: list[str] = field(default_factory=list)
    history: list[tuple[float, str]] = field(default_factory=list)
    claims: int = 0
    returned: bool = False
    """True if its last worker was presumed dead."""
    result: bytes | None = None

    @property
    def is_settled(self) -> bool:
        """True if it is answered, dead or completed."""
        return not _ENDS.isdisjoint(self.places)


@dataclass(frozen=True, slots=True)
class Promise:
    """The promises of a mode."""

    may_lose: bool = False
    """True for at-most-once: a task that a worker has taken is nowhere until it is answered."""
    may_repeat: bool = False
    """True if a result may be written again, with the same value."""
    has_results: bool = True
    """False for topics: a message that leaves its worker is completed."""
    splits: bool = False
    """True if results lie on another node than tasks: no moment of both is known, so only the end is judged."""


class TaskLedger(Ledger):
    """The ledger of tasks in queues, or of messages in topics."""

    def __init__(self, queues: Iterable[Keys], promise: Promise) -> None:
        super().__init__()
        self.again = self.delayed = self.twice = self.repeated = 0
        self.lost = 0
        self._promise = promise
        self._queues = list(queues)
        self._records: dict[bytes, Record] = {}
        self._by_id: dict[str, Record] = {}
        self._offenders: set[bytes] = set()
        self._reclaims = False
        """True while the changes are those of reclaim.lua, which takes a name off the registry."""
        self._done: set[tuple[bytes, bytes]] = set()
        self._begun: dict[tuple[bytes, bytes], bytes] = {}
        self._place = lru_cache(maxsize=None)(self._find_place)

    def expect(self, id: str, raw: bytes, fate: Fate = "any", is_right: Callable[[bytes], bool] | None = None) -> None:
        """Announce a task that is about to be pushed; `is_right` returns True for a right answer."""
        self._records[raw] = self._by_id[id] = Record(id, raw, fate, is_right)

    def unsettled(self) -> int:
        """Return the number of tasks that are neither answered, dead nor completed."""
        return sum(not record.is_settled for record in self._records.values())

    def observe(self, transaction: list[Command], at: float) -> None:
        """See Ledger."""
        touched: dict[bytes, tuple[Record, list[str]]] = {}
        self._reclaims = any(
            command[0].upper() == b"ZREM" and command[1].endswith(b":workers") for command in transaction
        )
        for command in transaction:
            for change in self._replay.apply(command):
                self._follow(change, at, touched)
        for record, before in touched.values():
            self._judge(record, before, at)

    def close(self) -> None:
        """See Ledger."""
        for record in self._records.values():
            if not record.history:
                self._violate(record, "was pushed, and never arrived")
            elif not record.places:
                self.lost += 1
                if not self._promise.may_lose:
                    self._violate(record, "is nowhere")
            elif not _ENDS.issuperset(record.places):
                self._violate(record, f"is not done with, and nothing goes on: {' and '.join(record.places)}")
            elif record.fate != "any" and record.fate not in record.places:
                self._violate(record, f"should be {record.fate}, and is {' and '.join(record.places)}")
            elif record.is_right is not None and not record.is_right(record.result or b""):
                self._violate(record, f"has the wrong answer {record.result!r}")

    def counts(self) -> dict[str, int]:
        """See Ledger."""
        records = self._records.values()
        done = _ANSWERED if self._promise.has_results else _COMPLETED
        found = {
            "pushed": sum(bool(record.history) for record in records),
            done: sum(done in record.places for record in records),
            "dead": sum(_DEAD in record.places for record in records),
            "delayed again": self.delayed,
            "delivered again": self.again,
            "lost": self.lost,
            "written twice" if self._promise.has_results else "completed twice": self.twice,
            "written again with the same value": self.repeated,
        }
        for name in ("delayed again", "written again with the same value"):
            if not found[name]:
                del found[name]
        return found

    def _follow(self, change: Change, at: float, touched: dict[bytes, tuple[Record, list[str]]]) -> None:
        """Move the task that a change concerns."""
        place = self._place(change.key)
        if place is None:
            return
        if place in {"done", "begun"}:
            self._follow_idempotent(place, change)
            return
        record = self._record(place, change)
        if record is None:
            self.violations.append(Violation(f"a task that was never pushed is {place}: {change.element[:100]!r}"))
            return
        touched.setdefault(record.raw, (record, record.places.copy()))
        if not change.entered:
            if place in record.places:
                record.places.remove(place)
            if place == _DELAYED and at * 1000 < float(change.value) - 1:
                self._violate(record, f"left the delayed ones {float(change.value) / 1000 - at:.3f} s early")
            if place.startswith(_IN_FLIGHT):
                record.returned = self._reclaims
        elif place == _ANSWERED:
            self._answer(record, change.value)
        else:
            record.places.append(place)
            if place.startswith(_IN_FLIGHT):
                self.again += record.returned and record.claims > 0
                record.claims += 1

    def _answer(self, record: Record, result: bytes) -> None:
        if _ANSWERED not in record.places:
            record.places.append(_ANSWERED)
        elif self._promise.may_repeat and result == record.result:
            self.repeated += 1
        else:
            self.twice += 1
            record.places.append("written twice")
        record.result = result

    def _judge(self, record: Record, before: list[str], at: float) -> None:
        """Hold the place of a task after a transaction against the promise."""
        after = record.places
        if not after and before and self._ends_here(before):
            after.append(_COMPLETED)
        record.history.append((at, " and ".join(after) or "nowhere"))
        if before and before[0].startswith(_IN_FLIGHT) and _DELAYED in after:
            self.delayed += 1
        if "written twice" in after:
            after.remove("written twice")
            self._violate(record, "was written twice")
        elif self._promise.splits:
            pass
        elif len(after) > 1 and set(after) != {_ANSWERED, _DEAD}:
            self._violate(record, f"is in two places at once: {' and '.join(after)}")
        elif not after and not self._promise.may_lose:
            self._violate(record, "is nowhere")
        if record.is_settled and _ENDS.isdisjoint(before):
            self.settled += 1

    def _ends_here(self, before: list[str]) -> bool:
        return not self._promise.has_results and before[0].startswith(_IN_FLIGHT)

    def _follow_idempotent(self, place: str, change: Change) -> None:
        """Hold the beginning of an idempotent message against those begun and completed before."""
        name = (change.key.rpartition(b":")[0], change.element)
        if place == "done":
            self._done.add(name) if change.entered else self._done.discard(name)
        elif not change.entered:
            self._begun.pop(name, None)
        else:
            holder = self._begun.get(name, change.value)
            id = change.element.decode()
            raw = self._held_by(name[0], change.value) or b""
            record = self._records.get(raw) or self._by_id.get(id) or Record(id, b"")
            if name in self._done:
                self.twice += 1
                self._violate(record, "was begun after it was completed")
            elif self._held_by(name[0], holder) and holder.partition(b"\n")[0] != change.value.partition(b"\n")[0]:
                self.twice += 1
                self._violate(record, "was begun while another worker had it")
            self._begun[name] = change.value

    def _held_by(self, stem: bytes, holder: bytes) -> bytes | None:
        """Return the message in a value of `begun` if its worker is registered and has it in flight."""
        worker, _, number = holder.partition(b"\n")
        if worker not in self._replay.members(stem + b":workers"):
            return None
        inflight = stem + b":inflight:" + worker
        first, position = divmod(int(number), BUNDLE)
        bundle = self._replay.elements(b"%b%b:%d" % (inflight, BUNDLES.encode(), first * BUNDLE))
        large = bundle[position] if position < len(bundle) else b""
        return self._replay.held(inflight + TASKS.encode()).get(number, large or None)

    def _record(self, place: str, change: Change) -> Record | None:
        if place == _ANSWERED:
            return self._by_id.get(change.element.decode())
        if place == _DELAYED:
            return self._records.get(change.element.partition(b":")[2])
        if place == _DEAD:
            return self._records.get(loads(change.element)["raw"].encode())
        return self._records.get(change.element)

    def _find_place(self, key: bytes) -> str | None:
        """Return the place that a key stands for; None if no task is in it."""
        name = key.decode(errors="replace")
        for keys in self._queues:
            fixed = {
                keys.waiting: _WAITING, keys.output: _ANSWERED, keys.dead: _DEAD, keys.delayed: _DELAYED,
                keys.done: "done", keys.begun: "begun",
            }  # fmt: skip
            if name in fixed:
                return fixed[name]
            stem = keys.listed("")
            if name.startswith(stem):
                worker = name.removeprefix(stem)
                if worker.endswith(ARRIVED):
                    return f"on its way to {worker.removesuffix(ARRIVED)}"
                if worker.endswith(BUNDLES):
                    return None  # their marks
                return f"{_IN_FLIGHT} at {worker.removesuffix(TASKS).partition(BUNDLES)[0]}"
        return None

    def _violate(self, record: Record, text: str) -> None:
        """Note a violation: one for each task, since the first may cause others."""
        if record.raw not in self._offenders:
            self._offenders.add(record.raw)
            self.violations.append(Violation(f"task {record.id} {text}", record.id, record.history))
