"""Daemon threads that call plain functions for an event loop: a pool, or a new one for each call."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

# The job that ends a thread.
_END = None


class _Job(NamedTuple):
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class _Done(NamedTuple):
    future: asyncio.Future[Any]
    value: Any
    error: BaseException | None


class ThreadPool:
    """Up to `size` daemon threads, started on demand, for one event loop.

    The interpreter joins the threads of concurrent.futures when it ends: a function that never returns would block the
    exit for ever. Results reach the loop in batches: calls that end while it is busy wake it once.
    """

    def __init__(self, size: int, name: str) -> None:
        """`name` is the prefix of the threads' names."""
        self._size = size
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Done] = deque()
        self._woken = False
        """True between waking the loop and its look at `_done`."""
        self._outstanding = 0
        self._threads = 0

    def run(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Call `function` in a thread; return the future of its value, for the running loop.

        A call is skipped if its future is cancelled before it starts.
        """
        loop = asyncio.get_running_loop()
        if self._outstanding >= self._threads < self._size:
            self._start_thread(loop)
        self._outstanding += 1
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(future, function, arguments))
        return future

    def close(self) -> None:
        """Cancel the calls that have not started, and end the threads as they become idle; do not wait."""
        with contextlib.suppress(Empty):
            while True:
                job = self._jobs.get_nowait()
                if job is not None:
                    job.future.cancel()
                    self._outstanding -= 1
        for _ in range(self._threads):
            self._jobs.put(_END)
        self._threads = 0

    def _start_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        thread = threading.Thread(target=self._work, args=(loop,), name=f"{self._name}_{self._threads}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system allows no more: the existing threads do the work
            if not self._threads:
                raise
        else:
            self._threads += 1

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (job := self._jobs.get()) is not _END:
            self._done.append(_called(job))
            del job  # an idle thread holds no arguments
            if not self._woken:
                self._woken = True
                try:
                    loop.call_soon_threadsafe(self._hand_over)
                except RuntimeError:
                    return  # the loop is closed: nothing waits

    def _hand_over(self) -> None:
        self._woken = False  # before the look: calls that end from here on wake the loop again
        while self._done:
            future, value, error = self._done.popleft()
            self._outstanding -= 1
            if future.done():
                continue  # cancelled
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


class OwnThreads:
    """A new daemon thread for each call, for calls that are rare or may never end."""

    def __init__(self, name: str) -> None:
        """`name` is the prefix of the threads' names."""
        self._name = name

    def run(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Call `function` in a thread; return the future of its value, for the running loop."""
        pool = ThreadPool(1, self._name)
        future = pool.run(function, *arguments)
        future.add_done_callback(lambda _: pool.close())
        return future

    def close(self) -> None:
        """Do nothing: a thread ends with its call."""


def _called(job: _Job) -> _Done:
    if job.future.cancelled():
        return _Done(job.future, None, None)
    try:
        return _Done(job.future, job.function(*job.arguments), None)
    except StopIteration as error:  # a future refuses it
        failure = RuntimeError(f"the function raised StopIteration: {error}")
        failure.__cause__ = error
        return _Done(job.future, None, failure)
    except BaseException as error:
        return _Done(job.future, None, error)
