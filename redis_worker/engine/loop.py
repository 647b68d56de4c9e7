"""Settings of a process that only runs workers: the event loop, and garbage collection."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

# Objects of a task in asyncio, and some more for those that are claimed ahead or not written yet.
_OBJECTS = 20


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return the loop factory of uvloop, if installed; None for asyncio's."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def spare_garbage_collection(tasks: int = 0) -> None:
    """Exempt all current objects from garbage collection, once everything is imported.

    They live as long as the process; scanning them took a tenth of the time of a small task. Up to `tasks` run at once:
    a collection starts when there may be as much garbage as they have objects, for it scans those too, in vain.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000 + _OBJECTS * tasks, 20, 50)
