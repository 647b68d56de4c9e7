"""Signals, taken only here at the edge, and given back afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial


@contextmanager
def stop_signals(stop: Callable[[], None], cancel: Callable[[], None]) -> Iterator[None]:
    """First SIGINT or SIGTERM: `stop`; second: `cancel`; third: the process exits. For the running loop."""
    received = 0

    def receive() -> None:
        nonlocal received
        received += 1
        if received == 1:
            stop()
        elif received == 2:
            cancel()
        else:
            os._exit(1)

    with _handled({signal.SIGINT: receive, signal.SIGTERM: receive}):
        yield


@contextmanager
def fleet_signals(stop: Callable[[], None], cancel: Callable[[], None]) -> Iterator[None]:
    """In a worker of a fleet. SIGTERM: `stop`, however often it comes; SIGINT: `cancel`.

    A service manager sends SIGTERM to the workers and to their parent, which passes it on: a second
    one does not mean that anybody has lost patience.
    """
    with _handled({signal.SIGTERM: stop, signal.SIGINT: cancel}):
        yield


@contextmanager
def show_signal(show: Callable[[], None]) -> Iterator[None]:
    """SIGUSR1: `show`, as often as it comes. For the running loop."""
    with _handled({signal.SIGUSR1: show}):
        yield


@contextmanager
def reload_signal(reload: Callable[[], None]) -> Iterator[None]:
    """SIGHUP: `reload`, as often as it comes. For the running loop."""
    with _handled({signal.SIGHUP: reload}):
        yield


@contextmanager
def _handled(handlers: dict[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        # Not loop.add_signal_handler(): of two signals that come at once, uvloop may hand one on twice, and a
        # SIGTERM just after a SIGUSR1 would cancel.
        signal.signal(number, partial(_hand_on, loop, handler))
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _hand_on(loop: asyncio.AbstractEventLoop, handler: Callable[[], None], *_: object) -> None:
    loop.call_soon_threadsafe(handler)
