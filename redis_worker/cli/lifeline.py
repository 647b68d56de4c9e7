"""A pipe from a program that has started this one, and for which it is to work only as long as that lives."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from redis_worker.engine.process_group import end_own_group

# The number of a descriptor that becomes readable when the program is gone, however it ended.
LIFELINE = "REDIS_WORKER_LIFELINE"


@contextmanager
def watched_parent(gone: Callable[[], None]) -> Iterator[None]:
    """Call `gone`, in the running loop, when the program ends; afterwards end this process and all it has started."""
    text = os.environ.pop(LIFELINE, None)  # what a processor starts is not meant
    if text is None:
        yield
        return
    lifeline, loop = int(text), asyncio.get_running_loop()

    def hear() -> None:
        loop.remove_reader(lifeline)
        gone()

    loop.add_reader(lifeline, hear)
    yield
    loop.remove_reader(lifeline)
    if select.select([lifeline], [], [], 0)[0]:
        end_own_group()
