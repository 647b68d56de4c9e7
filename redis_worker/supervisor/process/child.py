"""The program of a part in a process of its own: `python -m redis_worker.supervisor.process.child` runs it once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.engine.process_group import end_own_group, end_with, leave_interrupts_to_parent
from redis_worker.engine.streams import open_streams
from redis_worker.file.plan import PoolPart
from redis_worker.reporting import report_running
from redis_worker.supervisor.failure import one_line, without_ours
from redis_worker.supervisor.process.channel import FILE, FORMER_PATH, PATH, Channel
from redis_worker.supervisor.process.log_forwarding import forward_logs, log_here
from redis_worker.supervisor.process.transfer import unpacked
from redis_worker.supervisor.wiring import Wiring
from redis_worker.supervisor.work import Work
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.errors import RedisWorkerError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART

if TYPE_CHECKING:
    from redis_worker.service.pool import WorkerPool

logger = library_logger("redis_worker.supervisor")

# What is cancelled gets so many seconds, when there is no supervisor any more that would end this process.
_LAST_WORDS = 4.0
# How often to look whether it is there, in seconds.
_LOOK_EVERY = 1.0


class Child:
    """Runs what it is told to, answers when it is pinged, and says in the end what has ended it."""

    def __init__(self, channel: Channel, told: dict[str, Any]) -> None:
        self._channel = channel
        self._part = unpacked(told["part"])
        self._title: str = told["title"]
        self._form: dict[str, Any] | None = told["form"]
        self._wiring = Wiring()
        self._work: Work | None = None
        self._stopping = False

    async def run(self) -> None:
        """Run the part, to its end."""
        PART.set(self._title)
        patience = self._part.supervision.shutdown_timeout + _LAST_WORDS
        supervisor = os.getppid()
        end_with(supervisor, patience=patience)
        beside = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch(supervisor))]
        loop = asyncio.get_running_loop()
        # A service manager tells all processes at once; the supervisor says the same a moment later.
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGUSR1, self._show)
        try:
            self._work = self._wiring.make(self._part)
            spare_garbage_collection()
            self._report()
            if self._stopping:
                self._stop_work()
            async with self._reported():
                await self._work.run()
            failure = None
        except BaseException as error:
            failure = {"kind": type(error).__name__, "text": one_line(error)}
            if not is_a(error, RedisWorkerError):
                logger.error("%s", one_line(error), exc_info=without_ours(error))
        finally:
            for task in beside:
                task.cancel()
        self._report()
        self._channel.send(end=failure)
        await self._wiring.close()
        await self._channel.close()

    async def _listen(self) -> None:
        while (message := await self._channel.receive()) is not None:
            match message["do"]:
                case "ping":
                    self._report()
                case "show":
                    self._show()
                case "stop":
                    self._stop()
                case "cancel":
                    self._stop()
                    if self._work is not None:
                        self._work.cancel()
        log_here(self._form)
        logger.warning("the supervisor is gone: stopping")
        self._stop()
        await asyncio.sleep(self._part.supervision.shutdown_timeout)
        if self._work is not None:
            self._work.cancel()

    async def _watch(self, supervisor: int) -> None:
        """Hang up when the supervisor is no more: a process that it has forked may hold the line open."""
        while os.getppid() == supervisor:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(_LOOK_EVERY)
        self._channel.abort()

    def _show(self) -> None:
        if self._work is not None:
            report_running(self._work.running_tasks())

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._stop_work()

    def _stop_work(self) -> None:
        if (pool := self._reporting_pool()) is not None:
            from redis_worker.service import progress

            progress.stop(pool)
        elif self._work is not None:
            self._work.stop()

    def _reported(self) -> AbstractAsyncContextManager[None]:
        pool = self._reporting_pool()
        if pool is None or not isinstance(self._part, PoolPart):
            return nullcontext()
        from redis_worker.service import progress

        return progress.reported(pool, self._part.processor)

    def _reporting_pool(self) -> WorkerPool | None:
        """The pool, where it is one that logs how it goes."""
        if self._part.supervision.reports and isinstance(self._part, PoolPart):
            return cast("WorkerPool | None", self._work)
        return None

    def _report(self) -> None:
        """Say how it stands."""
        work = self._work
        self._channel.send(
            condition="starting" if work is None else work.condition,
            consuming=[] if work is None else work.consuming(),
            counters=asdict(self._wiring.counters),
            metrics=self._wiring.metrics.snapshot(),
        )


async def _main(end: socket.socket) -> None:
    channel = await Channel.over(end)
    told = await channel.receive()
    if told is not None:  # it is gone before it has said anything
        forward_logs(channel, told["title"], told["levels"])
        await Child(channel, told).run()


def main() -> None:
    """Run what the supervisor at the other end of the inherited socket says."""
    if FILE not in os.environ:
        sys.exit("this is run by a supervisor: see redis-worker serve --help")
    end = socket.socket(fileno=int(os.environ.pop(FILE)))
    os.environ.pop(PATH, None)
    if (former := os.environ.pop(FORMER_PATH, None)) is not None:
        os.environ[PATH] = former
    end.set_inheritable(False)
    open_streams()
    leave_interrupts_to_parent()
    signal.signal(signal.SIGUSR1, lambda *_: None)  # until there is something to show
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_main(end))


if __name__ == "__main__":
    supervisor = os.getppid()
    main()
    sys.stdout.flush()
    if os.getppid() != supervisor:
        end_own_group()  # nobody else ends what was started here
    # A thread that does not end cannot be stopped, and what it held has been handed back.
    os._exit(0)
