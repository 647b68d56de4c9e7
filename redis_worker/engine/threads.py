"""A call in a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def in_own_thread(call: Callable[[], T], name: str) -> asyncio.Future[T]:
    """What `call`, which must not raise, returns: for the running loop, from a thread with a copy of the context.

    A thread cannot be ended. This one, unlike those of a pool, does not keep the program from ending.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        value = call()
        try:
            loop.call_soon_threadsafe(_resolve, ended, value)
        except RuntimeError:
            pass  # nobody has waited for it, and the loop is closed

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(work,), name=name, daemon=True).start()
    return ended


def _resolve(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)
