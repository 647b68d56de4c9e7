"""Claims, runs and outcomes of a cron job against the model in cron_model.py: after each step, all keys are equal.

Time jumps, and any call may be left out, lose its reply or arrive late. See stateful.py for longer runs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from redis_worker.broker import cron
from redis_worker.broker.cron import CronStore, JobState, Run, Verdict
from redis_worker.broker.keys import CronKeys, cron_stem
from redis_worker.broker.queue.lease import Lease, renew_lease
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import Disconnected
from tests import cron_model as model
from tests.clock import CLOCK
from tests.faults import FAULTS, NONE, Fault, Line, play
from tests.model import Steps
from tests.snapshot import all_keys, differences
from tests.stateful import ServerMachine, run_machine

T = TypeVar("T")

SCHEDULES = ["*/10 * * * * *", "*/5 * * * * *"]
SECOND, DAY = 1_000_000, 86_400_000_000
# In microseconds; a lease has 15 s, and a job is forgotten after 90 days.
JUMPS = [1, 999, SECOND, 10 * SECOND, 15 * SECOND - 1, 15 * SECOND, 60 * SECOND, DAY, 91 * DAY]
# The server expires keys by its own clock, which runs on during an example.
SLACK_MS = 60_000


class Claiming(NamedTuple):
    """A claim without a reply so far: it is repeated, as a job does."""

    kind: str
    instant: int
    lease: Lease


class Finishing(NamedTuple):
    """An outcome without a reply so far."""

    run: Run
    outcome: str
    goes_on: bool


@dataclass(eq=False)
class Pair:
    """A process with the job, and its model."""

    store: CronStore
    line: Line
    state: JobState
    model: model.Process
    claiming: list[Claiming] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    recorded: list[Run] = field(default_factory=list)
    """Those that go on, though their outcome is recorded."""
    finishing: list[Finishing] = field(default_factory=list)


class Machine(ServerMachine):
    """Random steps of up to three processes that have the same job."""

    def __init__(self) -> None:
        super().__init__()
        self.processes: list[Pair] = []
        self.numbers = count(1)
        self.firings: dict[int, set[str]] = defaultdict(set)

    @initialize(
        overlap=st.sampled_from(["skip", "queue", "queue", "allow"]),
        input=st.sampled_from([None, None, None, "in"]),
        by_hand=st.booleans(),
    )
    def start(self, overlap: str, input: str | None, by_hand: bool) -> None:
        self.job = model.Job(CronKeys(cron_stem("app", "job", input)), overlap, input)
        self.run(self.redis.flushall())
        self.set_clock()
        self.new_process(SCHEDULES[0])
        self.open_as(self.processes[0], by_hand, NONE)

    def both(self, pair: Pair, fault: Fault, operation: Awaitable[T], steps: Steps[Any]) -> T | None:
        """Do the same in the product and in the model. Returns the result; None if the fault cut it off."""
        pair.line.expect(fault)
        try:
            result: Any = self.run(operation)
        except Disconnected:
            result = Disconnected
        expected, calls = play(steps, fault, self.late)
        assert pair.line.calls == calls
        assert result == expected
        return None if result is Disconnected else result

    def one_of(self, data: st.DataObject, is_meant: Callable[[Pair], Any] = lambda pair: True) -> Pair:
        meant = {pair.model.where: pair for pair in self.processes if is_meant(pair)}
        return meant[data.draw(st.sampled_from(list(meant)))]

    @precondition(lambda self: len(self.processes) < 3)
    @rule(schedule=st.sampled_from([*SCHEDULES[:1] * 3, SCHEDULES[1]]))
    def new_process(self, schedule: str) -> None:
        store = CronStore(self.redis, lease=model.LEASE_MS / 1000)
        where = f"host-{next(self.numbers)}"
        store.worker = f"{where}-x"
        store.connection = line = Line(self.redis, self.late)
        state = JobState(store, "app", "job", schedule, "UTC", self.job.overlap, self.job.input)
        self.processes.append(Pair(store, line, state, model.Process(self.job, schedule, where)))

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        self.processes.remove(self.one_of(data))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), by_hand=st.sampled_from([False, False, True]), fault=FAULTS)
    def open(self, data: st.DataObject, by_hand: bool, fault: Fault) -> None:
        self.open_as(self.one_of(data), by_hand, fault)

    def open_as(self, pair: Pair, by_hand: bool, fault: Fault) -> None:
        self.both(pair, fault, pair.state.open(by_hand), pair.model.open(by_hand))

    @precondition(lambda self: self.processes)
    @rule(
        data=st.data(),
        kind=st.sampled_from(["due", "due", "due", "queued", "hand"]),
        seconds=st.sampled_from([-30, -20, -10, 0, 0, 0, 10]),
        fault=FAULTS,
    )
    def claim(self, data: st.DataObject, kind: str, seconds: int, fault: Fault) -> None:
        """Claim an instant near the present one, or another run."""
        pair = self.one_of(data)
        instant = self.job.now // 10_000 * 10_000 + seconds * 1000
        pair.claiming.append(Claiming(kind, instant, pair.store.new_run()))
        self.claim_as(pair, pair.claiming[-1], fault)

    @precondition(lambda self: any(pair.claiming for pair in self.processes))
    @rule(data=st.data(), after=st.sampled_from([1, 5 * SECOND, 15 * SECOND]), fault=FAULTS)
    def repeat_claim(self, data: st.DataObject, after: int, fault: Fault) -> None:
        self.time_jumps(after)
        pair = self.one_of(data, lambda pair: pair.claiming)
        self.claim_as(pair, data.draw(st.sampled_from(pair.claiming)), fault)

    def claim_as(self, pair: Pair, claiming: Claiming, fault: Fault) -> None:
        kind, instant, lease = claiming
        state, payload = pair.state, b"%d" % next(self.numbers)
        after = str(instant + 10_000)
        if kind == "due":
            operation = state.claim(instant, lease, int(after), payload)
        elif kind == "queued":
            operation = state.take(lease, int(after))
        else:
            operation, after = state.begin(lease, payload), ""
        claim = self.both(pair, fault, operation, pair.model.claim(kind, instant, lease.name, after, payload))
        if claim is None:
            return
        pair.claiming.remove(claiming)
        if claim.verdict is Verdict.FIRED:
            if kind != "hand":
                self.firings[claim.value].add(lease.name)
            if self.job.input is None or kind == "queued":
                pair.runs.append(Run(lease, claim.value, self.job.now, kind == "hand"))

    @precondition(lambda self: any(pair.runs for pair in self.processes))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["success", "error"]),
        goes_on=st.sampled_from([False, False, True]),
        fault=FAULTS,
    )
    def finish(self, data: st.DataObject, outcome: str, goes_on: bool, fault: Fault) -> None:
        pair = self.one_of(data, lambda pair: pair.runs)
        run = data.draw(st.sampled_from(pair.runs))
        pair.runs.remove(run)
        pair.finishing.append(Finishing(run, outcome, goes_on))
        self.finish_as(pair, pair.finishing[-1], fault)

    @precondition(lambda self: any(pair.finishing for pair in self.processes))
    @rule(data=st.data(), fault=FAULTS)
    def repeat_finish(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data, lambda pair: pair.finishing)
        self.finish_as(pair, data.draw(st.sampled_from(pair.finishing)), fault)

    @precondition(lambda self: any(pair.recorded for pair in self.processes))
    @rule(data=st.data(), fault=FAULTS)
    def finish_what_went_on(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data, lambda pair: pair.recorded)
        run = data.draw(st.sampled_from(pair.recorded))
        pair.recorded.remove(run)
        pair.finishing.append(Finishing(run, "error", False))
        self.finish_as(pair, pair.finishing[-1], fault)

    def finish_as(self, pair: Pair, finishing: Finishing, fault: Fault) -> None:
        run, outcome, goes_on = finishing
        error = "" if outcome == "success" else "it failed"
        operation = pair.state.finish(run, outcome, error or None, 1.5, goes_on)
        its = model.Running("", run.instant, run.started, pair.model.where)
        steps = pair.model.finish(run.lease.name, outcome, run.by_hand, error, 1500, its, goes_on)
        if self.both(pair, fault, operation, steps) is not None:
            pair.finishing.remove(finishing)
            if goes_on:
                pair.recorded.append(run)

    @precondition(lambda self: any(pair.runs or pair.recorded for pair in self.processes))
    @rule(data=st.data(), fault=FAULTS)
    def renew(self, data: st.DataObject, fault: Fault) -> None:
        pair = self.one_of(data, lambda pair: pair.runs or pair.recorded)
        self.renew_as(pair, data.draw(st.sampled_from([*pair.runs, *pair.recorded])).lease, fault)

    def renew_as(self, pair: Pair, lease: Lease, fault: Fault) -> None:
        operation = renew_lease(pair.line, [self.job.keys.running], lease, model.LEASE_MS / 1000)
        self.both(pair, fault, operation, pair.model.renew(lease.name))

    @precondition(lambda self: self.processes)
    @rule(data=st.data(), behind=st.sampled_from([0, 0, 1]), seconds=st.integers(1, 100), fault=FAULTS)
    def give_up(self, data: st.DataObject, behind: int, seconds: int, fault: Fault) -> None:
        """Drop missed instants, perhaps with knowledge that is no longer right."""
        pair, last = self.one_of(data), self.job.last - behind
        arguments = (last, last + seconds * 1000, seconds)
        self.both(pair, fault, pair.state.give_up(*arguments), pair.model.give_up(*arguments))

    @precondition(lambda self: self.processes and self.job.input is None)
    @rule(data=st.data(), first=st.integers(-8, -1), number=st.integers(1, 7), fault=FAULTS)
    def queue(self, data: st.DataObject, first: int, number: int, fault: Fault) -> None:
        """Queue missed instants, up to the present one."""
        now = self.job.now // 10_000 * 10_000
        instants = [now + step * 10_000 for step in range(first, min(first + number, 1))]
        pair = self.one_of(data)
        self.both(pair, fault, pair.state.queue(instants), pair.model.queue(instants))

    @rule(jump=st.sampled_from(JUMPS))
    def time_jumps(self, jump: int) -> None:
        self.job.pass_time(jump)
        self.set_clock()

    @rule(seconds=st.sampled_from([1, 10, 10, 10]))
    def time_passes(self, seconds: int) -> None:
        """Pass time in which living processes renew the leases of their runs."""
        for pair in self.processes:
            for run in (*pair.runs, *pair.recorded):
                self.renew_as(pair, run.lease, NONE)
        self.time_jumps(seconds * SECOND)

    @precondition(lambda self: self.job.running)
    @rule(data=st.data(), past=st.sampled_from([-1, 0, 1000]))
    def a_lease_ends(self, data: st.DataObject, past: int) -> None:
        jump = data.draw(st.sampled_from(sorted(self.job.running.values()))) * 1000 + past - self.job.time
        if jump > 0:
            self.time_jumps(jump)

    def set_clock(self) -> None:
        """Set the clock of the scripts, and how long the server keeps what it expires by its own clock."""

        async def set_clock() -> None:
            await self.redis.set(CLOCK, self.job.time)
            for key in await self.redis.keys(f"{self.job.keys.stem}:*"):
                if await self.redis.pttl(key) > 0:
                    end = self.job.ends.get(key.decode(), 0)
                    await self.redis.pexpire(key, max(0, end - self.job.now))

        self.run(set_clock())

    @invariant()
    def keys_hold_what_the_model_holds(self) -> None:
        found, expiries = self.run(all_keys(self.redis))
        assert differences({key: _text(value) for key, value in found.items()}, self.job.snapshot()) == {}
        self.job.let_expiries_go()
        for key, ttl in expiries.items():
            end = self.job.ends.get(key)
            assert ttl == -1 if end is None else -SLACK_MS < ttl - (end - self.job.now) <= 0

    @invariant()
    def each_instant_is_fired_once(self) -> None:
        assert all(len(runs) == 1 for runs in self.firings.values()) or not self.job.remembers

    @invariant()
    def each_run_is_counted_once(self) -> None:
        job = self.job
        if job.input is None and job.remembers:
            running = sum(1 for run in job.running if run not in job.ended)
            assert job.begun == running + sum(job.counts[outcome] for outcome in ("success", "error", "lost"))


def _text(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name.decode(): content.decode() if isinstance(content, bytes) else content
            for name, content in value.items()
        }
    return [raw.decode() for raw in value]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember few instants, and queue few, so that the limits are reached."""
    monkeypatch.setattr(cron, "_REMEMBERED", model.REMEMBERED)
    monkeypatch.setattr(cron, "MOST_QUEUED", model.MOST_QUEUED)


def test_a_cron_job_does_as_its_model(server: EmbeddedServer, few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    run_machine(Machine, server, monkeypatch, 30)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_cron_job_does_as_its_model_for_long(
    server: EmbeddedServer, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_machine(Machine, server, monkeypatch, 400)
