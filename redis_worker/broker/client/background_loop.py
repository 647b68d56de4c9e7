"""An event loop in a background thread, for programs without one."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, ParamSpec, TypeVar

from redis_worker.broker.connection.forks import watch_forks
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected

P = ParamSpec("P")
T = TypeVar("T")

# Longest wait for the thread to end, in seconds; connections to a server that hangs are dropped in this time.
_END_PATIENCE = 5.0


class BackgroundLoop:
    """A runner of coroutines for callers in any thread. Its thread starts with the first call in each process."""

    def __init__(self, plain: str, awaited: str) -> None:
        """`plain` names the calls that block, in errors, and `awaited` those for an event loop."""
        self._plain = plain
        self._awaited = awaited
        self._closed = False
        self._lock = threading.Lock()
        self._loop_thread: _LoopThread | None = None
        watch_forks(self)

    def run(self, call: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs) -> T:
        """Run `call` and return its result. Raises ConfigurationError in a running event loop, which it would block."""
        return self.run_in(self.loop_thread(), call, *arguments, **options)

    def loop_thread(self) -> _LoopThread:
        """Return the event loop of this process. Raises ConfigurationError if it may not start."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ConfigurationError(
                f"{self._plain} cannot be used inside a running event loop; use {self._awaited} there"
            )
        with self._lock:
            if self._closed:
                raise ConfigurationError("the client is closed; create a new one")
            if self._loop_thread is None:
                self._loop_thread = _LoopThread(self)
            return self._loop_thread

    def run_in(
        self,
        loop_thread: _LoopThread,
        call: Callable[P, Coroutine[Any, Any, T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        """Run `call` in the given event loop and return its result."""
        # Passed in a list: a frame that holds a failed future forms a cycle with its exception, keeping `self` alive.
        return _result([self._start(loop_thread, call, *arguments, **options)])

    def _start(
        self,
        loop_thread: _LoopThread,
        call: Callable[P, Coroutine[Any, Any, T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> Future[T]:
        # Under the lock, so that every started call can be cancelled when the loop ends.
        with self._lock:
            if self._loop_thread is not loop_thread:
                raise ConfigurationError("this call began in another process, or the client is closed; repeat the call")
            return asyncio.run_coroutine_threadsafe(call(*arguments, **options), loop_thread.loop)

    def close(self) -> None:
        """Stop the thread, and cancel calls under way."""
        with self._lock:
            self._closed = True
            loop_thread, self._loop_thread = self._loop_thread, None
        if loop_thread is not None:
            loop_thread.end()

    def forked(self) -> None:
        """See Inheritable: the thread stayed in the parent."""
        self._lock = threading.Lock()  # another thread of the parent may have held it
        if self._loop_thread is not None:
            self._loop_thread.forget()
            self._loop_thread = None


class _LoopThread:
    """A thread with an event loop, until `end`, collection of its owner, or exit of the process."""

    def __init__(self, owner: BackgroundLoop) -> None:
        self.loop = loop = asyncio.SelectorEventLoop()
        self._ended = ended = asyncio.Event()
        self._thread = threading.Thread(target=_run_loop, args=(loop, ended), name="redis-worker-client", daemon=True)
        self._finish = weakref.finalize(owner, _finish, loop, ended, self._thread)
        self._thread.start()

    def end(self) -> None:
        """Cancel calls under way, and wait for the thread."""
        self._finish()

    def forget(self) -> None:
        """Leave the loop alone: it belongs to another process."""
        self._finish.detach()


def _run_loop(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    # A finalizing interpreter starts no threads, which raises RuntimeError after everything is closed.
    with contextlib.suppress(RuntimeError), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(ended.wait())


def _finish(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, thread: threading.Thread) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(ended.set)
    if thread is not threading.current_thread():
        thread.join(_END_PATIENCE)


def _result(results: list[Future[T]]) -> T:
    result = results.pop()
    try:
        return result.result()
    except CancelledError:
        raise Disconnected("the client was closed") from None
    except BaseException:
        result.cancel()  # Ctrl-C: the result is not needed any more
        raise
    finally:
        del result
