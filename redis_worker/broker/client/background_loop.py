"""An event loop in a thread of its own, for programs that have none."""

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

# How long an end waits for the thread, in seconds: connections to a server that hangs are given up in this time.
_PATIENCE = 5.0


class Background:
    """Runs coroutines for callers in any thread. The thread begins with the first call, in each process anew."""

    def __init__(self, name: str) -> None:
        """`name` is what calls itself so in errors."""
        self._name = name
        self._closed = False
        self._lock = threading.Lock()
        self._turning: _Turning | None = None
        watch_forks(self)

    @property
    def closed(self) -> bool:
        """True after `close`."""
        return self._closed

    def run(self, call: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs) -> T:
        """The result of `call`. Raises ConfigurationError in a running event loop, which it would hold up."""
        return self.at(self.turning(), call, *arguments, **options)

    def turning(self) -> _Turning:
        """The event loop of this process. Raises ConfigurationError where there may be none."""
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop()
            raise ConfigurationError(
                f"Sync{self._name} cannot be used inside a running event loop; use {self._name} there"
            )
        with self._lock:
            if self._closed:
                raise ConfigurationError("the client is closed; make another one")
            if self._turning is None:
                self._turning = _Turning(self)
            return self._turning

    def at(
        self, turning: _Turning, call: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """The same in an event loop that was asked for before."""
        # A frame that refers to the future would have a cycle with an exception in it, and so keep this.
        return _awaited([self._begun(turning, call, *arguments, **options)])

    def _begun(
        self, turning: _Turning, call: Callable[P, Coroutine[Any, Any, T]], *arguments: P.args, **options: P.kwargs
    ) -> Future[T]:
        # With the lock, so that what is begun is there to be cancelled when the loop ends.
        with self._lock:
            if self._turning is not turning:
                raise ConfigurationError("this was begun in another process, or the client is closed; begin it anew")
            return asyncio.run_coroutine_threadsafe(call(*arguments, **options), turning.loop)

    def close(self) -> None:
        """End the thread, and what is under way with it."""
        with self._lock:
            self._closed = True
            turning, self._turning = self._turning, None
        if turning is not None:
            turning.end()

    def forked(self) -> None:
        """See Inheritable: the thread has stayed with the parent."""
        self._lock = threading.Lock()  # another thread may have held it
        if self._turning is not None:
            self._turning.forget()
            self._turning = None


class _Turning:
    """One thread, and its event loop, until it is ended, its owner is collected, or the process ends."""

    def __init__(self, owner: Background) -> None:
        self.loop = loop = asyncio.SelectorEventLoop()
        self._ended = ended = asyncio.Event()
        self._thread = threading.Thread(target=_turn, args=(loop, ended), name="redis-worker-client", daemon=True)
        self._finish = weakref.finalize(owner, _finish, loop, ended, self._thread)
        self._thread.start()

    def end(self) -> None:
        """Cancel what is under way, and wait for the thread."""
        self._finish()

    def forget(self) -> None:
        """Leave all as it is: it belongs to another process."""
        self._finish.detach()


def _turn(loop: asyncio.AbstractEventLoop, ended: asyncio.Event) -> None:
    # At its end the interpreter starts no more threads, which raises RuntimeError once all is closed.
    with contextlib.suppress(RuntimeError), asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(_wait(ended))


async def _wait(ended: asyncio.Event) -> None:
    await ended.wait()


def _finish(loop: asyncio.AbstractEventLoop, ended: asyncio.Event, thread: threading.Thread) -> None:
    with contextlib.suppress(RuntimeError):  # it is closed
        loop.call_soon_threadsafe(ended.set)
    if thread is not threading.current_thread():
        thread.join(_PATIENCE)


def _awaited(results: list[Future[T]]) -> T:
    result = results.pop()
    try:
        return result.result()
    except CancelledError:
        raise Disconnected("the client was closed") from None
    except BaseException:
        result.cancel()  # Ctrl-C: nobody waits for it any more
        raise
    finally:
        del result
