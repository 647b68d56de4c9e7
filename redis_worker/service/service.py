"""How what works in an event loop begins and ends: in the foreground, or around a `with` block."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.forks import watch_forks
from redis_worker.broker.connection.preflight import connected
from redis_worker.engine.counters import Counters
from redis_worker.engine.running import RunningTask
from redis_worker.engine.waiting import first_of
from redis_worker.ports import Observer
from redis_worker.reporting import report_running
from redis_worker.signals import serve
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.service import Condition, Consuming

if TYPE_CHECKING:
    from redis_worker.http.server import HttpServer


Measuring: TypeAlias = Callable[[str, str], Observer]
"""A queue and the name of its processor or handler -> what observes it for the metrics."""


class Service(ABC):
    """Works in the caller's event loop until it is stopped. Only `serve` takes signals; logging is the program's."""

    _given: Client | None = None
    """The caller's client, if it is to be used."""

    def __init__(
        self,
        name: str,
        address: Address,
        connect_timeout: float,
        service: str,
        http: str | None,
        measuring: Measuring | None = None,
    ) -> None:
        """`connect_timeout` is how many seconds to wait for a server at start; 0 is for ever.

        `service` is what it is called in answers over HTTP, for which `http` says where to listen. Without `http`,
        `measuring` gives what observes a queue for the metrics of somebody else's server.
        """
        self._name = name
        self.service = service
        self._http = None if http is None else http_server(http)
        self._measure = measuring if self._http is None else self._http.metrics.of
        self._address = address
        self._connect_timeout = connect_timeout
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
        """Where the server is, without its password."""
        return self._address.name

    @property
    def started(self) -> bool:
        """True once the server has been found fit and work has begun."""
        return self._started.is_set()

    @property
    def condition(self) -> Condition:
        """How it stands."""
        if self._stop_asked:
            return "stopping"
        return self._condition_at_work() if self.started else "waiting for Redis"

    @property
    def http_address(self) -> str | None:
        """The host and port that HTTP is answered on; None where it is not, or not yet."""
        return None if self._http is None else self._http.listening

    async def wait_until_started(self) -> None:
        """Wait until work begins, which it does not if `run` fails before."""
        await self._started.wait()

    def stop(self) -> None:
        """Stop gracefully: claim no more, hand back what is not started, let running tasks finish."""
        self._stop_asked = True
        if self.started:
            self._stop_work()
        elif self._waiting is not None:
            self._waiting.cancel()

    def cancel(self) -> None:
        """Stop at once: running coroutines are cancelled, and what is unfinished is handed back."""
        self.stop()
        if self.started:
            self._cancel_work()

    async def run(self) -> None:
        """Work until stopped, cancelled or done.

        Cancelling it stops at once: coroutines are cancelled and what is unfinished is handed back.
        Raises Unreachable when no server answers at start, and Refused for what trying again cannot mend.
        """
        if self._ran:
            raise ConfigurationError(f"{self._name} runs once; make another one")
        self._ran = True
        work = asyncio.ensure_future(self._work_and_answer())
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            self.cancel()
            if not self.started:
                work.cancel()  # still waiting for a server
            await asyncio.wait({work})
            if not work.cancelled() and (error := work.exception()):
                raise error from None
            raise

    async def serve(self) -> bool:
        """Run, as the main thing that a program does: `asyncio.run(worker.serve())`.

        The first SIGTERM or SIGINT stops gracefully, a second one cancels, a third one ends the process at once;
        SIGUSR1 logs what runs. Nothing else here installs a signal handler. Returns False where a second signal has
        cut it short. Raises as `run` does, and ConfigurationError outside of the main thread.
        """
        return await serve(self.run, self.stop, self.cancel, lambda: report_running(self.running_tasks()))

    async def __aenter__(self) -> Self:
        """Start; returns when work has begun. Raises as `run` does."""
        self._task = asyncio.create_task(self.run(), name=f"redis-worker {self._name}")
        try:
            await first_of(self._task, self._started.wait())
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._task.done():
            self._task.result()
        # When the work fails, the block fails too: nobody should go on submitting to what is dead.
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
            self._task.exception()  # heard, and less than what the block raises itself

    def _fail_host(self, task: asyncio.Task[None]) -> None:
        if self._host is not None and not task.cancelled() and task.exception() is not None:
            self._failed_host = True
            self._host.cancel()

    async def _work_and_answer(self) -> None:
        """Answer HTTP, if asked to, from before the first connection until the last result is written."""
        async with AsyncExitStack() as stack:
            if self._http is not None:
                await stack.enter_async_context(self._http.answering(self, lambda _: self._address))
            await self._work()

    def _measuring(self, queue: str, processor: str) -> tuple[Observer, ...]:
        """What observes `queue` for the metrics; nothing, where nobody can ask for them."""
        return () if self._measure is None else (self._measure(queue, processor),)

    async def _connected(self, connection: Connection, prepare: Callable[[], Awaitable[None]]) -> bool:
        """Wait for a server, and `prepare`; False when there was a stop before that."""
        if not self._stop_asked:
            name, timeout = self._address.name, self._connect_timeout
            self._waiting = asyncio.ensure_future(connected(connection, name, timeout, prepare))
            await asyncio.wait({self._waiting})
            if not self._waiting.cancelled():
                self._waiting.result()
        return not self._stop_asked

    @property
    @abstractmethod
    def counters(self) -> Counters:
        """What has been done so far."""

    @abstractmethod
    def consuming(self) -> list[Consuming]:
        """The queues that are claimed from just now."""

    @abstractmethod
    def running_tasks(self) -> list[RunningTask]:
        """What runs just now, oldest first; to be called on the event loop."""

    @abstractmethod
    def _condition_at_work(self) -> Condition:
        """See `condition`; once it has started and before a stop."""

    @abstractmethod
    async def _work(self) -> None:
        """Everything from the first connection on; sets `_started` once there is something to stop."""

    @abstractmethod
    def _stop_work(self) -> None:
        """See `stop`."""

    @abstractmethod
    def _cancel_work(self) -> None:
        """See `cancel`."""


def http_server(address: str, token: str | None = None) -> HttpServer:
    """Raises ConfigurationError where that is no address, or the extra is not installed."""
    try:
        from redis_worker.http.server import HttpServer
    except ImportError as error:
        raise ConfigurationError(
            f"HTTP and metrics need the extra `web` ({error.name} is missing): pip install 'redis-worker[web]'"
        ) from None
    return HttpServer(address, token)
