"""What suits a process that does nothing but work: the event loop, and garbage collection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop, where it is installed; None for asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def spare_garbage_collection() -> None:
    """Once everything is imported: what is there stays as long as the process.

    Looking through it again and again for garbage took a tenth of the time of a small task.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
