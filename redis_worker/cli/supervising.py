"""The work of `redis-worker serve`: a supervisor in the foreground, from the signals to the end."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import check_server, connected
from redis_worker.cli.changes import Watched
from redis_worker.cli.describing import described
from redis_worker.engine.loop import loop_factory, spare_garbage_collection
from redis_worker.file.plan import DaemonPart, KafkaPart, Part, Plan
from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.signals import serve
from redis_worker.supervisor.supervisor import Supervisor
from redis_worker.vocabulary.duration import seconds_of
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import READY

logger = library_logger("redis_worker.supervisor")

_LOOK_EVERY = 0.5
# Time limit for threads and tasks that are left when the loop closes, in seconds.
_LAST_WORDS = 3.0


def supervise(supervisor: Supervisor, watched: Watched | None, *, hangup: bool = True) -> int:
    """Run `supervisor` until stopped or done. Return the exit code.

    It reads its plan again when `watched` changes, and at SIGHUP if `hangup`. Raises RedisWorkerError, and
    ConfigurationError if nothing would run.
    """
    if (why := supervisor.why_nothing) is not None:
        raise ConfigurationError(why)
    spare_garbage_collection()
    code = 1
    with ExitStack() as afterwards, asyncio.Runner(loop_factory=loop_factory()) as runner:
        try:
            code = runner.run(_Service(supervisor, watched, hangup).run())
        finally:
            leaving = threading.Timer(_LAST_WORDS, _leave, (code,))
            leaving.daemon = True
            afterwards.callback(leaving.cancel)
            leaving.start()
    return code


def _leave(code: int) -> None:
    """End the process: closing the loop would wait for leftover tasks, and for threads of unknown origin."""
    logger.error("some threads or tasks do not end: the process ends without them")
    os._exit(code)


class _Service:
    def __init__(self, supervisor: Supervisor, watched: Watched | None, hangup: bool) -> None:
        self._supervisor = supervisor
        self._watched = watched
        self._hangup = hangup
        self._finding_redis = True
        self._stopped = False
        self._wanted = 0
        """The number of requested reloads that are not done."""
        self._beside: set[asyncio.Task[Any]] = set()

    async def run(self) -> int:
        supervisor = self._supervisor
        self._work = asyncio.create_task(self._serve())
        reload = self._reload if self._hangup else None
        started, kill = supervisor.wait_until_started, supervisor.kill
        graceful = await serve(self._ended, started, self._stop, supervisor.cancel, self._show, kill, reload)
        logger.info("ended: %d processed, %d failed", supervisor.counters.processed, supervisor.counters.failed)
        return 0 if graceful else 1

    async def _ended(self) -> None:
        try:
            await self._work
        except asyncio.CancelledError:
            if not self._stopped:
                raise
        finally:
            for task in self._beside:
                task.cancel()

    async def _serve(self) -> None:
        supervisor = self._supervisor
        await asyncio.gather(_find_redis(supervisor.plan), *map(_find_servers, supervisor.plan.parts))
        self._finding_redis = False
        for part in supervisor.plan.parts:
            if part.supervision.reports:
                continue  # each of its processes logs it
            kind, name, what = described(part)
            logger.info("%s: %s", kind, what, extra={"part": name})
        await supervisor.start()
        try:
            if parts := supervisor.parts():
                waiting = [f"{part.name} ({part.state})" for part in parts if part.state not in READY]
                still = f"; not yet: {', '.join(waiting)}" if waiting else ""
                logger.info(
                    "%s: %d of %d parts run%s", supervisor.service, len(parts) - len(waiting), len(parts), still
                )
            if self._watched is not None:
                self._begin(self._watch(self._watched))
            await supervisor.wait()
        finally:
            await supervisor.stop()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    def _stop(self) -> None:
        self._stopped = True
        if self._finding_redis:
            logger.info("stopping: work has not begun")
            self._work.cancel()
        else:
            self._supervisor.stop_aloud()

    def _reload(self) -> None:
        if not self._finding_redis and not self._stopped:
            self._wanted += 1
            if self._wanted == 1:
                self._begin(self._reload_while_wanted())

    async def _reload_while_wanted(self) -> None:
        """Reload until no request is left: any number of requests during a reload cause one more."""
        while self._wanted:
            self._wanted = 1
            await self._supervisor.reload()
            self._wanted -= 1

    def _show(self) -> None:
        for part in self._supervisor.parts():
            logger.warning(
                "%s: %s, %d restarts%s", part.name, part.state, part.restarts, f" ({part.error})" if part.error else ""
            )
        self._supervisor.report_running()

    async def _watch(self, watched: Watched) -> None:
        """Read the plan again when its sources have changed."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            if await asyncio.to_thread(watched.changed):
                await self._supervisor.reload()


async def _find_redis(plan: Plan) -> None:
    """Wait for the server of `plan`, if a part needs one: without it, this process ends; a host application would not.

    Raises Unreachable and Refused.
    """
    if plan.url is None or all(isinstance(part, DaemonPart | KafkaPart) for part in plan.parts):
        return
    address = address_of(plan.url)
    connection = Connection(address.open(), owned=True)
    try:
        await connected(connection, address.name, plan.connect_timeout, lambda: check_server(connection))
    finally:
        await connection.close()


async def _find_servers(part: Part) -> None:
    """Ask the brokers and the database of a Kafka part, unless it waits for them. Raises Unreachable and Refused."""
    if not isinstance(part, KafkaPart):
        return
    from redis_worker.file.kafka_servers import ask

    options = KafkaOptions(**part.options)
    if options.wait:
        return
    for answer in await ask(part, seconds_of(options.connect_timeout)):
        if answer.error is not None:
            raise answer.error
