"""A queue as documented, in plain Python: the measure of the scripts and of the queue objects in test_model.py.

`Server` has one method for each step that Redis executes at once. `Worker` has the operations of a worker as
generators: each yields its calls one by one, so that a driver can leave any of them out, lose its reply or execute it
late.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

from redis_worker.broker.keys import BUNDLE, LAST, Keys
from redis_worker.vocabulary.errors import Disconnected

T = TypeVar("T")

LEASE_MS = 60_000
REST_MS = 3_600_000
RETIRED_MS = 3_600_000
COUNTS_MS = 7 * 86_400_000
POSTPONE_MS = 500
START = 1_795_000_000_123_456
"""The server's clock at the start, in microseconds since the epoch."""

OK, LEASE_LOST, ALONE, PAUSED = range(4)
RUN, DONE, POSTPONED = range(3)


class Call(NamedTuple):
    """One call of the server: the name of its script or command, and its effect."""

    name: str
    effect: Callable[[], Any]


Steps = Generator[Call, Any, T]


class Letter(NamedTuple):
    """A dead letter."""

    raw: bytes
    id: str | None
    reason: str
    attempts: int
    worker: str


class Waiter(NamedTuple):
    """A delayed task; of those due at the same time, the first one made is the first one promoted."""

    due: int
    order: int
    raw: bytes


class Counts(NamedTuple):
    deaths: int = 0
    retries: int = 0


class Numbered(NamedTuple):
    """A task in flight."""

    number: int
    raw: bytes
    counts: Counts


@dataclass(eq=False)
class Lease:
    """One registration of a worker, as the worker knows it."""

    name: str
    lost: bool = False
    unanswered: int = 0


@dataclass(eq=False)
class Claimed:
    """A task that a worker knows to hold."""

    raw: bytes
    lease: Lease
    number: int = 0
    deaths: int = 0
    retries: int = 0
    done: bool = False

    @property
    def id(self) -> str | None:
        return id_of(self.raw)


@dataclass(eq=False)
class Ending:
    """The outcome of a task: `again` is the delay of a retry in ms; `dead` adds a dead letter."""

    claimed: Claimed
    result: bytes | None = None
    again: int | None = None
    dead: bool = False
    reason: str = ""


def id_of(raw: bytes) -> str | None:
    return json.loads(raw)["id"] if raw.startswith(b"{") else None


