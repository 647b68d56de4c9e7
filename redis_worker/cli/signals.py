"""Signals, taken only here at the edge, and given back afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_STOPPING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stop_signals(stop: Callable[[], None], cancel: Callable[[], None]) -> Iterator[None]:
    """First SIGINT or SIGTERM: `stop`; second: `cancel`; third: the process exits. For the running loop."""
    loop = asyncio.get_running_loop()
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

    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number in _STOPPING:
        loop.add_signal_handler(number, receive)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
