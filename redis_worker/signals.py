"""Signal handlers, installed only on request (`serve`, the command line) and restored afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from redis_worker.service_manager import ServiceManager
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.logger import library_logger

logger = library_logger()


async def serve(
    run: Callable[[], Awaitable[None]],
    started: Callable[[], Awaitable[None]],
    stop: Callable[[], None],
    cancel: Callable[[], None],
    show: Callable[[], None],
    kill: Callable[[], None] = lambda: None,
    reload: Callable[[], None] | None = None,
) -> bool:
    """Await `run` and handle signals meanwhile: SIGINT or SIGTERM calls `stop`, which logs it, a second one `cancel`.

    A third one calls `kill` and exits; SIGUSR1 calls `show`, SIGHUP `reload`. The service
    manager is informed: ready once `started` returns, alive while the event loop runs, stopping. Return False if a
    second signal cancelled it. Raises as `run` does, and ConfigurationError outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError("serve() handles signals, which works only in the main thread; call run() here")
    cancelled = False
    manager = ServiceManager()

    def stop_then() -> None:
        manager.stopping()
        stop()

    def cancel_then() -> None:
        nonlocal cancelled
        cancelled = True
        logger.warning("cancelling: unfinished tasks go back to their queues")
        cancel()

    others = {signal.SIGUSR1: show} | ({} if reload is None else {signal.SIGHUP: reload})
    with stop_signals(stop_then, cancel_then, kill), _handled(others):
        async with manager.informed(started):
            await run()
    return not cancelled


def stop_signals(
    stop: Callable[[], None], cancel: Callable[[], None], kill: Callable[[], None] = lambda: None
) -> AbstractContextManager[None]:
    """In the block, call `stop` on the first SIGINT or SIGTERM, `cancel` on the second, `kill` on the third, and exit.

    Needs a running loop.
    """
    received = 0

    def receive() -> None:
        nonlocal received
        received += 1
        if received == 1:
            stop()
        elif received == 2:
            cancel()
        else:
            kill()
            os._exit(1)

    return _handled({signal.SIGINT: receive, signal.SIGTERM: receive})


@contextmanager
def _handled(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        # Not loop.add_signal_handler(): uvloop may deliver one of two simultaneous signals twice, and a
        # SIGTERM right after a SIGUSR1 would cancel.
        signal.signal(number, partial(_schedule, loop, handler))
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _schedule(loop: asyncio.AbstractEventLoop, handler: Callable[[], None], *_: object) -> None:
    loop.call_soon_threadsafe(handler)
