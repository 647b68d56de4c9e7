"""A cron job: waits for its instants, claims them, and runs what is to be run, until it is stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar, get_args

from redis_worker.broker.cron import MOST_QUEUED, Claim, CronStore, JobState, Run, Verdict
from redis_worker.cron.function import Function
from redis_worker.cron.missed import LATE, Missed
from redis_worker.cron.redis_retry import GivenUp, Reach
from redis_worker.cron.report import OnOutcome, Report
from redis_worker.cron.runs import Ended, Runs
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import Catchup, JobSettings, Overlap, declared_by
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.running import RunningTask
from redis_worker.engine.waiting import happens
from redis_worker.registry import find_function
from redis_worker.vocabulary.errors import ConfigurationError, Refused
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.service import Condition, Consuming

# How often it is looked what is queued, lost, and what time it is on the server, in seconds; and every how many
# of these times the job is made known again: the server may have lost its data.
_TEND, _TENDS_PER_OPENING = 5.0, 12
# Processes claim a little after the time, each at another moment: most then find that somebody has been there.
_SPREAD = 0.01
# How long a call that is under way at a stop may still take, in seconds.
_LAST_CALLS = 3.0
# How often somebody who runs a job by hand asks whether the run before has ended, in seconds.
_ASK_AGAIN = 0.5

T = TypeVar("T")

_WHY = {
    Verdict.SKIPPED: "another run goes on",
    Verdict.FULL: f"{MOST_QUEUED} instants are queued already",
}


class CronJob:
    """One cron job in this process. The same job may be in many: each instant is fired by one of them.

    Works in the caller's event loop; installs no signal handler, configures no logging.
    """

    def __init__(self, settings: JobSettings, store: CronStore, on_outcome: OnOutcome | None = None) -> None:
        """`on_outcome` is called, in the event loop, with the outcome of each run here and its seconds.

        Raises ConfigurationError where the schedule, the zone, the function or its arguments are not right.
        """
        _check(settings)
        self.settings = settings
        self.schedule = Schedule(settings.schedule, settings.timezone)
        self._report = Report(settings.name, on_outcome)
        self._reach = Reach(self._report)
        self._store = store
        push = settings.push
        self._state = JobState(
            store,
            *(settings.app, settings.name, settings.schedule, settings.timezone, settings.overlap),
            None if push is None else push.input,
        )
        self._runs: Runs | None = None
        declared = declared_by(settings, None if settings.job is None else find_function("job", settings.job))
        if settings.job is not None:
            function = Function(settings.job, settings.arguments, declared.timeout, self._report)
            policy = RetryPolicy(declared.retries, declared.retry_backoff, declared.retry_backoff_max)
            self._runs = Runs(function, self.schedule, self._state, policy, self._reach, self._report)
        self._stopping = asyncio.Event()
        self._missed = Missed(
            settings, self.schedule, self._state, self._reach, self._report, self._stopping, self._fire_missed
        )
        self._opened = self._ran = False
        self._next = 0

    @property
    def condition(self) -> Condition:
        """How it stands."""
        if self._stopping.is_set():
            return "stopping"
        if not self._opened:
            return "waiting for Redis"
        return "Redis is away" if self._reach.away else "running"

    @property
    def running(self) -> int:
        """How many runs go on in this process."""
        return 0 if self._runs is None else len(self._runs)

    def consuming(self) -> list[Consuming]:
        """Nothing: it takes from no queue."""
        return []

    def running_tasks(self) -> list[RunningTask]:
        """The runs that go on in this process, each under the job's name."""
        return [] if self._runs is None else self._runs.running_tasks()

    def stop(self) -> None:
        """Fire nothing any more; what runs may finish, and is not tried again if it fails.

        While Redis is away an outcome waits to be recorded, until it is back or there is a `cancel`.
        """
        self._stopping.set()
        if self._runs is not None:
            self._runs.stop()

    def cancel(self) -> None:
        """Stop at once: coroutines are cancelled; a thread goes on, and nobody waits for it."""
        self.stop()
        if self._runs is not None:
            self._runs.cancel()

    async def run(self) -> None:
        """Fire what is due until stopped, and wait for what runs. Cancelling it is as `cancel`.

        Waits for Redis as long as it takes. Raises Refused for what trying again cannot mend; nothing that
        the job does.
        """
        if self._ran:
            raise ConfigurationError("a cron job runs once; make another one")
        self._ran = True
        work = asyncio.create_task(self._work())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait({work})
            if not work.cancelled() and (error := work.exception()):
                raise error from None
            raise

    async def run_once(self) -> Ended:
        """Run the job now, by hand, whatever its schedule says, and record what becomes of it.

        The rule of overlap holds: where a run goes on, "skip" gives the outcome "skipped" and "queue" waits.
        Raises Disconnected or Refused.
        """
        await self._state.open(by_hand=True)
        while True:
            lease = self._store.new_run()
            claim = await self._state.begin(lease, self._payload())
            self._heard(claim)
            if claim.verdict is Verdict.FIRED:
                break
            if self.settings.overlap == "skip" or await happens(self._stopping, _ASK_AGAIN):
                return Ended("skipped", _WHY[Verdict.SKIPPED])
        self._opened = True
        if self._runs is None:
            return Ended("success")
        task = self._runs.start(Run(lease, claim.value, claim.value, by_hand=True))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait({task})
            raise

    async def _work(self) -> None:
        roles = {asyncio.create_task(self._fire()), asyncio.create_task(self._tend())}
        await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
        self.stop()  # one of them has failed, or there was a stop anyway
        # A call under way is waited for: nobody would know what it has claimed. But not for a server that hangs.
        _, hanging = await asyncio.wait(roles, timeout=_LAST_CALLS)
        for role in hanging:
            role.cancel()
        await asyncio.wait(roles)
        if self._runs is not None:
            await self._runs.ended()
        for role in roles:
            if role not in hanging and (error := role.exception()) and not isinstance(error, GivenUp):
                raise error

    async def _fire(self) -> None:
        """Claim each instant as it becomes due."""
        cursor = await self._until_stopped(self._state.open)
        self._opened = True
        while not self._stopping.is_set():
            self._next = _ms_of(self.schedule, cursor)
            if not await self._due(self._next):
                return
            if self._is_missed(self._next):
                cursor = await self._missed.make_up(cursor, self._store.clock.now())
            elif await self._claim(self._next):
                cursor = self._next

    async def _due(self, instant: int) -> bool:
        """Wait for `instant`, by the server's clock. False where there is a stop before."""
        spread = random.uniform(0.0, _SPREAD)
        while (ahead := (instant - self._store.clock.now()) / 1000) > 0:
            # In small steps: the tending may hear meanwhile that it is another time on the server.
            if await happens(self._stopping, min(ahead + spread, _TEND)):
                return False
        return not self._stopping.is_set()

    def _is_missed(self, instant: int) -> bool:
        return self._store.clock.now() - instant > LATE

    async def _claim(self, instant: int, even_missed: bool = False) -> Claim | None:
        """Fire `instant`, unless somebody has. None where it is early, or was missed while Redis was away."""
        lease = self._store.new_run()
        after = _ms_of(self.schedule, instant)

        async def claim() -> Claim | None:
            if self._is_missed(instant) and not even_missed:
                return None
            if self._runs is not None and self.settings.overlap != "allow":
                await self._runs.recorded(self._stopping)  # or a run that is over would be in its own way
            return await self._state.claim(instant, lease, after, self._payload())

        claimed = await self._until_stopped(claim)
        if claimed is None:
            return None
        self._heard(claimed)
        if claimed.verdict is Verdict.EARLY:
            await happens(self._stopping, max(1, claimed.value) / 1000)
            return None
        if claimed.verdict is Verdict.FIRED:
            self._begin(Run(lease, claimed.value, self._store.clock.now()))
        elif claimed.verdict in _WHY:
            self._report.skipped(self.schedule.local(instant), _WHY[claimed.verdict])
        elif claimed.verdict is Verdict.QUEUED:
            await self._take()
        return claimed

    async def _fire_missed(self, instant: int) -> bool:
        claimed = await self._claim(instant, even_missed=True)
        return claimed is not None and claimed.verdict in (Verdict.FIRED, Verdict.QUEUED)

    async def _tend(self) -> None:
        """Now and then: take what is queued, and notice what is lost."""
        rounds = 0
        while not await happens(self._stopping, _TEND * random.uniform(0.8, 1.0)):
            if not self._opened:
                continue
            rounds += 1
            if rounds % _TENDS_PER_OPENING == 0:
                await self._until_stopped(self._state.open)
            await self._take()

    async def _take(self) -> None:
        """Fire what is queued, if nothing runs any more."""
        lease = self._store.new_run()
        claimed = await self._until_stopped(lambda: self._state.take(lease, self._next))
        self._heard(claimed)
        if claimed.verdict is Verdict.FIRED:
            self._begin(Run(lease, claimed.value, self._store.clock.now()))

    async def _take_after_run(self) -> None:
        try:
            await self._take()
        except (GivenUp, Refused):
            pass  # the others meet the same, and say so

    def _begin(self, run: Run) -> None:
        if self._runs is None:
            self._report.ended(self.schedule.local(run.instant), "success", None, 0.0)
        else:
            self._runs.start(run, self._take_after_run)

    def _heard(self, claim: Claim) -> None:
        for worker in claim.lost:
            self._report.lost(worker)

    def _payload(self) -> bytes:
        """The task of a job that pushes, as `redis-worker push` would make it."""
        push = self.settings.push
        if push is None:
            return b""
        return dumps({"id": new_id(), "task": push.task, "emit_ts": self._store.clock.now() / 1000})

    async def _until_stopped(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await self._reach.call(operation, self._stopping)


def _ms_of(schedule: Schedule, after: int) -> int:
    return int(schedule.next(after).timestamp() * 1000)


def _check(settings: JobSettings) -> None:
    """Raises ConfigurationError where the settings do not make a job."""
    name = f"the cron job {settings.name!r}"
    if (settings.job is None) == (settings.push is None):
        raise ConfigurationError(f"{name} needs a function to run or a task to push, one of the two")
    for what, value, known in (
        ("overlap", settings.overlap, get_args(Overlap)),
        ("catchup", settings.catchup, get_args(Catchup)),
    ):
        if value not in known:
            raise ConfigurationError(f"{name}: unknown {what} {value!r}, use one of {', '.join(known)}")
    if settings.catchup_window < 0:
        raise ConfigurationError(f"{name}: the catch-up window must not be negative")
