"""The event-loop watch: a native thread that notices when the loop does not turn, and sees where it stands."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from redis_worker.engine.observers import Observers
from redis_worker.ports import Observer
from redis_worker.vocabulary.part import PART

_BEAT = 0.1


class Watchdog:
    """Reports a loop blocked for longer than `threshold` seconds, once for each block, with its stack.

    Those of one loop share a thread: each observer is told, and the `report` of the first one alone is called. Both
    are called on the loop, in a context in which PART names the part that has blocked it, where that is known.
    """

    def __init__(
        self, observer: Observer, *, report: Callable[[float, str], None] | None = None, threshold: float = 1.0
    ) -> None:
        """`report` is called as `observer.blocked` is: for the log, where several would say the same."""
        self.observer = observer
        self.report = report
        self.threshold = threshold

    async def run(self) -> None:
        """Watch the running loop, until cancelled."""
        loop = asyncio.get_running_loop()
        watch = _watches.get(loop)
        if watch is None or watch.ended:
            watch = _watches[loop] = _Watch(loop)
        watch.join(self)
        try:
            while True:
                watch.beat = time.monotonic()
                await asyncio.sleep(_BEAT)
        finally:
            watch.leave(self)


class _Watch:
    """The thread that watches one loop; all but what runs in it is called on that loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.beat = time.monotonic()
        self._loop = loop
        self._members: list[Watchdog] = []
        self._threshold = 0.0
        self._ended = threading.Event()
        self._thread = threading.get_ident()
        threading.Thread(target=self._run, name="redis-worker-watchdog", daemon=True).start()

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def join(self, member: Watchdog) -> None:
        self._members = [*self._members, member]
        self._threshold = min(member.threshold for member in self._members)

    def leave(self, member: Watchdog) -> None:
        self._members = [other for other in self._members if other is not member]
        if self._members:
            self._threshold = min(member.threshold for member in self._members)
        else:
            self._end()

    def _end(self) -> None:
        self._ended.set()
        if _watches.get(self._loop) is self:
            del _watches[self._loop]

    def _run(self) -> None:
        reported = 0.0
        looked = time.monotonic()
        while not self._ended.wait(_BEAT):
            now = time.monotonic()
            # When this thread slept too, the whole process was stopped, and nothing in it is to blame.
            asleep, looked = now - looked > _BEAT * 5, now
            beat = self.beat
            if not self._members or now - beat < self._threshold or beat == reported or asleep:
                continue
            reported = beat
            context = copy_context()  # nothing is set in this thread
            stack, part = self._seen()
            context.run(PART.set, part)
            try:
                self._loop.call_soon_threadsafe(self._tell, now - beat, stack, context=context)
            except RuntimeError:  # the loop is closed, and nobody has left it in order
                self._end()

    def _seen(self) -> tuple[str, str | None]:
        """What the loop does just now, and the part that does it."""
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)) if frame else "no stack\n"
        del frame
        if task is None or task is not asyncio.current_task(self._loop):
            return stack, None  # a plain callback; or it has gone on, and what was seen may be another's
        context = _context_of(task)
        return stack, None if context is None else context.get(PART)

    def _tell(self, seconds: float, stack: str) -> None:
        members = self._members
        Observers(member.observer for member in members).blocked(seconds, stack)
        for report in (member.report for member in members if member.report is not None):
            report(seconds, stack)
            break


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """The context that `task` runs in; None where it cannot be told."""
    ask: Callable[[], Context] | None = getattr(task, "get_context", None)
    if ask is not None:
        return ask()
    # Before Python 3.12 there is no way to ask. A task's own comes before those of its callbacks.
    return next((found for found in gc.get_referents(task) if isinstance(found, Context)), None)


_watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
