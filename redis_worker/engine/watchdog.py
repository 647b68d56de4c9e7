"""The event-loop watchdog: a thread that detects a blocked loop and its stack."""

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
    """A detector of blocks longer than `threshold` seconds, which reports each once, with the stack.

    The watchdogs of one loop share a thread: every observer is notified, but only the first `report` is called. Both
    run on the loop, in a context where PART names the part that blocked it, if known.
    """

    def __init__(
        self, observer: Observer, *, report: Callable[[float, str], None] | None = None, threshold: float = 1.0
    ) -> None:
        """`report` has the parameters of `observer.blocked`: for the log, which needs one line per block."""
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
            await asyncio.Event().wait()
        finally:
            watch.leave(self)


class _Watch:
    """The thread that watches one loop; all methods but `_run` and its helpers run on that loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._beat()
        self._members: list[Watchdog] = []
        self._threshold = 0.0
        self._ended = threading.Event()
        self._thread = threading.get_ident()
        threading.Thread(target=self._run, name="redis-worker-watchdog", daemon=True).start()

    def _beat(self) -> None:
        self.beat = time.monotonic()
        self._next = self._loop.call_later(_BEAT, self._beat)

    @property
    def ended(self) -> bool:
        return self._ended.is_set()

    def join(self, member: Watchdog) -> None:
        self._members = [*self._members, member]
        self._threshold = min(member.threshold for member in self._members)

    def leave(self, member: Watchdog) -> None:
        self._members = [kept for kept in self._members if kept is not member]
        if self._members:
            self._threshold = min(member.threshold for member in self._members)
        else:
            self._next.cancel()
            self._end()

    def _end(self) -> None:
        self._ended.set()
        if _watches.get(self._loop) is self:
            del _watches[self._loop]

    def _run(self) -> None:
        reported = 0.0
        checked = time.monotonic()
        while not self._ended.wait(_BEAT):
            now = time.monotonic()
            # If this thread slept too, the whole process was stopped, and nothing in it blocked the loop.
            stopped, checked = now - checked > _BEAT * 5, now
            beat = self.beat
            if not self._members or now - beat < self._threshold or beat == reported or stopped:
                continue
            reported = beat
            context = copy_context()  # empty in this thread
            stack, part = self._inspect()
            context.run(PART.set, part)
            try:
                self._loop.call_soon_threadsafe(self._notify, now - beat, stack, context=context)
            except RuntimeError:  # the loop was closed without cancelling the watchdogs
                self._end()

    def _inspect(self) -> tuple[str, str | None]:
        """Return the stack of the loop's thread, and the part that runs, if known."""
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._thread)
        stack = "".join(traceback.format_stack(frame)) if frame else "no stack\n"
        del frame
        if task is None or task is not asyncio.current_task(self._loop):
            return stack, None  # a plain callback; or the loop moved on, and the stack may be of another task
        context = _context_of(task)
        return stack, None if context is None else context.get(PART)

    def _notify(self, seconds: float, stack: str) -> None:
        members = self._members
        Observers(member.observer for member in members).blocked(seconds, stack)
        for report in (member.report for member in members if member.report is not None):
            report(seconds, stack)
            break


def _context_of(task: asyncio.Task[Any]) -> Context | None:
    """Return the context of `task`; None if it is unknown."""
    get_context: Callable[[], Context] | None = getattr(task, "get_context", None)
    if get_context is not None:
        return get_context()
    # Python before 3.12 has no such method. The task's context comes before those of its callbacks.
    return next((found for found in gc.get_referents(task) if isinstance(found, Context)), None)


_watches: dict[asyncio.AbstractEventLoop, _Watch] = {}
