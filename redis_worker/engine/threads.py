"""A call in a new thread."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Run `call` in a new thread with a copy of the context; return a future of its value, for the running loop.

    `call` must not raise. A thread cannot be ended, but this one does not delay the program's exit.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        value = call()
        try:
            loop.call_soon_threadsafe(_resolve, ended, value)
        except RuntimeError:
            pass  # the loop is closed, and nothing waits for the value

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return ended


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
