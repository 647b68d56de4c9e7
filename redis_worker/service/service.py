"""Services: objects that work in an event loop, in the foreground or during a `with` block."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.forks import watch_forks
from redis_worker.broker.connection.preflight import connected
from redis_worker.engine.counters import Counters
from redis_worker.engine.lifespan import Lifespan, providing
from redis_worker.engine.running import RunningTask
from redis_worker.engine.waiting import first_of, to_the_end
from redis_worker.ports import Observer
from redis_worker.reporting import report_running
from redis_worker.signals import serve
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Condition, Consuming

if TYPE_CHECKING:
    from redis_worker.http.server import HttpServer

logger = library_logger("redis_worker.run")

Measuring: TypeAlias = Callable[[str, str], Observer]
"""Returns the observer, for metrics, of a queue and the name of its processor or handler."""


class Service(ABC):
    """Work in the caller's event loop until stopped. Only `serve` installs signal handlers; logging is left alone."""

    _given: Client | None = None
    """The caller's client, if there is one."""
    _waiting_condition: Condition = "waiting for Redis"

    def __init__(
        self,
        name: str,
        address: Address | None,
        connect_timeout: float,
        service: str,
        http: str | None,
        http_token: str | None,
        measuring: Measuring | None = None,
        http_origins: Sequence[str] = (),
        lifespan: Lifespan | None = None,
    ) -> None:
        """`address` is that of Redis, None without Redis.

        `connect_timeout` is the time limit for finding a server at start, in seconds; 0 is no limit. `service` is the
        name in answers over HTTP; `http` is the address to listen on, and `http_token` the token for all beyond the
        state of health; pages of `http_origins` may connect to `/ws`. Without `http`, `measuring` returns the observer
        of a queue for the metrics of another server. `lifespan` opens what the functions need before the first
        connection, and closes it after the last result.
        """
        self._name = name
        self.service = service
        self._http = None if http is None else http_server(http, http_token, http_origins)
        self._measure = measuring if self._http is None else self._http.metrics.of
        self._address = self._fleet = address
        self._connect_timeout = connect_timeout
        self._lifespan = lifespan
        self._stop_asked = False
        self._started = asyncio.Event()
        self._ran = False
        self._waiting: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None
        self._host: asyncio.Task[Any] | None = None
        self._failed_host = False
        watch_forks(self)

    def forked(self) -> None:
        """See Inheritable. The connections of a caller's client are the parent's."""
        self._given = None

    @property
    def address(self) -> str:
        """The server's address, without the password."""
        return self._address.name if self._address is not None else "no server"

    @property
    def started(self) -> bool:
        """True once the server has passed the checks and work has begun."""
        return self._started.is_set()

    @property
    def condition(self) -> Condition:
        """The condition of the service."""
        if self._stop_asked:
            return "stopping"
        return self._condition_at_work() if self.started else self._waiting_condition

    @property
    def http_address(self) -> str | None:
        """The host and port of the HTTP server; None without one, or before it listens."""
        return None if self._http is None else self._http.listening

    async def wait_until_started(self) -> None:
        """Wait until work begins; never return if `run` fails before."""
        await self._started.wait()

    def stop(self) -> None:
        """Stop gracefully: claim no more, release unstarted tasks, let running ones finish."""
        self._stop_asked = True
        if self.started:
            self._stop_work()
        elif self._waiting is not None:
            self._waiting.cancel()

    def stop_aloud(self) -> None:
        """Stop gracefully, and log what is still to be done."""
        self.stop()
        if not self.started:
            logger.info("stopping: work has not begun")
        elif running := self.running:
            has = " is" if running == 1 else "s are"
            logger.info("stopping: %d task%s running; once more to cancel", running, has)
        else:
            logger.info("stopping")

    def cancel(self) -> None:
        """Stop at once: cancel running coroutines, and release unfinished tasks."""
        self.stop()
        if self.started:
            self._cancel_work()

    async def run(self) -> None:
        """Work until stopped, cancelled or done.

        Cancelling it has the effect of `cancel`. Raises Unreachable if no server answers at start, and Refused if a
        retry cannot help.
        """
        if self._ran:
            raise ConfigurationError(f"{self._name} runs once; make another one")
        self._ran = True
        work = asyncio.create_task(self._work_and_answer())

        def cancel() -> None:
            self.cancel()
            if not self.started:
                work.cancel()  # still waiting for a server

        await to_the_end(work, cancel)

    async def serve(self) -> bool:
        """Run as a program: `asyncio.run(worker.serve())`.

        The first SIGTERM or SIGINT stops gracefully, a second one cancels, a third one ends the process at once;
        SIGUSR1 logs the running tasks. No other method installs a signal handler. Return False if a second signal
        cancelled it. Raises as `run` does, and ConfigurationError outside the main thread.
        """
        started, show = self.wait_until_started, lambda: report_running(self.running_tasks())
        return await serve(self.run, started, self.stop_aloud, self.cancel, show)

    async def __aenter__(self) -> Self:
        """Start, and return when work has begun. Raises as `run` does."""
        self._task = asyncio.create_task(self.run(), name=f"redis-worker {self._name}")
        try:
            await first_of(self._task, self._started.wait())
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._task.done():
            self._task.result()
        # If the work fails, the block fails too: it must not continue to submit tasks.
        self._host = asyncio.current_task()
        self._task.add_done_callback(self._fail_host)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        host, self._host = self._host, None
        self.stop()
        await asyncio.wait({self._task})
        if self._failed_host and host is not None and host.uncancel() == 0 and kind is asyncio.CancelledError:
            self._task.result()
        if kind is None:
            self._task.result()
        elif not self._task.cancelled():
            self._task.exception()  # retrieved; the block's own exception matters more

    def _fail_host(self, task: asyncio.Task[None]) -> None:
        if self._host is not None and not task.cancelled() and task.exception() is not None:
            self._failed_host = True
            self._host.cancel()

    async def _work_and_answer(self) -> None:
        """Work, and answer HTTP, if configured, from before the first connection until the last result is written."""
        async with AsyncExitStack() as stack:
            if self._http is not None:
                await stack.enter_async_context(self._http.answering(self, lambda _: self._address, self._fleet))
            await stack.enter_async_context(providing(self._lifespan))
            await self._work()

    def _measuring(self, queue: str, processor: str) -> tuple[Observer, ...]:
        """Return the observer of `queue` for the metrics, if anything serves them."""
        return () if self._measure is None else (self._measure(queue, processor),)

    async def _connected(self, connection: Connection, prepare: Callable[[], Awaitable[None]]) -> bool:
        """Wait for a server and run `prepare`. Return False if stopped before."""
        assert self._address is not None
        return await self._found(connected(connection, self._address.name, self._connect_timeout, prepare))

    async def _found(self, search: Coroutine[Any, Any, None]) -> bool:
        """Wait for the end of `search` for servers. Return False if stopped before."""
        if self._stop_asked:
            search.close()
        else:
            self._waiting = asyncio.ensure_future(search)
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                self._waiting.result()
        return not self._stop_asked

    @property
    @abstractmethod
    def running(self) -> int:
        """How many tasks, messages or batches are running."""

    @property
    @abstractmethod
    def counters(self) -> Counters:
        """Counts of the tasks so far."""

    @abstractmethod
    def consuming(self) -> list[Consuming]:
        """Return the queues that it claims from."""

    @abstractmethod
    def running_tasks(self) -> list[RunningTask]:
        """Return the running tasks, oldest first; call it on the event loop."""

    @abstractmethod
    def _condition_at_work(self) -> Condition:
        """Return the condition between start and stop."""

    @abstractmethod
    async def _work(self) -> None:
        """Work from the first connection to the last result; set `_started` once there is something to stop."""

    @abstractmethod
    def _stop_work(self) -> None:
        """See `stop`."""

    @abstractmethod
    def _cancel_work(self) -> None:
        """See `cancel`."""


def http_server(address: str, token: str | None = None, origins: Sequence[str] = ()) -> HttpServer:
    """Return a server; see HttpServer. Raises ConfigurationError if it is no address, or the extra is not installed."""
    try:
        from redis_worker.http.server import HttpServer
    except ImportError as error:
        raise ConfigurationError(
            f"HTTP and metrics need the extra `web` ({error.name} is missing): pip install 'redis-worker[web]'"
        ) from None
    return HttpServer(address, token, origins)
