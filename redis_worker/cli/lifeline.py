"""A pipe from the program that started this one: this one stops when that program ends."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis_worker.engine.process_group import end_own_group

# The environment variable with the number of a descriptor that becomes readable when that program ends.
LIFELINE = "REDIS_WORKER_LIFELINE"


@contextmanager
def watched_parent(gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone`, in the running loop, when that program ends; after the block, end this process and its children."""
    text = os.environ.pop(LIFELINE, None)  # not for programs that a processor starts
    if text is None:
        yield
        return
    lifeline, loop = int(text), asyncio.get_running_loop()

    def on_end() -> None:
        loop.remove_reader(lifeline)
        gone()

    loop.add_reader(lifeline, on_end)
    yield
    loop.remove_reader(lifeline)
    if select.select([lifeline], [], [], 0)[0]:
        end_own_group()
