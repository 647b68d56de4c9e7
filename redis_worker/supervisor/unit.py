"""A unit: runs a part, and restarts it as its supervision says."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable

from redis_worker.engine.guard import is_interrupt
from redis_worker.engine.retry import backoff
from redis_worker.engine.waiting import happens
from redis_worker.file.plan import Supervision
from redis_worker.reporting import report_running
from redis_worker.supervisor.failure import one_line, without_own_frames
from redis_worker.supervisor.process.part_process import PartProcess
from redis_worker.supervisor.work import Work
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.errors import (
    ConfigurationError,
    Disconnected,
    RedisWorkerError,
    Refused,
    Unreachable,
)
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.service import Consuming, PartState

logger = library_logger("redis_worker.supervisor")

# The interval of the checks that the first unit works, in seconds.
_LOOK_EVERY = 0.05
BEGINNING: tuple[PartState, ...] = ("starting", "waiting for Redis", "waiting for Kafka")
# Errors that a restart would meet again.
_FINAL = (ConfigurationError, Refused)
# Errors that are not the part's fault: they do not count as its failures.
_ELSEWHERE = (Unreachable, Disconnected)


class Unit:
    """A supervised run of a part: makes its work with `make`, runs and restarts it; raises nothing."""

    def __init__(
        self,
        part: str,
        title: str,
        supervision: Supervision,
        make: Callable[[], Work],
        given_up: Callable[[BaseException], None],
        first: Unit | None = None,
    ) -> None:
        """`title` is its name in the log; `given_up` is called with the failure when it has failed for good.

        `first` is the unit that starts before this one, so that a failure common to all is met and logged once.
        """
        self.supervision = supervision
        self.restarts = 0
        self.error: str | None = None
        """The last failure, in one line."""
        self.task: asyncio.Task[None] | None = None
        self._part = part
        self._title = title
        self._make = make
        self._given_up = given_up
        self._first = first
        self._work: Work | None = None
        self._stopping = asyncio.Event()
        self._cancelled = False
        self._over: PartState | None = None
        """The final state, once it will not restart."""
        self._pausing = False
        self._failures: deque[float] = deque()
        """The times of its failures within the window."""
        self._in_a_row = 0

    @property
    def state(self) -> PartState:
        """The state of the unit."""
        if self._over is not None:
            return self._over
        if self._stopping.is_set():
            return "stopping"
        if self._pausing:
            return "restarting"
        return "starting" if self._work is None else self._work.condition

    @property
    def work(self) -> Work | None:
        """The work that runs; None between two runs."""
        return self._work

    def consuming(self) -> list[Consuming]:
        """Return the queues that the unit claims from."""
        return [] if self._work is None else [queue._replace(part=self._part) for queue in self._work.consuming()]

    def report_running(self) -> None:
        """Log the running tasks, or have the unit's process log them."""
        if isinstance(self._work, PartProcess):
            self._work.show()
        elif self._work is not None:
            self._context.run(report_running, self._work.running_tasks())

    def start(self) -> asyncio.Task[None]:
        """Start in the running loop. Return a task that ends when the unit will not restart."""
        self._context = contextvars.copy_context()
        self._context.run(PART.set, self._part)
        self.task = asyncio.create_task(self._run(), name=f"redis-worker part {self._title}", context=self._context)
        return self.task

    def stop(self) -> None:
        """Stop the work gracefully, and do not restart it."""
        self._stopping.set()
        if self._work is not None:
            self._work.stop()

    def cancel(self) -> None:
        """Stop at once, and do not restart."""
        self._cancelled = True
        self.stop()
        if self._work is not None:
            self._work.cancel()

    def kill(self) -> None:
        """Kill its process at once, if it has one of its own."""
        if isinstance(self._work, PartProcess):
            self._work.kill()

    async def _run(self) -> None:
        try:
            if await self._first_has_begun():
                await self._lives()
        except asyncio.CancelledError:
            # The host cancelled every task: the part no longer runs, and a reload starts it again.
            self._over, self.error = "ended" if self._stopping.is_set() else "failed", "it was cancelled from outside"
            raise

    async def _first_has_begun(self) -> bool:
        """Wait until the first unit works, or has failed once; False when it has failed for good, or after a stop."""
        while self._first is not None and self._first.state in BEGINNING and not self._stopping.is_set():
            await happens(self._stopping, _LOOK_EVERY)
        if self._stopping.is_set() or (self._first is not None and self._first.state == "failed"):
            self._over = "ended"
            return False
        return True

    async def _lives(self) -> None:
        while not self._stopping.is_set():
            born = time.monotonic()
            failure = await self._live()
            if self._stopping.is_set():
                if failure is not None:
                    self._log_failure(logging.WARNING, failure, "it was stopping")
                break
            pause = self._pause_after(failure, time.monotonic() - born)
            if pause is None:
                self._over = "ended" if failure is None else "failed"
                if failure is not None:
                    await self._give_up(failure)
                return
            self._pausing = True
            await happens(self._stopping, pause)
            self._pausing = False
            self.restarts += not self._stopping.is_set()
        self._over = "ended"

    async def _give_up(self, failure: BaseException) -> None:
        if not self.supervision.awaits_change:
            self._given_up(failure)
            return
        logger.warning("waiting for the next change")
        await self._stopping.wait()

    async def _live(self) -> BaseException | None:
        """Run the work once. Return the exception that ended it, or None."""
        try:
            self._work = self._make()
            if self._stopping.is_set():
                self._work.stop()
            if self._cancelled:
                self._work.cancel()
            await self._work.run()
        except BaseException as error:  # some libraries derive from it
            if is_interrupt(error):
                raise
            task = asyncio.current_task()
            if is_a(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            return error
        finally:
            self._work = None
        return None

    def _pause_after(self, failure: BaseException | None, lived: float) -> float | None:
        """Return the pause before the restart, in seconds, or None for no restart; log the decision."""
        supervision = self.supervision
        if failure is None:
            if supervision.restart != "always":
                logger.info("%s has ended", self._title)
                return None
            logger.info("%s has ended; restarting in %.1f s", self._title, supervision.restart_backoff)
            return supervision.restart_backoff
        self.error = one_line(failure)
        if issubclass(type(failure), _FINAL) or supervision.restart == "never":
            self._log_failure(logging.ERROR, failure, "not restarting")
            return None
        if lived > supervision.restart_backoff_max:
            self._in_a_row = 0
        count = self._count_failure(failure)
        counted = f" (failure {count} within {supervision.restart_window:g} s)" if count else ""
        if count > supervision.max_restarts:
            self._log_failure(logging.ERROR, failure, f"giving up{counted}")
            return None
        pause = backoff(supervision.restart_backoff, supervision.restart_backoff_max, self._in_a_row)
        self._in_a_row += 1
        self._log_failure(logging.ERROR, failure, f"restarting in {pause:.1f} s{counted}")
        return pause

    def _count_failure(self, failure: BaseException) -> int:
        """Return the number of failures within the window, this one included; 0 if it is not the part's fault."""
        if issubclass(type(failure), _ELSEWHERE):
            return 0
        now = time.monotonic()
        self._failures.append(now)
        while self._failures[0] < now - self.supervision.restart_window:
            self._failures.popleft()
        return len(self._failures)

    def _log_failure(self, level: int, failure: BaseException, decision: str) -> None:
        # The library's errors explain themselves; any other error needs its traceback.
        trace = None if is_a(failure, RedisWorkerError) else without_own_frames(failure)
        logger.log(level, "%s failed: %s; %s", self._title, one_line(failure), decision, exc_info=trace)
