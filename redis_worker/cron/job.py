"""A cron job: waits for its instants, claims them, and runs or pushes, until stopped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from redis_worker.broker.cron import MOST_QUEUED, Claim, CronStore, JobState, Run, Verdict
from redis_worker.cron.function import Function
from redis_worker.cron.missed import LATE, Missed
from redis_worker.cron.report import OnOutcome, Report
from redis_worker.cron.runs import Ended, Runs
from redis_worker.cron.schedule import Schedule
from redis_worker.cron.settings import JobSettings, check, declared_by
from redis_worker.engine.lifespan import Lifespan, providing
from redis_worker.engine.reconnect import GivenUp
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.running import RunningTask
from redis_worker.engine.waiting import happens, to_the_end
from redis_worker.registry import find_function, find_lifespan
from redis_worker.vocabulary.errors import ConfigurationError, Refused
from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.payload import dumps
from redis_worker.vocabulary.service import Condition, Consuming

# The interval, in seconds, of the checks for queued and lost runs and the server's clock; and the number of checks
# between two registrations of the job: the server may have lost its data.
_TEND_EVERY, _TENDS_PER_OPENING = 5.0, 12
# Processes claim a random time after the instant, so that most find it already claimed.
_SPREAD = 0.01
# The time limit of a Redis call in progress at a stop, in seconds.
_CALL_TIMEOUT = 3.0
# The interval at which a run by hand checks that the run before has ended, in seconds.
_CHECK_EVERY = 0.5

T = TypeVar("T")

_REASONS = {
    Verdict.SKIPPED: "another run is in progress",
    Verdict.FULL: f"{MOST_QUEUED} instants are queued already",
}


class CronJob:
    """A cron job in this process. Many processes may have the same job: one of them fires each instant.

    Runs in the caller's event loop; installs no signal handler, configures no logging.
    """

    def __init__(self, settings: JobSettings, store: CronStore, on_outcome: OnOutcome | None = None) -> None:
        """`on_outcome` is called in the event loop with the outcome of each local run, and its duration in seconds.

        Raises ConfigurationError if the schedule, the zone, the function or its arguments are invalid.
        """
        check(settings)
        self.settings = settings
        self.schedule = Schedule(settings.schedule, settings.timezone)
        self._report = Report(settings.name, on_outcome)
        self._store = store
        self._redis = store.reconnect
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
            self._runs = Runs(function, self.schedule, self._state, policy, self._redis, self._report)
        lifespan = find_lifespan(settings.lifespan)
        self._lifespan = None if lifespan is None else Lifespan(lifespan)
        self._stopping = asyncio.Event()
        self._missed = Missed(
            settings, self.schedule, self._state, self._redis, self._report, self._stopping, self._fire_missed
        )
        self._opened = self._ran = False
        self._next = 0

    @property
    def condition(self) -> Condition:
        """The state of the job."""
        if self._stopping.is_set():
            return "stopping"
        if not self._opened:
            return "waiting for Redis"
        return "Redis is away" if self._redis.away else "running"

    @property
    def running(self) -> int:
        """The number of runs in this process."""
        return 0 if self._runs is None else len(self._runs)

    def consuming(self) -> list[Consuming]:
        """Return no queue: a cron job consumes none."""
        return []

    def running_tasks(self) -> list[RunningTask]:
        """Return the runs in this process, oldest first."""
        return [] if self._runs is None else self._runs.running_tasks()

    def stop(self) -> None:
        """Fire nothing more; running functions may finish, and are not retried if they fail.

        While Redis is away, an outcome waits to be recorded until Redis is back or `cancel` is called.
        """
        self._stopping.set()
        if self._runs is not None:
            self._runs.stop()

    def cancel(self) -> None:
        """Stop at once: cancel coroutines, and abandon threads, which continue."""
        self.stop()
        if self._runs is not None:
            self._runs.cancel()

    async def run(self) -> None:
        """Fire due instants until stopped, then wait for the runs. Cancelling it has the effect of `cancel`.

        Waits for Redis without limit. Raises Refused if Redis refuses a call, never an error of the job.
        """
        if self._ran:
            raise ConfigurationError("a CronJob runs once: create another one")
        self._ran = True
        await to_the_end(asyncio.create_task(self._work_in_lifespan()), self.cancel)

    async def _work_in_lifespan(self) -> None:
        async with self._resources():
            await self._work()

    @asynccontextmanager
    async def _resources(self) -> AsyncIterator[None]:
        async with providing(self._lifespan):
            if self._runs is not None:
                self._runs.inherit()
            yield

    async def run_once(self) -> Ended:
        """Run the job now, by hand, regardless of its schedule, and record the outcome.

        `overlap` applies: while another run is in progress, "skip" returns the outcome "skipped" and "queue" waits.
        Raises Disconnected or Refused.
        """
        await self._state.open(by_hand=True)
        while True:
            lease = self._store.new_run()
            claim = await self._state.begin(lease, self._payload())
            self._report_lost(claim)
            if claim.verdict is Verdict.FIRED:
                break
            if self.settings.overlap == "skip" or await happens(self._stopping, _CHECK_EVERY):
                return Ended("skipped", _REASONS[Verdict.SKIPPED])
        self._opened = True
        if self._runs is None:
            return Ended("success")
        async with self._resources():
            return await to_the_end(self._runs.start(Run(lease, claim.value, claim.value, by_hand=True)), self.cancel)

    async def _work(self) -> None:
        roles = {asyncio.create_task(self._fire()), asyncio.create_task(self._tend())}
        await asyncio.wait(roles, return_when=asyncio.FIRST_COMPLETED)
        self.stop()  # one role has failed, or the job was stopped
        # Wait for a call in progress, as its claim would be lost, but not for a server that hangs.
        _, hanging = await asyncio.wait(roles, timeout=_CALL_TIMEOUT)
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
        """Wait for `instant` by the server's clock. Return False if stopped before."""
        spread = random.uniform(0.0, _SPREAD)
        while (ahead := (instant - self._store.clock.now()) / 1000) > 0:
            # In small steps: `_tend` may correct the server's time meanwhile.
            if await happens(self._stopping, min(ahead + spread, _TEND_EVERY)):
                return False
        return not self._stopping.is_set()

    def _is_missed(self, instant: int) -> bool:
        return self._store.clock.now() - instant > LATE

    async def _claim(self, instant: int, even_missed: bool = False) -> Claim | None:
        """Fire `instant` unless another process has. Return None if it is early, or was missed while Redis was away."""
        lease = self._store.new_run()
        after = _ms_of(self.schedule, instant)

        async def claim() -> Claim | None:
            if self._is_missed(instant) and not even_missed:
                return None
            if self._runs is not None and self.settings.overlap != "allow":
                await self._runs.recorded(self._stopping)  # a finished run would block the claim until recorded
            return await self._state.claim(instant, lease, after, self._payload())

        claimed = await self._until_stopped(claim)
        if claimed is None:
            return None
        self._report_lost(claimed)
        if claimed.verdict is Verdict.EARLY:
            await happens(self._stopping, max(1, claimed.value) / 1000)
            return None
        if claimed.verdict is Verdict.FIRED:
            self._begin(Run(lease, claimed.value, self._store.clock.now()))
        elif claimed.verdict in _REASONS:
            self._report.skipped(self.schedule.local(instant), _REASONS[claimed.verdict])
        elif claimed.verdict is Verdict.QUEUED:
            await self._take()
        return claimed

    async def _fire_missed(self, instant: int) -> bool:
        claimed = await self._claim(instant, even_missed=True)
        return claimed is not None and claimed.verdict in (Verdict.FIRED, Verdict.QUEUED)

    async def _tend(self) -> None:
        """Periodically claim queued instants, and detect lost runs."""
        rounds = 0
        while not await happens(self._stopping, _TEND_EVERY * random.uniform(0.8, 1.0)):
            if not self._opened:
                continue
            rounds += 1
            if rounds % _TENDS_PER_OPENING == 0:
                await self._until_stopped(self._state.open)
            await self._take()
            await self._fire_by_hand()

    async def _fire_by_hand(self) -> None:
        """Run the job if somebody has asked for it, unless `overlap` forbids it."""
        if not await self._until_stopped(self._state.is_asked):
            return
        lease = self._store.new_run()
        claimed = await self._until_stopped(lambda: self._state.begin(lease, self._payload()))
        self._report_lost(claimed)
        if claimed.verdict is Verdict.FIRED:
            self._begin(Run(lease, claimed.value, claimed.value, by_hand=True))
        else:
            self._report.skipped(self.schedule.local(self._store.clock.now()), _REASONS[Verdict.SKIPPED])

    async def _take(self) -> None:
        """Fire the next queued instant, if no run is in progress."""
        lease = self._store.new_run()
        claimed = await self._until_stopped(lambda: self._state.take(lease, self._next))
        self._report_lost(claimed)
        if claimed.verdict is Verdict.FIRED:
            self._begin(Run(lease, claimed.value, self._store.clock.now()))

    async def _take_after_run(self) -> None:
        try:
            await self._take()
        except (GivenUp, Refused):
            pass  # the roles meet the same error, and raise it

    def _begin(self, run: Run) -> None:
        if self._runs is None:
            self._report.ended(self.schedule.local(run.instant), "success", None, 0.0)
        else:
            self._runs.start(run, self._take_after_run)

    def _report_lost(self, claim: Claim) -> None:
        for worker in claim.lost:
            self._report.lost(worker)

    def _payload(self) -> bytes:
        """Return the task of a job that pushes, as `redis-worker push` makes it."""
        push = self.settings.push
        if push is None:
            return b""
        return dumps({"id": new_id(), "task": push.task, "emit_ts": self._store.clock.now() / 1000})

    async def _until_stopped(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await self._redis.call(operation, self._stopping)


def _ms_of(schedule: Schedule, after: int) -> int:
    return int(schedule.next(after).timestamp() * 1000)