@dataclass
class Server:
    """The keys of one queue, and the server's clock."""

    keys: Keys
    max_deliveries: int = 3
    most_dead: int = 3
    result_ttl: int = 0
    """Ms until a result expires; 0 keeps it."""
    remember: int = 0
    """Ms for which a completed message is remembered; 0 if it may run twice."""
    large: bool = False
    """True if each task is large: a claim of waiting tasks reads them in bundles."""
    time: int = START
    waiting: list[bytes] = field(default_factory=list)
    inflight: dict[str, dict[int, bytes]] = field(default_factory=dict)
    """What each worker holds, by the numbers of its claims, in their order."""
    last: dict[str, int] = field(default_factory=dict)
    """The last number given to each worker."""
    arrived: dict[str, list[bytes]] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    retired: dict[str, int] = field(default_factory=dict)
    claimants: dict[str, int] = field(default_factory=dict)
    presence: set[str] = field(default_factory=set)
    delayed: list[Waiter] = field(default_factory=list)
    dead: list[Letter] = field(default_factory=list)
    dropped: int = 0
    deaths: Counter[bytes] = field(default_factory=Counter)
    retries: Counter[bytes] = field(default_factory=Counter)
    counts_end: int = 0
    results: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """The field of each result: its value, and the time until which it is kept, or 0."""
    done: dict[str, int] = field(default_factory=dict)
    begun: dict[str, tuple[str, int]] = field(default_factory=dict)
    paused: bool = False
    pushed: Counter[bytes] = field(default_factory=Counter)
    gone: Counter[bytes] = field(default_factory=Counter)
    """Tasks that have left the queue for good: answered, completed, purged, cancelled or dropped."""
    orders: Iterator[int] = field(default_factory=count)
    """Numbers of delayed tasks, drawn when a worker sends them: the order of their tokens."""

    @property
    def now(self) -> int:
        return self.time // 1000

    @property
    def soonest(self) -> int:
        """The first whole millisecond that is not before now: nothing is due early."""
        return -(-self.time // 1000)

    # Producers and operators

    def push(self, raws: Sequence[bytes], first: bool = False) -> None:
        self.pushed.update(raws)
        self.waiting = [*reversed(raws), *self.waiting] if first else [*self.waiting, *raws]

    def delay(self, raws: Sequence[bytes], due: int) -> None:
        self.pushed.update(raws)
        for raw in raws:
            self.put_off(raw, due, next(self.orders))

    def put_off(self, raw: bytes, due: int, order: int) -> None:
        self.delayed.append(Waiter(due, order, raw))
        self.delayed.sort()

    def end_delay(self, waiters: Iterable[Waiter], cancel: bool) -> None:
        for waiter in waiters:
            self.delayed.remove(waiter)
            if cancel:
                self.forget(waiter.raw)
                self.gone[waiter.raw] += 1
            else:
                self.waiting.append(waiter.raw)

    def purge(self) -> int:
        self.gone.update(purged := self.waiting)
        self.waiting = []
        return len(purged)

    def revive(self, letters: Iterable[Letter], requeue: bool) -> None:
        for letter in letters:
            self.dead.remove(letter)
            if requeue:
                self.waiting.append(letter.raw)
                self.forget(letter.raw)
            else:
                self.gone[letter.raw] += 1

    def pass_time(self, microseconds: int) -> None:
        self.time += microseconds
        if self.counts_end <= self.now:
            self.deaths.clear()
            self.retries.clear()
        self.results = {id: (value, end) for id, (value, end) in self.results.items() if not 0 < end <= self.now}

    def notable(self) -> list[bytes]:
        """Tasks that can be read; last those that are dead, counted or begun."""
        begun = [self.inflight.get(name, {}).get(number, b"") for name, number in self.begun.values()]
        last = [*(letter.raw for letter in self.dead), *self.deaths, *self.retries, *filter(None, begun)]
        return [raw for raw in (*self.pushed, *last) if id_of(raw) is not None]

    def moments(self) -> list[float]:
        """Times to come at which a lease, a mark or a delay ends."""
        ends = [*self.workers.values(), *self.retired.values(), *self.done.values()]
        return sorted({end for end in (*ends, *(waiter.due for waiter in self.delayed)) if end > self.now})

    def is_watched(self, name: str, microseconds: int) -> bool:
        """Return True if tasks in the lists of `name` will be found for that time."""
        until = self.retired.get(name, float("inf"))
        return name in self.claimants and until - self.now > microseconds // 1000

    # Leases

    def register(self, name: str) -> None:
        self.workers[name] = self.now + LEASE_MS
        self.claimants[name] = LEASE_MS

    def renew(self, name: str, idle: bool = False) -> int:
        """Return 0 if the lease was taken away, 2 if it rests now, else 1."""
        if name not in self.workers and (name not in self.claimants or name in self.retired):
            return 0
        rests = idle and not self.inflight.get(name) and not self.arrived.get(name)
        self.workers[name] = self.now + (REST_MS + 0.5 if rests else LEASE_MS)
        return 2 if rests else 1

    def rests(self, name: str) -> bool:
        return self.workers[name] % 1 != 0

    def present(self, name: str) -> None:
        if name in self.workers:
            self.presence.add(name)

    # Claims

    def pop(self, name: str) -> bool:
        if self.waiting:
            self.arrived.setdefault(name, []).append(self.waiting.pop(0))
            return True
        return False

    def claim(self, name: str, limit: int, known: int) -> tuple[int, list[Numbered], list[Numbered]]:
        """Return the state, tasks, and large tasks; `known` is the greatest number that the worker knows."""
        if name not in self.workers:
            return LEASE_LOST, [], []
        arrived, held = self.arrived.pop(name, []), self.inflight.setdefault(name, {})
        if self.paused:
            self.waiting = arrived + self.waiting
            return PAUSED, [], []
        reach = max(0, limit - len(arrived))
        offered, rest = arrived + self.waiting[:reach], self.waiting[reach:]
        claimed: list[bytes] = []
        for raw in offered:
            others = [*held.values(), *claimed]
            # A task with a single chance left is alone in flight: if the worker dies, it is guilty.
            if others and (self.has_one_chance(raw) or (len(others) == 1 and self.has_one_chance(others[0]))):
                break
            claimed.append(raw)
        self.waiting = offered[len(claimed) :] + rest
        if not claimed:
            return ALONE if offered else OK, [], []
        if self.rests(name):
            self.workers[name] = self.now + LEASE_MS
        # The counts of a task are kept under its digest, for which it is read.
        is_bundled = self.large and not (+self.deaths or +self.retries) and len(claimed) > len(arrived)
        small = len(arrived) if is_bundled else len(claimed)
        last = max(self.last.get(name, 0), known)
        numbers = [*range(last + 1, last + 1 + small)]
        first = -(-(last + small + 1) // BUNDLE) * BUNDLE
        numbers += range(first, first + len(claimed) - small)
        numbered = dict(zip(numbers, claimed, strict=True))
        self.last[name] = max(numbered)
        held |= numbered
        tasks = [Numbered(number, raw, self.counts(raw)) for number, raw in numbered.items()]
        return OK, tasks[:small], tasks[small:]

    def read(self, name: str, numbers: Sequence[int]) -> list[Numbered]:
        held = self.inflight.get(name, {})
        return [Numbered(number, held[number], Counts()) for number in numbers if number in held]

    def counts(self, raw: bytes) -> Counts:
        return Counts(self.deaths[raw], self.retries[raw])

    def has_one_chance(self, raw: bytes) -> bool:
        return self.max_deliveries > 1 and self.deaths[raw] == self.max_deliveries - 1

    def begin(self, name: str, messages: Sequence[tuple[int, str, bool, int]]) -> list[int]:
        verdicts = []
        for number, id, busy, order in messages:
            if self.done.get(id, 0) > self.now:
                verdicts.append(DONE)
            elif busy or self.is_handled_elsewhere(id, name):
                if (raw := self.take_from(name, number)) is not None:
                    self.put_off(raw, self.now + POSTPONE_MS, order)
                verdicts.append(POSTPONED)
            else:
                self.begun[id] = (name, number)
                verdicts.append(RUN)
        return verdicts

    def is_handled_elsewhere(self, id: str, name: str) -> bool:
        holder, number = self.begun.get(id, ("", 0))
        return holder != name and holder in self.workers and number in self.inflight.get(holder, {})

    def missing(self, name: str, known: set[int]) -> list[Numbered]:
        held = self.inflight.get(name, {}).items()
        return [Numbered(number, raw, self.counts(raw)) for number, raw in held if number not in known]

    def take_from(self, name: str, number: int) -> bytes | None:
        return self.inflight.get(name, {}).pop(number, None)

    # The ends of claims

    def release(self, name: str, numbers: Sequence[int]) -> None:
        for number in reversed(numbers):
            if (raw := self.take_from(name, number)) is not None:
                self.waiting.insert(0, raw)

    def settle(self, name: str, endings: Sequence[tuple[Ending, int]]) -> list[Ending]:
        """Return the endings refused: those of tasks that others have now."""
        refused, completed = [], []
        for ending, order in sorted(endings, key=lambda pair: (pair[0].dead, pair[0].again is not None)):
            id = ending.claimed.id
            if (raw := self.take_from(name, ending.claimed.number)) is None:
                refused.append(ending)
                continue
            if ending.again is not None:
                self.put_off(raw, self.soonest + ending.again, order)
                self.retries[raw] += 1
                self.keep_counts(COUNTS_MS + ending.again)
                continue
            self.forget(raw)
            if ending.dead:
                attempts = 1 + ending.claimed.deaths + ending.claimed.retries
                self.dead.append(Letter(raw, id, ending.reason, attempts, name))
                self.begun.pop(id or "", None) if self.remember else None
            else:
                completed.append(id or "")
                self.gone[raw] += 1
            if ending.result is not None and id is not None and self.keys.output:
                self.results[id] = (ending.result, self.now + self.result_ttl if self.result_ttl else 0)
        self.keep_counts(COUNTS_MS if any(ending.again is not None for ending, _ in endings) else 0)
        self.drop_surplus()
        if self.remember and completed:
            self.done = {id: end for id, end in self.done.items() if end > self.now}
            for id in completed:
                self.done.setdefault(id, self.now + self.remember)
                self.begun.pop(id, None)
        return [] if name in self.workers else refused

    def drop_surplus(self) -> None:
        surplus = max(0, len(self.dead) - self.most_dead)
        self.gone.update(letter.raw for letter in self.dead[:surplus])
        self.dropped += surplus
        self.dead = self.dead[surplus:]

    def forget(self, raw: bytes) -> None:
        del self.deaths[raw], self.retries[raw]
        self.keep_counts(0)

    def keep_counts(self, milliseconds: int) -> None:
        self.counts_end = max(self.counts_end, self.now + milliseconds) if +self.deaths or +self.retries else 0

    # Upkeep

    def promote(self) -> int:
        """Return the ms until the next task is due; -1 if there is none."""
        due = [waiter for waiter in self.delayed if waiter.due <= self.now]
        self.waiting += [waiter.raw for waiter in due]
        self.delayed = self.delayed[len(due) :]
        return self.delayed[0].due - self.now if self.delayed else -1

    def overdue(self) -> tuple[list[str], list[str], list[str]]:
        """Return the workers with an ended lease, the retired ones, and those of them checked for the last time."""
        for name, lease in self.claimants.items():
            if name not in self.workers and name not in self.retired:
                self.workers[name] = self.now + lease
        for name in (*self.workers, *self.retired):
            self.claimants.setdefault(name, LEASE_MS)
        return _ended(self.workers, self.now), _ended(self.retired), _ended(self.retired, self.now)

    def reclaim(self, name: str, retired_ms: int, force: bool) -> int:
        end = self.workers.get(name)
        if end is not None and end > self.now and not force:
            return -1
        if end is None and name not in self.retired and not force:
            return -1
        self.presence.discard(name)
        held, arrived = list(self.inflight.pop(name, {}).values()), self.arrived.pop(name, [])
        self.last.pop(name, None)
        self.waiting = held + arrived + self.waiting
        if end is not None and not force:
            self.deaths.update(held)
            self.keep_counts(COUNTS_MS if held else 0)
        if end is not None:
            del self.workers[name]
            if retired_ms:
                self.retired[name] = self.now + retired_ms
        if not retired_ms:
            self.claimants.pop(name, None)
        return len(held + arrived)

    # Comparison

    def ledger(self) -> Counter[bytes]:
        """How many of each task there are in all places: as many as were pushed."""
        places = [self.waiting, *(held.values() for held in self.inflight.values()), *self.arrived.values()]
        found = Counter(raw for place in places for raw in place)
        found.update(waiter.raw for waiter in self.delayed)
        found.update(letter.raw for letter in self.dead)
        return found + self.gone

    def is_finished(self) -> bool:
        return self.gone + Counter(letter.raw for letter in self.dead) == self.pushed

    def snapshot(self) -> dict[str, Any]:
        """All keys that should exist, with their content."""
        keys = self.keys
        found: dict[str, Any] = {
            keys.waiting: self.waiting,
            keys.workers: self.workers,
            keys.retired: self.retired,
            keys.claimants: self.claimants,
            keys.presence: self.presence,
            keys.delayed: [(waiter.due, waiter.raw) for waiter in self.delayed],
            keys.dead: self.dead,
            keys.dropped: self.dropped,
            keys.attempts: {"d": +self.deaths, "r": +self.retries} if +self.deaths or +self.retries else {},
            keys.done: self.done,
            keys.begun: self.begun,
            keys.paused: self.paused,
            keys.output: {id: value for id, (value, _) in self.results.items()},
        }
        found |= {keys.inflight(name): {LAST: last, **self.inflight[name]} for name, last in self.last.items()}
        found |= {keys.arrived(name): raws for name, raws in self.arrived.items()}
        return {key: value for key, value in found.items() if value}


def _ended(ends: dict[str, int], now: float = float("inf")) -> list[str]:
    return [name for end, name in sorted((end, name) for name, end in ends.items()) if end <= now]


class Worker:
    """A worker of a pool: each operation yields its calls of the server."""

    def __init__(self, server: Server, new_name: Callable[[], str]) -> None:
        self.server = server
        self.new_name = new_name
        self.lease = Lease(new_name())
        self.paused = False
        self.drained = False
        self.last = 0

    def open(self) -> Steps[None]:
        yield Call("register", partial(self.server.register, self.lease.name))

    def close(self) -> Steps[None]:
        if self.lease.unanswered:
            yield Call("EXISTS", lambda: None)
        yield from self.retire()

    def retire(self) -> Steps[None]:
        retired_ms = RETIRED_MS if self.lease.unanswered else 0
        yield Call("reclaim", partial(self.server.reclaim, self.lease.name, retired_ms, True))

    def renew(self, idle: bool = False) -> Steps[int]:
        state = yield Call("renew", partial(self.server.renew, self.lease.name, idle))
        if not state:
            self.lease.lost = True
        return state

    def claim(self, limit: int, wait: bool) -> Steps[list[Claimed]]:
        if self.lease.lost:
            yield from self.retire()
            self.lease = Lease(self.new_name())
            yield from self.open()
        lease = self.lease
        lease.unanswered += 1
        claimed = yield from self.claims(limit, wait)
        lease.unanswered -= 1
        return claimed

    def claims(self, limit: int, wait: bool) -> Steps[list[Claimed]]:
        if not (wait and self.drained):
            claimed = yield from self.claim_once(limit)
            if claimed or not (wait and self.drained):
                return claimed
        yield Call("BLMOVE", partial(self.server.pop, self.lease.name))
        return (yield from self.claim_once(limit))

    def claim_once(self, limit: int) -> Steps[list[Claimed]]:
        lease = self.lease
        state, tasks, large = yield Call("claim", partial(self.server.claim, lease.name, limit, self.last))
        self.last = max([self.last, *(task.number for task in tasks + large)])
        self.drained = state == OK and not large and len(tasks) < limit
        if state == LEASE_LOST:
            yield from self.renew()
        else:
            self.paused = state == PAUSED
        for start in range(0, len(large), BUNDLE):
            numbers = [task.number for task in large[start : start + BUNDLE]]
            tasks += yield Call("LRANGE", partial(self.server.read, lease.name, numbers))
        return [Claimed(raw, lease, number, *counts) for number, raw, counts in tasks]

    def missing(self, held: Iterable[Claimed]) -> Steps[list[Claimed]]:
        known = {claimed.number for claimed in held}
        missing = yield Call("missing", partial(self.server.missing, self.lease.name, known))
        self.last = max([self.last, *(task.number for task in missing)])
        return [Claimed(raw, self.lease, number, *counts) for number, raw, counts in missing]

    def settle(self, endings: Sequence[Ending]) -> Steps[list[Ending]]:
        lost = [ending for ending in endings if ending.claimed.lease.lost]
        own = [(ending, next(self.server.orders)) for ending in endings if ending not in lost]
        if own:
            lost += yield Call("settle", partial(self.server.settle, self.lease.name, own))
        return lost

    def release(self, claims: Sequence[Claimed]) -> Steps[None]:
        held = [claimed.number for claimed in claims if not claimed.lease.lost]
        if held:
            yield Call("release", partial(self.server.release, self.lease.name, held))

    def promote(self) -> Steps[int]:
        return (yield Call("promote", self.server.promote))

    def present(self) -> Steps[None]:
        yield Call("present", partial(self.server.present, self.lease.name))

    def sweep(self) -> Steps[None]:
        dead, retired, expired = yield Call("overdue", self.server.overdue)
        for name in (*(name for name in dead if name != self.lease.name), *retired):
            yield from self.reclaim(name)
        if expired:
            for registry in (self.server.claimants, self.server.retired):
                yield Call("ZREM", partial(_drop, registry, expired))

    def reclaim(self, name: str) -> Steps[int]:
        return (yield Call("reclaim", partial(self.server.reclaim, name, RETIRED_MS, False)))


def _drop(registry: dict[str, int], names: Iterable[str]) -> None:
    for name in names:
        registry.pop(name, None)


class TopicWorker(Worker):
    """A worker of a topic, which waits at the doorbell instead of in a blocking call."""

    def claims(self, limit: int, wait: bool) -> Steps[list[Claimed]]:
        self.drained = False
        return (yield from self.claim_once(limit))


class IdempotentWorker(TopicWorker):
    """A worker of an idempotent topic: it begins each message before it handles it."""

    def __init__(self, server: Server, new_name: Callable[[], str]) -> None:
        super().__init__(server, new_name)
        self.handled: dict[str, Claimed] = {}

    def claim(self, limit: int, wait: bool) -> Steps[list[Claimed]]:
        return (yield from self.begin((yield from super().claim(limit, wait))))

    def missing(self, held: Iterable[Claimed]) -> Steps[list[Claimed]]:
        return (yield from self.begin((yield from super().missing(held))))

    def settle(self, endings: Sequence[Ending]) -> Steps[list[Ending]]:
        lost = yield from super().settle(endings)
        self.end(ending.claimed for ending in endings)
        return lost

    def release(self, claims: Sequence[Claimed]) -> Steps[None]:
        yield from super().release(claims)
        self.end(claims)

    def begin(self, claims: list[Claimed]) -> Steps[list[Claimed]]:
        new: list[Claimed] = []
        messages = []
        for claimed in claims:
            if (id := claimed.id) is not None:
                handled = self.handled.get(id)
                busy = handled is not None and not handled.lease.lost
                if not busy:
                    self.handled[id] = claimed
                new.append(claimed)
                messages.append((claimed.number, id, busy, next(self.server.orders)))
        if not new:
            return claims
        try:
            found = yield Call("begin", partial(self.server.begin, self.lease.name, messages))
        except Disconnected:
            self.not_begun(new)
            raise
        verdicts = dict(zip(new, found, strict=True))
        self.not_begun(claimed for claimed in new if verdicts[claimed] != RUN)
        for claimed in new:
            claimed.done = verdicts[claimed] == DONE
        begun = [claimed for claimed in new if verdicts[claimed] != POSTPONED]
        return [claimed for claimed in claims if claimed not in new] + begun

    def not_begun(self, claims: Iterable[Claimed]) -> None:
        claims = list(claims)
        self.handled = {id: claimed for id, claimed in self.handled.items() if claimed not in claims}

    def end(self, claims: Iterable[Claimed]) -> None:
        ended = {claimed.number for claimed in claims}
        self.handled = {
            id: claimed
            for id, claimed in self.handled.items()
            if claimed.number not in ended and not claimed.lease.lost
        }
