"""The supervisor: all parts of a file, begun, looked after, changed and ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from redis_worker.engine.counters import Counters
from redis_worker.engine.thread_pool import OwnThreads
from redis_worker.engine.watchdog import Watchdog
from redis_worker.file.plan import Part, Plan
from redis_worker.file.reading import read_plan
from redis_worker.file.resolving import resolved
from redis_worker.ports import Observer
from redis_worker.reporting import report_block
from redis_worker.signals import reload_signal, serve
from redis_worker.supervisor.announcing import Outside
from redis_worker.supervisor.roster import Change, Roster
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.errors import ConfigurationError, PartFailed
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.service import READY, Condition, Consuming, PartStatus

if TYPE_CHECKING:
    from typing import Self

logger = library_logger("redis_worker.supervisor")

# How long a stop waits for a reload, in seconds.
_LAST_RELOAD = 5.0


class Supervisor:
    """Runs the parts of a file in the caller's event loop, or in processes of their own.

        async with Supervisor.from_file("workers.toml"):
            ...

    What one part does breaks no other: one that fails is started again, with a backoff, and given up when it fails
    too often. Only `serve` takes signals; logging is the program's.
    """

    def __init__(self, plan: Plan, read: Callable[[], Plan] | None = None, *, standalone: bool = False) -> None:
        """`read` reads the plan again, for `reload`. `standalone` says that nothing but this runs in the process."""
        self._plan = plan
        self._read = read
        self.standalone = standalone
        """Whether nothing but this runs in the process."""
        self._wiring = Wiring()
        self._outside = Outside(self, self._wiring.metrics)
        self._roster = Roster(self._wiring, self._give_up)
        self._started = self._stopping = False
        self._closing: asyncio.Task[None] | None = None
        """Stops all, once there is to be a stop."""
        self._lost: tuple[PartStatus, BaseException] | None = None
        """The critical part that was given up, and its last failure."""
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
        """What the file at `path` says, or `only` some of its parts, or all `without` some.

        `environment` is what ${NAME} in it stands for; by default the environment, and `.env` in the working directory.
        `url` goes before the one in its [redis].
        Raises ConfigurationError, which lists all mistakes in the file. What the parts name is looked for when they
        start, or, with `standalone`, at once.
        """

        def read() -> Plan:
            return read_plan(path, environment=environment, only=only, without=without, url=url)

        return cls(resolved(read) if standalone else read(), lambda: resolved(read), standalone=standalone)

    @property
    def service(self) -> str:
        """What it is called: the name in the file."""
        return self._plan.name

    @property
    def plan(self) -> Plan:
        """What is to run."""
        return self._plan

    @property
    def why_nothing(self) -> str | None:
        """Why no part runs in this process; None where one does."""
        return self._plan.why_nothing(standalone=self.standalone)

    @property
    def condition(self) -> Condition:
        """How it stands: as the part that stands worst, in the words for a worker."""
        if self._stopping:
            return "stopping"
        states = self._roster.states()
        for state in ("Redis is away", "waiting for Redis"):
            if state in states:
                return state
        return "running"

    @property
    def ready(self) -> bool:
        """Whether every part works, or has done what it had to do."""
        return self._started and not self._stopping and self._roster.states() <= {*READY}

    @property
    def counters(self) -> Counters:
        """What all parts together have done so far."""
        return self._wiring.counters

    @property
    def http_address(self) -> str | None:
        """The host and port that HTTP is answered on; None where it is not."""
        return self._outside.http_address

    def parts(self) -> list[PartStatus]:
        """How each part stands, in the order of the file."""
        return self._roster.status()

    def consuming(self) -> list[Consuming]:
        """The queues that are claimed from just now."""
        return self._roster.consuming()

    def report_running(self) -> None:
        """Log what the parts run just now, as far as that can be seen: id, age and stack; to be called on the loop."""
        self._roster.report_running()

    async def start(self) -> None:
        """Begin, part by part, in the order of the file; returns when they work, or after 5 s: they go on trying.

        Cancelling it ends at once what has begun.
        Raises PartFailed where a critical part cannot work at all, and ConfigurationError when called twice or after
        `stop`.
        """
        if self._started or self._stopping:
            raise ConfigurationError(f"the supervisor {self.service} starts once; make another one")
        self._started = True
        plan = self._plan = self._here(self._plan)
        try:
            async with self._changing:  # a reload, or the end of a stop, waits until all this is there
                await self._outside.open(plan, strict=self.standalone)
                self._watchdog = asyncio.create_task(Watchdog(Observer(), report=report_block).run())
                await self._roster.begin(plan.parts)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                self.cancel()
            await self.stop()
            raise
        if self._lost is not None:
            await self.stop()
            raise _loss(self._lost[0]) from self._lost[1]

    def _here(self, plan: Plan) -> Plan:
        """As much of `plan` as is to run here: all or nothing."""
        if (why_not := plan.why_not_here(standalone=self.standalone)) is None:
            return plan
        logger.warning("%s", why_not)
        return replace(plan, parts=(), http=None, url=None)

    async def wait(self) -> None:
        """Wait until there is nothing left to run, or a critical part was given up. Raises PartFailed for the latter.

        And where nothing is left because of failures.
        """
        await self._roster.over.wait()
        if self._lost is not None:
            raise _loss(self._lost[0]) from self._lost[1]
        if not self._stopping and (failed := [part for part in self.parts() if part.state == "failed"]):
            raise PartFailed(f"nothing is left to run: {', '.join(map(_failure, failed))}")

    async def stop(self) -> None:
        """End all parts, the last one first, each in its own time, all together within the plan's shutdown_timeout.

        What has not ended by then is cancelled. Cancelling this ends all at once.
        """
        closing = self._close()
        try:
            await asyncio.shield(closing)
        except asyncio.CancelledError:
            self.cancel()
            await asyncio.wait({closing})
            raise

    def _close(self) -> asyncio.Task[None]:
        """Begin to stop, once, in a task of its own: whoever waits for it may be cancelled."""
        if self._closing is None:
            self._stopping = True
            self._roster.over.set()
            self._closing = asyncio.create_task(self._stop(), name="redis-worker stop")
        return self._closing

    async def _stop(self) -> None:
        PART.set(None)  # it may be a part that has asked
        try:
            await self._roster.end(self._plan.shutdown_timeout)
            await self._until_changed()
        finally:
            if self._watchdog is not None:
                self._watchdog.cancel()
                await asyncio.wait({self._watchdog})
            await self._wiring.close()
            await self._outside.close()

    async def _until_changed(self) -> None:
        """Wait for a reload that is under way: it begins nothing more, but may open what is to be closed next."""
        try:
            async with asyncio.timeout(_LAST_RELOAD), self._changing:
                pass
        except TimeoutError:
            logger.warning("a reload does not end: something that is imported for it takes its time")

    def cancel(self) -> None:
        """Have all parts end at once; `stop` is still to be awaited."""
        self._roster.cancel()

    def kill(self) -> None:
        """Kill the processes of parts at once, with all that they have started: this process is about to end."""
        self._roster.kill()

    async def run(self) -> None:
        """Start, work until stopped or done, and stop. Cancelling it stops at once. Raises as `start` and `wait` do."""
        await self.start()
        try:
            await self.wait()
        except asyncio.CancelledError:
            self.cancel()
            raise
        finally:
            await self.stop()

    async def serve(self) -> bool:
        """Run, as the main thing that a program does: `asyncio.run(Supervisor.from_file("workers.toml").serve())`.

        The first SIGTERM or SIGINT stops part by part, a second one cancels, a third one ends the process at once;
        SIGUSR1 logs what runs, SIGHUP has the file read again. Returns False where a second signal has cut it short.
        Raises as `run` does, and ConfigurationError where nothing would run, and outside of the main thread.
        """
        self.standalone = True
        if (why := self.why_nothing) is not None:
            raise ConfigurationError(why)
        with reload_signal(self._reload_by_signal):
            return await serve(self.run, self._stop_by_signal, self.cancel, self.report_running)

    def _stop_by_signal(self) -> None:
        self._close()

    def _reload_by_signal(self) -> None:
        if self._read is not None and self._started and not self._stopping:
            reloading = asyncio.create_task(self.reload())
            self._reloading.add(reloading)
            reloading.add_done_callback(self._reloading.discard)

    async def reload(self) -> bool:
        """Read the file again, and change what has changed: parts that are as before keep running.

        Those that failed begin anew. A file with a mistake is refused: it is logged, False returned, and all goes on.
        After a stop nothing is read, and False returned. Cancelling this does not end it. Raises ConfigurationError
        before `start`.
        """
        if self._read is None:
            raise ConfigurationError(f"the supervisor {self.service} was not made from a file")
        if not self._started:
            raise ConfigurationError(f"the supervisor {self.service} has not started: there is nothing to reload")
        # In a task of its own, to its end: whoever has asked may be cancelled, and a half changed plan is none.
        reloading = asyncio.create_task(self._reload(self._read), name="redis-worker reload")
        self._reloading.add(reloading)
        reloading.add_done_callback(self._reloading.discard)
        return await asyncio.shield(reloading)

    async def _reload(self, read: Callable[[], Plan]) -> bool:
        PART.set(None)  # it may be a part that has asked
        async with self._changing:
            if self._stopping:
                return False
            # In a thread: what is imported for it may take its time.
            plan = await OwnThreads("redis-worker reload").run(_attempt, read)
            if isinstance(plan, Exception):
                for line in str(plan).splitlines():
                    logger.error("%s", line)
                logger.error("%s is refused: what was running goes on", self._plan.path)
                return False
            if not self._stopping:
                self._plan = plan = self._here(plan)
                await self._outside.open(plan)
                await self._roster.change(plan.parts, self._say_change, plan.shutdown_timeout)
            return True

    def _say_change(self, change: Change) -> None:
        logger.info("%s was read again: %d parts go on, %d end, %d begin", self._plan.path, *change)

    async def __aenter__(self) -> Self:
        """Start. Raises as `start` does."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _give_up(self, part: Part, failure: BaseException) -> None:
        if part.supervision.critical and self._lost is None:
            self._lost = next(status for status in self.parts() if status.name == part.name), failure
            logger.error("%s is critical, so all is stopped", part.name)
            self._close()


def _attempt(read: Callable[[], Plan]) -> Plan | Exception:
    try:
        return read()
    except ConfigurationError as error:
        return error
    except Exception as error:
        logger.debug("a defect", exc_info=error)
        return ConfigurationError(f"a defect of redis-worker, please report it: {type(error).__name__}: {error}")


def _loss(part: PartStatus) -> PartFailed:
    return PartFailed(f"the critical part {_failure(part)}")


def _failure(part: PartStatus) -> str:
    return f"{part.name} has failed ({part.error})"
