"""The event-loop watch: a native thread that notices when the loop does not turn, and sees where it stands."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

from redis_worker.ports import Observer

_BEAT = 0.1


class Watchdog:
    """Reports a loop blocked for longer than `threshold` seconds, once for each block, with its stack."""

    def __init__(self, observer: Observer, threshold: float = 1.0) -> None:
        self._observer = observer
        self._threshold = threshold
        self._beat = time.monotonic()
        self._ended = threading.Event()

    async def run(self) -> None:
        """Watch the running loop, until cancelled."""
        loop = asyncio.get_running_loop()
        self._beat = time.monotonic()
        watch = threading.Thread(
            target=self._watch, args=(loop, threading.get_ident()), name="redis-worker-watchdog", daemon=True
        )
        watch.start()
        try:
            while True:
                self._beat = time.monotonic()
                await asyncio.sleep(_BEAT)
        finally:
            self._ended.set()

    def _watch(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        reported = 0.0
        looked = time.monotonic()
        while not self._ended.wait(_BEAT):
            now = time.monotonic()
            # When this thread slept too, the whole process was stopped, and nothing in it is to blame.
            asleep, looked = now - looked > _BEAT * 5, now
            beat = self._beat
            if now - beat < self._threshold or beat == reported or asleep:
                continue
            reported = beat
            frame = sys._current_frames().get(thread)
            stack = "".join(traceback.format_stack(frame)) if frame else "no stack\n"
            del frame
            try:
                loop.call_soon_threadsafe(self._observer.blocked, now - beat, stack)
            except RuntimeError:
                return  # the loop is closed
