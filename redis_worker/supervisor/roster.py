"""The running parts: started in order, changed at run time, and stopped in reverse order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from redis_worker.file.plan import Part
from redis_worker.supervisor.running import RunningPart
from redis_worker.supervisor.unit import BEGINNING
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming, PartState, PartStatus

logger = library_logger("redis_worker.supervisor")

# The time limit for all parts to start, in seconds: a starting host must not wait for Redis.
_START_TIMEOUT = 5.0
_TICK = 0.01


class Roster:
    """The parts that a supervisor runs, in the order of the file."""

    def __init__(self, wiring: Wiring, given_up: Callable[[Part, BaseException], None]) -> None:
        """`given_up` is called with each part that has failed for good, and its last failure."""
        self.over = asyncio.Event()
        """Set when no part runs, nor will run again."""
        self._wiring = wiring
        self._given_up = given_up
        self._parts: list[RunningPart] = []
        self._changing = False
        self._closed = False

    def status(self) -> list[PartStatus]:
        """Return the status of each part."""
        return [part.status() for part in self._parts]

    def states(self) -> set[PartState]:
        """Return the set of the parts' states."""
        return {part.state for part in self._parts}

    def consuming(self) -> list[Consuming]:
        """Return the queues that the parts claim from."""
        return [queue for part in self._parts for queue in part.consuming()]

    def report_running(self) -> None:
        """Log the running tasks of all parts, as far as they are known; call it on the event loop."""
        for part in self._parts:
            for unit in part.units:
                unit.report_running()

    async def begin(self, parts: Sequence[Part]) -> None:
        """Start `parts` in order, each once the one before it runs, or the time limit has passed."""
        end = asyncio.get_running_loop().time() + _START_TIMEOUT
        self._changing = True
        for part in parts:
            if self._closed:
                break
            running = RunningPart(part, self._wiring, self._given_up)
            self._parts.append(running)
            running.start(self._look_if_over)
            await self._started(running, end)
        self._changing = False
        self._look_if_over()

    async def change(self, parts: Sequence[Part], path: str, seconds: float) -> None:
        """Stop parts that `parts` lacks or changes, within `seconds`; start parts that are new or have failed.

        `path` names the file that holds them, for the log.
        """
        wanted = {part.name: part for part in parts}
        kept = [part for part in self._parts if wanted.get(part.part.name) == part.part and part.state != "failed"]
        gone = [part for part in self._parts if part not in kept]
        names = {part.part.name for part in kept}
        new = [part for part in parts if part.name not in names]
        counts = len(kept), len(gone), len(new)
        logger.info("%s was read again: %d parts go on, %d end, %d begin", path, *counts)
        self._changing = True
        if not self._closed:
            self.over.clear()
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(part.stop(until) for part in gone))
        self._parts = kept
        await self.begin(new)
        order = {part.name: place for place, part in enumerate(parts)}
        self._parts.sort(key=lambda part: order[part.part.name])

    async def end(self, seconds: float) -> None:
        """Start nothing more, and stop all parts, the last one first, each within its own time limit.

        Parts that still run after `seconds` are cancelled together.
        """
        self._closed = True
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        left = list(self._parts)
        while left and clock() < until:
            await left.pop().stop(until)
        await asyncio.gather(*(part.stop(until) for part in left))

    def cancel(self) -> None:
        """Cancel all parts, and start nothing more."""
        self._closed = True
        for part in self._parts:
            part.cancel()

    def kill(self) -> None:
        """Kill the processes of parts at once, with their process groups."""
        for part in self._parts:
            for unit in part.units:
                unit.kill()

    async def _started(self, running: RunningPart, end: float) -> None:
        """Wait until the part runs or has failed once, at most until `end` by the loop's clock."""
        clock = asyncio.get_running_loop().time
        while running.state in BEGINNING and clock() < end and not self._closed:  # noqa: ASYNC110 - no event reports it
            await asyncio.sleep(_TICK)

    def _look_if_over(self) -> None:
        if not self._changing and all(part.over for part in self._parts):
            self.over.set()
