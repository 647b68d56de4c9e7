"""Queues and scripts against the model in model.py: after each step, all keys hold what the model holds.

Time is a key here, so that it can jump. Any call of a worker may be left out, lose its reply, or arrive late; a crash
is that, and no further step of this worker. See stateful.py for longer runs, and for repeating one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar, NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from redis_worker.broker.client.delayed_tasks import Delayed
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.broker.queue import at_least_once, large_tasks, pause, registration
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.delayed import Promoter, delay_tasks
from redis_worker.broker.queue.lease import REST, renew_lease
from redis_worker.broker.queue.recovery import Recoverer
from redis_worker.broker.queue.registration import reclaim
from redis_worker.broker.queue.settlement import Limits
from redis_worker.broker.queue.topic import IdempotentQueue, TopicQueue
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery, Outcome
from tests import model
from tests.clock import CLOCK
from tests.faults import FAULTS, NONE, STALL, Fault, Line, play
from tests.queue_calls.members import Sleepless
from tests.snapshot import differences, queue_keys
from tests.stateful import ServerMachine, run_machine

T = TypeVar("T")

KINDS = {
    "pool": (AtLeastOnceQueue, model.Worker),
    "topic": (TopicQueue, model.TopicWorker),
    "idempotent": (IdempotentQueue, model.IdempotentWorker),
}
MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
# In microseconds. A lease has 60 s, a retired name an hour, a mark as completed two, a count seven days.
JUMPS = [1, 999, 1_000, 500_000, 20_000_000, MINUTE - 1_000, MINUTE, MINUTE + 1_001, HOUR, 2 * HOUR, DAY, 8 * DAY]
TASKS = st.lists(
    st.sampled_from(["new", "new", "new", "twin", "twin", "same id", "same id", "junk"]), min_size=1, max_size=5
)
DELAYS = [0.0, 0.0001, 0.25, 30.0, 3600.0, 9 * 86_400.0]
# The server expires keys by its own clock, which runs on during an example.
SLACK_MS = 60_000
# TCP gives up what it could not deliver for so long: nothing arrives later.
LATEST = 15 * MINUTE


class Held(NamedTuple):
    """A claim, as the queue returned it and as the model did."""

    delivery: Delivery
    claimed: model.Claimed


class Ended(NamedTuple):
    """An outcome, for the queue and for the model."""

    outcome: Outcome
    ending: model.Ending


@dataclass(eq=False)
class Pair:
    """A worker, and its model."""

    queue: AtLeastOnceQueue
    line: Line
    model: model.Worker
    held: list[Held] = field(default_factory=list)
    settling: list[Ended] = field(default_factory=list)
    """A settlement without a reply so far: it is repeated, as the settler does."""
    releasing: list[Held] = field(default_factory=list)
    """The same for a release."""


class Keeper:
    """A stand-in for the thread that renews leases: a rule does."""

    seconds = model.LEASE_MS / 1000

    def keep(self, keys: list[str], lease: Any, on_lost: Callable[[], None]) -> None:
        pass

    def drop(self, lease: Any) -> None:
        pass


class Ringing:
    """A doorbell that rings at once, and its bell."""

    all: ClassVar[set[Any]] = set()
    notifies = False

    def bell(self, *_: str) -> Ringing:
        return self

    async def wait(self, seconds: float) -> None:
        pass

    def ring(self) -> None:
        pass

    def close(self) -> None:
        pass


class Slept(Exception):
    """Raised instead of sleeping."""


class Machine(ServerMachine):
    """Random steps of producers, operators and up to four workers."""

    kind: ClassVar[str]
    large: ClassVar[bool]
    """True if each task counts as a large one."""
    names: ClassVar[Iterator[int]]
    """Numbers of workers: the same in each run of the same steps, since names have an order."""

    def __init__(self) -> None:
        super().__init__()
        Machine.names = count(1)
        self.workers: list[Pair] = []
        self.late_since = 0
        """A time since which all late calls were sent."""
        self.ids, self.values = count(1), count(1)
        self.client = Connection(self.redis, owned=False)
        self.sound = False
        """True if all keys were as they should be after the last step."""

    @initialize(max_deliveries=st.sampled_from([1, 2, 3]), ttl=st.sampled_from([0, 3600]), workers=st.integers(1, 3))
    def start(self, max_deliveries: int, ttl: int, workers: int) -> None:
        pool = self.kind == "pool"
        self.keys = Keys("mq:in", "out" if pool else "")
        ttl = ttl if pool and self.expires_fields else 0
        remember = 2 * HOUR // 1000 if self.kind == "idempotent" else 0
        self.server = model.Server(
            self.keys, max_deliveries, result_ttl=ttl * 1000, remember=remember, large=self.large
        )
        self.limits = Limits(self.server.most_dead, ttl, remember=remember)
        self.run(self.redis.flushall())
        self.set_clock()
        for _ in range(workers):
            self.new_worker(NONE)

    # Producers and operators

    @rule(tasks=TASKS, first=st.sampled_from([False, False, True]))
    def push(self, tasks: list[str], first: bool) -> None:
        raws = [self.raw(task) for task in tasks]
        self.server.push(raws, first)
        self.run((self.redis.lpush if first else self.redis.rpush)(self.keys.waiting, *raws))

    def raw(self, task: str) -> bytes:
        """Return a task, or message; its twin has the same bytes, and one of the same id has others."""
        number = next(self.ids)
        if task == "junk":
            return b"junk"
        # Twins of tasks that have failed, and ids of messages that are handled, are the ones to confuse.
        notable = self.server.notable()
        if task == "new" or not notable:
            return b'{"id":"t%d","task":1,"data":1}' % number
        some = notable[-1 - number % min(3, len(notable))]
        return some if task == "twin" else some.replace(b'"data":', b'"data":%d' % (number % 9 + 1), 1)

    @rule(delay=st.sampled_from(DELAYS), number=st.integers(1, 3), at=st.booleans())
    def delay(self, delay: float, number: int, at: bool) -> None:
        raws = [self.raw("new") for _ in range(number)]
        if at:
            due = self.server.now + int(delay * 1000)
            when = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=due)
            self.run(delay_tasks(self.client, self.keys, raws, delay=None, at=when))
        else:
            due = self.server.soonest + _ceil_ms(delay)
            self.run(delay_tasks(self.client, self.keys, raws, delay=delay, at=None))
        self.server.delay(raws, due)

    @precondition(lambda self: self.server.paused)
    @rule()
    def resume(self) -> None:
        self.control("resume")

    @rule(how=st.sampled_from(["pause", "resume", "resume", "purge"]))
    def control(self, how: str) -> None:
        control = QueueControl(self.redis, self.keys.waiting)
        if how == "purge":
            assert self.run(control.purge()) == self.server.purge()
        else:
            on = how == "pause"
            assert self.run(control.pause() if on else control.resume()) == (self.server.paused != on)
            self.server.paused = on

    @precondition(lambda self: self.server.dead)
    @rule(data=st.data(), requeue=st.sampled_from([True, True, False]))
    def revive(self, data: st.DataObject, requeue: bool) -> None:
        chosen = data.draw(_some(range(len(self.server.dead))))
        dead = DeadLetters(self.redis, self.keys.waiting)

        async def revive() -> int:
            letters = [letter async for letter in dead.letters()]
            some = [letters[index] for index in chosen]
            return await (dead.requeue(some) if requeue else dead.purge(some))

        assert self.run(revive()) == len(chosen)
        self.server.revive([self.server.dead[index] for index in chosen], requeue)

    @precondition(lambda self: self.server.delayed)
    @rule(data=st.data(), cancel=st.booleans())
    def end_delay(self, data: st.DataObject, cancel: bool) -> None:
        delayed = Delayed(self.client, self.keys.waiting)
        chosen = data.draw(_some(range(len(self.server.delayed))))

        async def end() -> int:
            found = await delayed.first(1000)
            some = [found[index] for index in chosen]
            return await (delayed.drop(some) if cancel else delayed.run(some))

        assert self.run(end()) == len(chosen)
        self.server.end_delay([self.server.delayed[index] for index in chosen], cancel)

    @rule(data=st.data())
    def registry_vanishes(self, data: st.DataObject) -> None:
        """Delete one entry of the registry of workers, or all."""
        chosen = data.draw(st.sampled_from([*self.server.workers, ""]))
        for name in [chosen] if chosen else list(self.server.workers):
            del self.server.workers[name]
            self.run(self.redis.zrem(self.keys.workers, name))

    # Workers

    def both(self, pair: Pair, fault: Fault, operation: Awaitable[T], steps: model.Steps[Any]) -> tuple[T, Any] | None:
        """Do the same in the queue and in the model. Returns both results; None if the fault cut it off."""
        self.sound = False
        pair.line.expect(fault)
        try:
            result: Any = self.run(operation)
        except Disconnected:
            result = Disconnected
        expected, calls = play(steps, fault, self.late)
        assert pair.line.calls == calls
        assert (result is Disconnected) == (expected is Disconnected)
        return None if result is Disconnected else (result, expected)

    def one_of(self, data: st.DataObject, is_meant: Callable[[Pair], Any] = lambda pair: True) -> Pair:
        meant = {pair.queue.worker: pair for pair in self.workers if is_meant(pair)}
        return meant[data.draw(st.sampled_from(list(meant)))]

    @precondition(lambda self: len(self.workers) < 4)
    @rule(fault=FAULTS)
    def new_worker(self, fault: Fault) -> None:
        queue_class, model_class = KINDS[self.kind]
        line = Line(self.redis, self.late)
        options = {"max_deliveries": self.server.max_deliveries, "limits": self.limits}
        others = [line, Ringing()] if self.kind == "pool" else [Ringing()]
        queue = queue_class(line, *others, self.keys, Keeper(), Observer(), **options)
        pair = Pair(queue, line, model_class(self.server, lambda: queue.worker))
        if self.both(pair, fault, queue.open(), pair.model.open()):
            self.workers.append(pair)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), limit=st.integers(1, 5), wait=st.booleans(), fault=FAULTS)
    def claim(self, data: st.DataObject, limit: int, wait: bool, fault: Fault) -> None:
        self.claim_as(self.one_of(data), limit, wait, fault)

    def claim_as(self, pair: Pair, limit: int, wait: bool, fault: Fault) -> None:
        # The lists of a former name are watched for an hour: a worker that wakes up later, and dies as it pops, is not.
        wait = wait and self.server.is_watched(pair.queue.worker, LATEST)
        self.take(pair, self.both(pair, fault, pair.queue.claim(limit, wait), pair.model.claim(limit, wait)))

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), tasks=TASKS, limit=st.integers(1, 5), fault=FAULTS)
    def push_and_claim(self, data: st.DataObject, tasks: list[str], limit: int, fault: Fault) -> None:
        pair = self.one_of(data)
        self.push(tasks, first=False)
        self.claim_as(pair, limit, False, fault)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), tasks=TASKS, fault=st.one_of(FAULTS, st.just(Fault(2, "not sent"))))
    def claim_what_arrives(self, data: st.DataObject, tasks: list[str], fault: Fault) -> None:
        """Push tasks while a worker waits."""
        pair = self.one_of(data)
        self.claim_as(pair, 100, False, NONE)
        self.push(tasks, first=False)
        self.claim_as(pair, 2, True, fault)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fault=FAULTS)
    def missing(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data)
        held = [*pair.held, *pair.releasing]
        deliveries = [*(some.delivery for some in held), *(some.outcome.delivery for some in pair.settling)]
        claims = [*(some.claimed for some in held), *(some.ending.claimed for some in pair.settling)]
        self.take(pair, self.both(pair, fault, pair.queue.missing(deliveries), pair.model.missing(claims)))

    def take(self, pair: Pair, found: tuple[list[Delivery], list[model.Claimed]] | None) -> None:
        deliveries, claims = found or ([], [])
        assert [_described(delivery, delivery.receipt) for delivery in deliveries] == [
            _described(claim, claim.lease) for claim in claims
        ]
        pair.held += map(Held, deliveries, claims)

    @precondition(lambda self: any(map(_may_settle, self.workers)))
    @rule(data=st.data(), fault=FAULTS)
    def settle(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data, _may_settle)
        for held in data.draw(_some(pair.held)):
            pair.held.remove(held)
            how = data.draw(st.sampled_from(["done", "done", "failed", "again", "dead"]))
            delay = data.draw(st.sampled_from(DELAYS)) if how == "again" else None
            pair.settling.append(self.ended(held, how, delay))
        self.settle_again(pair, fault)

    @precondition(lambda self: any(map(_may_settle, self.workers)))
    @rule(data=st.data(), how=st.sampled_from(["done", "again", "dead"]), fault=FAULTS)
    def settle_all(self, data: st.DataObject, how: str, fault: Fault) -> None:
        """Settle all tasks of a worker in the same way, in the order of their claims."""
        pair = self.one_of(data, _may_settle)
        pair.settling = [self.ended(held, how, 0.25) for held in pair.held]
        pair.held = []
        self.settle_again(pair, fault)

    @precondition(lambda self: any(pair.settling for pair in self.workers))
    @rule(data=st.data(), fault=FAULTS)
    def repeat_settlement(self, data: st.DataObject, fault: Fault) -> None:
        self.settle_again(self.one_of(data, lambda pair: pair.settling), fault)

    def settle_again(self, pair: Pair, fault: Fault) -> None:
        outcomes, endings = [some.outcome for some in pair.settling], [some.ending for some in pair.settling]
        if found := self.both(pair, fault, pair.queue.settle(outcomes), pair.model.settle(endings)):
            lost, refused = found
            expected = [some.outcome for some in pair.settling if some.ending in refused]
            assert sorted(map(id, lost)) == sorted(map(id, expected))
            pair.settling = []

    def ended(self, held: Held, how: str, delay: float | None = None) -> Ended:
        """Return an outcome of a task: a result, an error, a retry, a dead letter; as far as it can have it."""
        delivery, claimed = held
        if claimed.done:
            how = "done"
        elif claimed.id is None or (how == "failed" and self.kind != "pool"):
            how = "dead"
        number = next(self.values)
        result = (b"%d" % number if self.kind == "pool" else b"") if claimed.id is not None else None
        reason = f"reason {number}"
        if how == "done":
            return Ended(Outcome(delivery, claimed.id, result), model.Ending(claimed, result))
        if how == "again":
            assert delay is not None
            outcome = Outcome(delivery, claimed.id, None, reason, again=delay)
            return Ended(outcome, model.Ending(claimed, again=_ceil_ms(delay)))
        dead = how == "dead"
        ending = model.Ending(claimed, result, dead=dead, reason=reason)
        return Ended(Outcome(delivery, claimed.id, result, reason, dead), ending)

    @precondition(lambda self: any(map(_may_release, self.workers)))
    @rule(data=st.data(), fault=FAULTS)
    def release(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data, _may_release)
        pair.releasing = data.draw(_some(pair.held))
        pair.held = [held for held in pair.held if held not in pair.releasing]
        self.release_again(pair, fault)

    @precondition(lambda self: any(pair.releasing for pair in self.workers))
    @rule(data=st.data(), fault=FAULTS)
    def repeat_release(self, data: st.DataObject, fault: Fault) -> None:
        self.release_again(self.one_of(data, lambda pair: pair.releasing), fault)

    def release_again(self, pair: Pair, fault: Fault) -> None:
        deliveries, claims = [some.delivery for some in pair.releasing], [some.claimed for some in pair.releasing]
        if self.both(pair, fault, pair.queue.release(deliveries), pair.model.release(claims)):
            pair.releasing = []

    @precondition(lambda self: any(not pair.model.lease.lost for pair in self.workers))
    @rule(data=st.data(), idle=st.booleans(), fault=FAULTS)
    def renew(self, data: st.DataObject, idle: bool, fault: Fault) -> None:
        """Renew a lease, at any time; an idle worker that holds nothing lets it rest."""
        pair = self.one_of(data, lambda pair: not pair.model.lease.lost)
        lease, keys = pair.queue._registration.lease, self.keys
        held = [keys.inflight(lease.name), keys.arrived(lease.name), keys.bundles(lease.name)]
        names = [keys.workers, keys.retired, keys.claimants, *held]

        async def renew() -> int:
            state = await renew_lease(pair.line, names, lease, Keeper.seconds, REST if idle else None)
            lease.lost = not state
            return state

        if found := self.both(pair, fault, renew(), pair.model.renew(idle)):
            assert found[0] == found[1]

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fault=FAULTS)
    def present(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data)
        keys, arguments = [self.keys.workers, self.keys.presence], [pair.queue.worker, '{"host":""}']
        self.both(pair, fault, pair.line.run("present", keys, arguments), pair.model.present())

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fault=FAULTS)
    def promote(self, data: st.DataObject, fault: Fault) -> None:
        self.promote_as(self.one_of(data), fault)

    def promote_as(self, pair: Pair, fault: Fault) -> None:
        slept: list[float] = []

        async def sleep(seconds: float) -> None:
            slept.append(seconds)
            raise Slept

        async def promote() -> None:
            with suppress(Slept):
                await Promoter(pair.line, self.keys, Sleepless(sleep), Observer()).run()
            if fault.at == 1:
                raise Disconnected("which the promoter leaves to the pool")

        _, due = self.both(pair, fault, promote(), pair.model.promote()) or (None, -1)
        if due < 0:
            assert slept == [1.0 if fault.at == 1 else 3600.0]
        else:
            assert slept == [1.0] if due >= 1000 else due < slept[0] * 1000 <= due + 20.0

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), fault=FAULTS)
    def sweep(self, data: st.DataObject, fault: Fault) -> None:
        self.sweep_as(self.one_of(data), fault)

    def sweep_as(self, pair: Pair, fault: Fault) -> None:
        recoverer = Recoverer(pair.line, self.keys, pair.queue, Observer(), Ringing(), lease=Keeper.seconds)
        self.both(pair, fault, recoverer.sweep(), pair.model.sweep())

    @precondition(lambda self: self.workers and self.server.workers)
    @rule(data=st.data(), past=st.sampled_from([-1000, 0, 0, 1000]), fault=FAULTS)
    def sweep_when_a_lease_ends(self, data: st.DataObject, past: int, fault: Fault) -> None:
        pair, name = self.one_of(data), data.draw(st.sampled_from(list(self.server.workers)))
        self.time_reaches(self.server.workers[name] * 1000 + past)
        self.sweep_as(pair, fault)

    @precondition(lambda self: self.workers and self.server.delayed)
    @rule(data=st.data(), past=st.sampled_from([-1, 0]), fault=FAULTS)
    def promote_when_a_task_is_due(self, data: st.DataObject, past: int, fault: Fault) -> None:
        self.time_reaches(data.draw(st.sampled_from(self.server.delayed)).due * 1000 + past)
        self.promote_as(self.one_of(data), fault)

    @precondition(lambda self: self.workers and self.server.claimants)
    @rule(data=st.data(), fault=FAULTS)
    def reclaim(self, data: st.DataObject, fault: Fault) -> None:
        """Go on with a sweep that looked at the leases some time ago: any worker may have been overdue."""
        pair, name = self.one_of(data), data.draw(st.sampled_from(list(self.server.claimants)))
        steps = pair.model.reclaim(name)
        self.both(pair, fault, reclaim(pair.line, self.keys, name), steps)

    @precondition(lambda self: self.workers)
    @rule(data=st.data(), crashes=st.booleans(), fault=FAULTS)
    def end(self, data: st.DataObject, crashes: bool, fault: Fault) -> None:
        pair = self.one_of(data)
        if crashes or self.both(pair, fault, pair.queue.close(), pair.model.close()):
            self.workers.remove(pair)

    # Time, and what arrives late

    @rule(jump=st.sampled_from(JUMPS))
    def time_jumps(self, jump: int) -> None:
        if not self.late:
            self.late_since = self.server.time
        self.server.pass_time(jump)
        if self.server.time - self.late_since > LATEST:
            self.late.clear()
        self.set_clock()

    @precondition(lambda self: self.server.moments())
    @rule(data=st.data(), past=st.sampled_from([-1, 0, 0, 1, 1000]))
    def time_reaches_a_moment(self, data: st.DataObject, past: int) -> None:
        """Jump to when something ends or is due, give or take a microsecond."""
        self.time_reaches(data.draw(st.sampled_from(self.server.moments())) * 1000 + past)

    def time_reaches(self, time: float) -> None:
        if time > self.server.time:
            self.time_jumps(int(time) - self.server.time)

    def set_clock(self) -> None:
        """Set the clock of the scripts, and how long the server keeps what it expires by its own clock."""
        server, keys = self.server, self.keys

        async def set_clock() -> None:
            await self.redis.set(CLOCK, server.time)
            await self.redis.pexpire(keys.attempts, _kept(server.counts_end - server.now))
            for id in await self.redis.hkeys(keys.output) if server.result_ttl else []:
                _, end = server.results.get(id.decode(), (b"", 0))
                await self.redis.execute_command("HPEXPIRE", keys.output, _kept(end - server.now), "FIELDS", 1, id)

        self.run(set_clock())

    # Comparison

    @invariant()
    def keys_hold_what_the_model_holds(self) -> None:
        server = self.server
        self.sound = False
        found, expiries = self.run(queue_keys(self.redis, self.keys, server.pushed))
        assert differences(found, server.snapshot()) == {}
        if counts := expiries.pop(self.keys.attempts, 0):
            assert _is_near(counts, server.counts_end - server.now)
        assert set(expiries.values()) <= {-1}
        if server.result_ttl and server.results:
            ttls = self.run(
                self.redis.execute_command("HPTTL", self.keys.output, "FIELDS", len(server.results), *server.results)
            )
            assert all(
                _is_near(ttl, end - server.now) for ttl, (_, end) in zip(ttls, server.results.values(), strict=True)
            )
        self.sound = True

    @invariant()
    def each_task_is_in_one_place(self) -> None:
        assert self.server.ledger() == self.server.pushed

    def teardown(self) -> None:
        """Let all workers die, and one finish all tasks."""
        if not self.sound:
            return
        self.workers.clear()
        self.control("resume")
        self.new_worker(NONE)
        [pair] = self.workers
        for _ in range(50 + self.server.pushed.total()):  # of some tasks only one is claimed at a time
            if self.server.is_finished():
                return
            self.finish_some(pair)
            self.keys_hold_what_the_model_holds()
        raise AssertionError(f"some tasks are never finished: {self.server.snapshot()}")

    def finish_some(self, pair: Pair) -> None:
        server = self.server
        due = server.delayed[0].due if server.delayed and not server.waiting else 0
        self.time_reaches(max(server.time + MINUTE + 1_000, due * 1000))
        self.sweep_as(pair, NONE)
        self.promote_as(pair, NONE)
        self.claim_as(pair, 100, False, NONE)
        pair.settling = [self.ended(held, "done") for held in pair.held]
        pair.held = []
        self.settle_again(pair, NONE)


def _some(items: Sequence[T]) -> st.SearchStrategy[list[T]]:
    """Some of `items`, in their order."""
    indices = st.sets(st.integers(0, len(items) - 1), min_size=1)
    return indices.map(lambda chosen: [items[index] for index in sorted(chosen)])


def _may_settle(pair: Pair) -> bool:
    return bool(pair.held and not pair.settling)


def _may_release(pair: Pair) -> bool:
    return bool(pair.held and not pair.releasing)


def _ceil_ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _kept(milliseconds: int) -> int:
    """Return the time for which the server keeps what the model keeps for `milliseconds`: its own clock runs on."""
    return milliseconds + SLACK_MS if 0 < milliseconds <= SLACK_MS else max(0, milliseconds)


def _is_near(milliseconds: int, expected: int) -> bool:
    return expected - SLACK_MS < milliseconds <= _kept(expected)


def _described(claim: Delivery | model.Claimed, lease: Any) -> tuple[Any, ...]:
    return claim.number, claim.raw, lease.name, claim.deaths, claim.retries, claim.done


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses of queues, and number workers."""
    monkeypatch.setattr(registration, "worker_name", lambda: f"w{next(Machine.names)}")
    monkeypatch.setattr(at_least_once, "BLOCK", 0.01)
    monkeypatch.setattr(at_least_once, "_RETRY_PAUSE", 0.0)
    monkeypatch.setattr(pause, "_CHECK_INTERVAL", 0.0)
    monkeypatch.setattr(registration, "_END_PATIENCE", STALL)  # a queue cut off by a stall is no longer as its model


@pytest.fixture(params=[False, True], ids=["small", "large"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Have all tasks count as large ones, or none."""
    if request.param:
        monkeypatch.setattr(large_tasks, "LARGE_BYTES", 1)
    return bool(request.param)


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_does_as_its_model(
    kind: str, large: bool, server: EmbeddedServer, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_machine(type("Machine", (Machine,), {"kind": kind, "large": large}), server, monkeypatch, 12)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_does_as_its_model_for_long(
    kind: str, large: bool, server: EmbeddedServer, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_machine(type("Machine", (Machine,), {"kind": kind, "large": large}), server, monkeypatch, 200)
