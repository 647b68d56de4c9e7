"""The supervisor: starts, watches, reloads and stops the parts of a file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from redis_worker.engine.counters import Counters
from redis_worker.engine.waiting import to_the_end
from redis_worker.engine.watchdog import Watchdog
from redis_worker.file.plan import Part, Plan
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolved
from redis_worker.ports import Observer
from redis_worker.reporting import report_block
from redis_worker.signals import serve
from redis_worker.supervisor.announcing import StatusPublisher
from redis_worker.supervisor.failure import failure_of
from redis_worker.supervisor.rereading import read_again
from redis_worker.supervisor.roster import Roster
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.errors import ConfigurationError, PartFailed
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.service import READY, Condition, Consuming, PartStatus

logger = library_logger("redis_worker.supervisor")

# Conditions of a part that are the supervisor's, the worst first.
_TROUBLES: tuple[Condition, ...] = (
    *("Redis is away", "Kafka is away", "the sink is away", "waiting for Redis", "waiting for Kafka"),
)
# The time limit of a reload under way at a stop, in seconds.
_LAST_RELOAD = 5.0


class Supervisor:
    """A runner of the parts of a file, in the caller's event loop or in separate processes.

        async with Supervisor.from_file("workers.toml"):
            ...

    Parts fail separately: one that fails is restarted with backoff, and given up when it fails too often. Only `serve`
    installs signal handlers; nothing configures logging.
    """

    def __init__(self, plan: Plan, read: Callable[[], Plan] | None = None, *, standalone: bool = False) -> None:
        """`read` reads the plan again, for `reload`; `standalone` is True if nothing else runs in the process."""
        self.plan = plan
        """The parts to run, and their settings."""
        self._read = read
        self.standalone = standalone
        """True if nothing else runs in the process."""
        self._wiring = Wiring()
        self._publisher = StatusPublisher(self, self._wiring.metrics)
        self._roster = Roster(self._wiring, self._give_up)
        self._started = self._stopping = False
        self._running = asyncio.Event()
        """Set once the start is over."""
        self._closing: asyncio.Task[None] | None = None
        """The stop, once it has begun."""
        self._lost: PartFailed | None = None
        """The failure of a critical part that failed for good."""
        self._changing = asyncio.Lock()
        self._reloading: set[asyncio.Task[bool]] = set()
        self._watchdog: asyncio.Task[None] | None = None

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        only: Sequence[str] = (),
        without: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        url: str | None = None,
        standalone: bool = False,
    ) -> Supervisor:
        """Return a supervisor of the file at `path`, with `only` some of its parts, or all `without` some.

        `environment` gives the values of ${NAME}; by default the environment, and `.env` in the working directory.
        `url` overrides the one in its [redis].
        Raises ConfigurationError, which lists all mistakes in the file. The names in the parts are resolved when the
        parts start, or, with `standalone`, at once.
        """

        def read() -> Plan:
            return read_plan(path, environment=environment, only=only, without=without, url=url)

        return cls(resolved(read) if standalone else read(), lambda: resolved(read), standalone=standalone)

    @property
    def service(self) -> str:
        """The name in the file."""
        return self.plan.name

    @property
    def why_nothing(self) -> str | None:
        """The reason why no part runs in this process; None if one does."""
        return self.plan.why_nothing(standalone=self.standalone)

    @property
    def condition(self) -> Condition:
        """The condition of the part in the worst state."""
        if self._stopping:
            return "stopping"
        states = self._roster.states()
        return next((condition for condition in _TROUBLES if condition in states), "running")

    @property
    def ready(self) -> bool:
        """True if every part runs, or has ended by itself."""
        return self._started and not self._stopping and self._roster.states() <= {*READY}

    @property
    def counters(self) -> Counters:
        """Counts of all parts together."""
        return self._wiring.counters

    @property
    def http_address(self) -> str | None:
        """The host and port of the HTTP server; None without one."""
        return self._publisher.http_address

    def parts(self) -> list[PartStatus]:
        """Return the status of each part, in the order of the file."""
        return self._roster.status()

    def consuming(self) -> list[Consuming]:
        """Return the queues that the parts claim from."""
        return self._roster.consuming()

    def report_running(self) -> None:
        """Log the running tasks of the parts, as far as they are known: id, age, stack; call it on the event loop."""
        self._roster.report_running()

    async def start(self) -> None:
        """Start the parts in the order of the file; return when they run, or after 5 s: they continue to try.

        Cancelling it stops the started parts at once.
        Raises PartFailed if a critical part fails for good, and ConfigurationError if called twice or after `stop`.
        """
        if self._started or self._stopping:
            raise ConfigurationError(f"the supervisor {self.service} starts once; make another one")
        self._started = True
        plan = self.plan = self._here(self.plan)
        try:
            async with self._changing:  # a reload, or the end of a stop, waits for this
                await self._publisher.open(plan, strict=self.standalone)
                self._watchdog = asyncio.create_task(Watchdog(Observer(), report=report_block).run())
                await self._roster.begin(plan.parts)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self.cancel()
            await self.stop()
            raise
        if self._lost is not None:
            await self.stop()
            raise self._lost
        self._running.set()

    async def wait_until_started(self) -> None:
        """Wait until `start` has returned; never return if it raises."""
        await self._running.wait()

    def _here(self, plan: Plan) -> Plan:
        """Return `plan` if it may run here, else without its parts."""
        if (why_not := plan.why_not_here(standalone=self.standalone)) is None:
            return plan
        logger.warning("%s", why_not)
        return replace(plan, parts=(), http=None, url=None)

    async def wait(self) -> None:
        """Wait until no part is left to run, or a critical part has failed for good.

        Raises PartFailed for the latter, and if no part is left because of failures.
        """
        await self._roster.over.wait()
        if self._lost is not None:
            raise self._lost
        if not self._stopping and (failed := [part for part in self.parts() if part.state == "failed"]):
            raise PartFailed(f"nothing is left to run: {', '.join(map(failure_of, failed))}")

    async def stop(self) -> None:
        """Stop all parts, the last one first, each within its own time limit, all within the plan's shutdown_timeout.

        Parts that still run after that are cancelled. Cancelling this stops all at once.
        """
        await to_the_end(self._close(), self.cancel)

    def _close(self) -> asyncio.Task[None]:
        """Begin the stop, once, in a separate task: its callers may be cancelled."""
        if self._closing is None:
            self._stopping = True
            self._roster.over.set()
            self._closing = asyncio.create_task(self._stop(), name="redis-worker stop")
        return self._closing

    async def _stop(self) -> None:
        PART.set(None)  # the caller may be a part
        try:
            await self._roster.end(self.plan.shutdown_timeout)
            await self._until_changed()
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()
                await asyncio.wait({self._watchdog})
            await self._wiring.close()
            await self._publisher.close()

    async def _until_changed(self) -> None:
        """Wait for a reload under way: it starts nothing more, but may open connections."""
        try:
            async with asyncio.timeout(_LAST_RELOAD), self._changing:
                pass
        except TimeoutError:
            logger.warning("a reload does not end: something that is imported for it takes its time")

    def cancel(self) -> None:
        """Cancel all parts; `stop` must still be awaited."""
        self._roster.cancel()

    def kill(self) -> None:
        """Kill the processes of parts at once, with the processes that they started: this process is about to end."""
        self._roster.kill()

    async def run(self) -> None:
        """Start, run until stopped or done, and stop. Cancelling it stops at once. Raises as `start` and `wait` do."""
        await self.start()
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            await self.stop()

    async def serve(self) -> bool:
        """Run as a program: `asyncio.run(Supervisor.from_file("workers.toml").serve())`.

        The first SIGTERM or SIGINT stops part by part, a second one cancels, a third one ends the process at once;
        SIGUSR1 logs the running tasks, SIGHUP reloads the file. Return False if a second signal cancelled it.
        Raises as `run` does, and ConfigurationError if nothing would run, and outside the main thread.
        """
        self.standalone = True
        if (why := self.why_nothing) is not None:
            raise ConfigurationError(why)
        started, reload = self.wait_until_started, self._reload_by_signal
        return await serve(self.run, started, self.stop_aloud, self.cancel, self.report_running, reload=reload)

    def stop_aloud(self) -> None:
        """Begin the stop, and log it."""
        logger.info("stopping, the last part first; once more to cancel")
        self._close()

    def _reload_by_signal(self) -> None:
        if self._read is not None and self._started and not self._stopping:
            self._begin_reload(self._read)

    async def reload(self) -> bool:
        """Read the file again, and restart the parts that changed or failed; the others keep running.

        Return False if the file has a mistake, which is logged and changes nothing, and after a stop. Cancelling this
        does not end it. Raises ConfigurationError before `start`.
        """
        if self._read is None:
            raise ConfigurationError(f"the supervisor {self.service} was not made from a file")
        if not self._started:
            raise ConfigurationError(f"the supervisor {self.service} has not started: there is nothing to reload")
        return await asyncio.shield(self._begin_reload(self._read))

    def _begin_reload(self, read: Callable[[], Plan]) -> asyncio.Task[bool]:
        # A separate task: a caller that is cancelled must not leave a plan half changed.
        reloading = asyncio.create_task(self._reload(read), name="redis-worker reload")
        self._reloading.add(reloading)
        reloading.add_done_callback(self._reloading.discard)
        return reloading

    async def _reload(self, read: Callable[[], Plan]) -> bool:
        PART.set(None)  # the caller may be a part
        async with self._changing:
            if self._stopping:
                return False
            plan = await read_again(read, self.plan.path)
            if plan is not None and not self._stopping:
                self.plan = plan = self._here(plan)
                await self._publisher.open(plan)
                await self._roster.change(plan.parts, plan.path, plan.shutdown_timeout)
            return plan is not None

    async def __aenter__(self) -> Self:
        """Start. Raises as `start` does."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _give_up(self, part: Part, failure: BaseException) -> None:
        if part.supervision.critical and self._lost is None:
            status = next(status for status in self.parts() if status.name == part.name)
            self._lost = PartFailed(f"the critical part {failure_of(status)}")
            self._lost.__cause__ = failure
            logger.error("%s is critical, so all is stopped", part.name)
            self._close()
