"""An event loop, threads and a queue in simulated time, which the load of the machine does not change."""

from __future__ import annotations

import asyncio
import json
import selectors
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from redis_worker.engine import thread_runner
from redis_worker.vocabulary.task import Delivery, Outcome

_CLOCKED = ("runner", "task_runner", "thread_runner", "mixed_runner", "handler")
# Times of the server and of the way to it, in seconds: of a call, and of each task in it.
_WAY, _CALL, _EACH = 0.000_5, 0.000_12, 0.000_002
# A blocking pop ends after so many seconds.
_BLOCK = 1.0


class Clock(selectors.DefaultSelector):
    """A simulated time, in seconds. It goes on to the next timer of its event loop when no thread works any more."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._working = 0
        self._change = threading.Condition()
        self.loop = asyncio.SelectorEventLoop(self)
        self.loop.time = self.time  # type: ignore[method-assign]

    def time(self) -> float:
        return self.now

    def works(self, count: int) -> None:
        """Note that `count` more threads work; fewer, if it is negative."""
        with self._change:
            self._working += count
            self._change.notify_all()

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        with self._change:
            self._change.wait_for(lambda: not self._working)
        if events := super().select(0):
            return events
        assert timeout is not None, "nothing would ever happen"
        self.now += timeout
        return []

    def holds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have the engine, and the threads that it starts, use this time."""
        for module in _CLOCKED:
            monkeypatch.setattr(f"redis_worker.engine.{module}.perf_counter", self.time)
        monkeypatch.setattr(thread_runner, "SimpleQueue", lambda: _Wakes(self))
        threads = SimpleNamespace(Thread=partial(Thread, self), get_ident=threading.get_ident)
        monkeypatch.setattr(thread_runner, "threading", threads)

    def sleep_in_thread(self, seconds: float) -> None:
        """Sleep in a thread that works."""
        awake = threading.Event()

        def wake() -> None:
            self.works(1)
            awake.set()

        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, wake)
        self.works(-1)
        awake.wait()


class Thread(threading.Thread):
    """A thread that works from its start to its end."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(**options)
        self._clock = clock

    def start(self) -> None:
        self._clock.works(1)
        super().start()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self._clock.works(-1)


class _Wakes(SimpleQueue[bool]):
    """The tasks of simulated threads: they wait for one, and work after it."""

    def __new__(cls, clock: Clock) -> _Wakes:
        return super().__new__(cls)

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def put(self, item: bool, block: bool = True, timeout: float | None = None) -> None:
        self._clock.works(1)
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> bool:
        self._clock.works(-1)
        return super().get(block, timeout)


class Receipt:
    """A claim that is never lost."""

    lost = False


class Server:
    """A list of tasks, and a server that handles one call after the other."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.settled = 0
        self._free_at = 0.0
        self._blocked: deque[asyncio.Future[bytes]] = deque()

    def push(self, raw: bytes) -> None:
        """Append a task."""
        self.waiting.append(raw)
        self._serve()

    def put_back(self, tasks: Sequence[bytes]) -> None:
        """Return tasks to the head."""
        self.waiting.extendleft(reversed(tasks))
        self._serve()

    def _serve(self) -> None:
        """Give tasks to those that wait, first come, first served."""
        while self._blocked and self.waiting:
            popped = self._blocked.popleft()
            if not popped.done():
                popped.set_result(self.waiting.popleft())

    async def call(self, tasks: int) -> None:
        """Wait until it has handled a call with so many tasks."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_WAY)
        self._free_at = max(loop.time(), self._free_at) + _CALL + tasks * _EACH
        await asyncio.sleep(self._free_at - loop.time())

    async def pop(self) -> bytes | None:
        """Return a task as soon as there is one; None if none comes."""
        if self.waiting:
            return self.waiting.popleft()
        popped = asyncio.get_running_loop().create_future()
        self._blocked.append(popped)
        await asyncio.wait({popped}, timeout=_BLOCK)
        popped.cancel()
        return popped.result() if not popped.cancelled() else None


class Shelf:
    """The port `Queue` of one worker on a server; a claim waits as that of the list does."""

    worker = "here"
    cut_short = False

    def __init__(self, server: Server) -> None:
        self._server = server
        self._drained = False

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        server, taken = self._server, list[bytes]()
        if not (wait and self._drained):
            await server.call(limit)
            taken = self._take(limit)
        if not taken and wait and self._drained:
            await asyncio.sleep(_WAY)
            popped = await server.pop()
            await server.call(limit)
            taken = [] if popped is None else [popped, *self._take(limit - 1)]
        self._drained = len(taken) < limit
        await asyncio.sleep(_WAY)
        return [Delivery(raw, Receipt(), plain=True) for raw in taken]

    def _take(self, limit: int) -> list[bytes]:
        waiting = self._server.waiting
        return [waiting.popleft() for _ in range(min(limit, len(waiting)))]

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        return []

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        await self._server.call(len(outcomes))
        self._server.settled += len(outcomes)
        await asyncio.sleep(_WAY)
        return []

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._server.call(len(deliveries))
        self._server.put_back([delivery.raw for delivery in deliveries])
        await asyncio.sleep(_WAY)


def task(id: Any, payload: Any) -> bytes:
    return json.dumps({"id": id, "task": payload}).encode()
