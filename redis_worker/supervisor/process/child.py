"""The program of a part's process: `python -m redis_worker.supervisor.process.child` runs the part once."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.engine.process_group import end_own_group, end_with, leave_interrupts_to_parent
from redis_worker.engine.streams import open_streams
from redis_worker.file.plan import PoolPart, TasksPart
from redis_worker.reporting import report_running
from redis_worker.supervisor.failure import one_line, without_own_frames
from redis_worker.supervisor.process.channel import CHANNEL_FD, FORMER_PYTHONPATH, PYTHONPATH, Channel
from redis_worker.supervisor.process.log_forwarding import forward_logs, log_here
from redis_worker.supervisor.process.transfer import unpacked
from redis_worker.supervisor.wiring import Wiring
from redis_worker.supervisor.work import Work
from redis_worker.vocabulary.error_text import is_a
from redis_worker.vocabulary.errors import RedisWorkerError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.part import PART

if TYPE_CHECKING:
    from redis_worker.service.list_worker import ListWorker

logger = library_logger("redis_worker.supervisor")

# The time limit of a cancelled part, in seconds, when no supervisor is left to end this process.
_CANCEL_TIMEOUT = 4.0
# The interval of the checks that the supervisor is alive, in seconds.
_LOOK_EVERY = 1.0


class Child:
    """The part's process: runs the part, answers pings, and reports how the run ended."""

    def __init__(self, channel: Channel, start: dict[str, Any]) -> None:
        self._channel = channel
        self._part = unpacked(start["part"])
        self._title: str = start["title"]
        self._form: dict[str, Any] | None = start["form"]
        self._wiring = Wiring()
        self._work: Work | None = None
        self._stopping = False

    async def run(self) -> None:
        """Run the part to its end."""
        PART.set(self._title)
        patience = self._part.supervision.shutdown_timeout + _CANCEL_TIMEOUT
        supervisor = os.getppid()
        end_with(supervisor, patience=patience)
        beside = [asyncio.create_task(self._listen()), asyncio.create_task(self._watch(supervisor))]
        loop = asyncio.get_running_loop()
        # A service manager signals all processes at once; the supervisor's stop message follows a moment later.
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
                logger.error("%s", one_line(error), exc_info=without_own_frames(error))
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
        """Close the channel when the supervisor is dead: a process that it forked may hold its end open."""
        while os.getppid() == supervisor:  # noqa: ASYNC110 - no event reports it
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
            pool.stop_aloud()
        elif self._work is not None:
            self._work.stop()

    def _reported(self) -> AbstractAsyncContextManager[None]:
        pool = self._reporting_pool()
        if pool is None:
            return nullcontext()
        from redis_worker.service import progress

        processor = self._part.processor if isinstance(self._part, PoolPart) else None
        return progress.reported(pool, [progress.description(pool, processor)])

    def _reporting_pool(self) -> ListWorker | None:
        """The worker, where it is one that logs how it goes."""
        if self._part.supervision.reports and isinstance(self._part, (PoolPart, TasksPart)):
            return cast("ListWorker | None", self._work)
        return None

    def _report(self) -> None:
        """Send the condition, queues and metrics."""
        work = self._work
        self._channel.send(
            condition="starting" if work is None else work.condition,
            consuming=[] if work is None else work.consuming(),
            metrics=self._wiring.metrics.snapshot(),
        )


async def _main(end: socket.socket) -> None:
    channel = await Channel.over(end)
    message = await channel.receive()
    if message is not None:  # None: the supervisor died first
        forward_logs(channel, message["title"], message["levels"])
        await Child(channel, message).run()


def main() -> None:
    """Run the part that the supervisor sends over the inherited socket."""
    if CHANNEL_FD not in os.environ:
        sys.exit("only a supervisor starts this program: see redis-worker serve --help")
    end = socket.socket(fileno=int(os.environ.pop(CHANNEL_FD)))
    os.environ.pop(PYTHONPATH, None)
    if (former := os.environ.pop(FORMER_PYTHONPATH, None)) is not None:
        os.environ[PYTHONPATH] = former
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
        end_own_group()  # no supervisor is left to end the processes started here
    # A thread that does not end cannot be stopped; its tasks have been handed back.
    os._exit(0)
