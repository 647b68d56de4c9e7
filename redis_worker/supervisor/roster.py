"""The parts at work: begun one after the other, changed while they run, and ended in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis_worker.file.plan import Part
from redis_worker.supervisor.running import RunningPart
from redis_worker.supervisor.unit import BEGINNING
from redis_worker.supervisor.wiring import Wiring
from redis_worker.vocabulary.service import Consuming, PartState, PartStatus

# What is waited for parts to begin, all together, in seconds: a host that starts must not wait for Redis.
_BEGIN_PATIENCE = 5.0
_TICK = 0.01


class Change(NamedTuple):
    """What a change of the file comes to: how many parts go on, end and begin."""

    kept: int
    gone: int
    new: int


class Roster:
    """The parts that a supervisor looks after, in the order of the file."""

    def __init__(self, wiring: Wiring, given_up: Callable[[Part, BaseException], None]) -> None:
        """`given_up` is called with a part that has failed for good, and its last failure."""
        self.over = asyncio.Event()
        """Set when nothing runs any more, nor is to run again."""
        self._wiring = wiring
        self._given_up = given_up
        self._parts: list[RunningPart] = []
        self._changing = False
        self._closed = False

    def status(self) -> list[PartStatus]:
        """How each part stands."""
        return [part.status() for part in self._parts]

    def states(self) -> set[PartState]:
        """The states that there are among them."""
        return {part.state for part in self._parts}

    def consuming(self) -> list[Consuming]:
        """The queues that are claimed from just now."""
        return [queue for part in self._parts for queue in part.consuming()]

    def report_running(self) -> None:
        """Log what the parts run just now, as far as that can be seen; to be called on the event loop."""
        for part in self._parts:
            for unit in part.units:
                unit.report_running()

    async def begin(self, parts: Sequence[Part]) -> None:
        """Begin `parts`, each once the one before it works, as far as that does not take too long."""
        end = asyncio.get_running_loop().time() + _BEGIN_PATIENCE
        self._changing = True
        for part in parts:
            if self._closed:
                break
            running = RunningPart(part, self._wiring, self._given_up)
            self._parts.append(running)
            running.start(self._look_if_over)
            await self._begun(running, end)
        self._changing = False
        self._look_if_over()

    async def change(self, parts: Sequence[Part], told: Callable[[Change], None], seconds: float) -> None:
        """End what is not in `parts` as it was, within so many seconds, and begin what is new, or has failed.

        `told` is called with what there is to be done, before it is.
        """
        wanted = {part.name: part for part in parts}
        kept = [part for part in self._parts if wanted.get(part.part.name) == part.part and part.state != "failed"]
        gone = [part for part in self._parts if part not in kept]
        names = {part.part.name for part in kept}
        new = [part for part in parts if part.name not in names]
        told(Change(len(kept), len(gone), len(new)))
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
        """Begin nothing more, and end all, the last one first, each in its own time.

        What has not ended after so many seconds is cancelled, all at once.
        """
        self._closed = True
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        left = list(self._parts)
        while left and clock() < until:
            await left.pop().stop(until)
        await asyncio.gather(*(part.stop(until) for part in left))

    def cancel(self) -> None:
        """Have all end at once, and begin nothing more."""
        self._closed = True
        for part in self._parts:
            part.cancel()

    def kill(self) -> None:
        """Kill the processes of parts at once, with all that they have started."""
        for part in self._parts:
            for unit in part.units:
                unit.kill()

    async def _begun(self, running: RunningPart, end: float) -> None:
        """Wait until it works, or has failed for the first time; at the latest until the loop's clock shows `end`."""
        clock = asyncio.get_running_loop().time
        while running.state in BEGINNING and clock() < end and not self._closed:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(_TICK)

    def _look_if_over(self) -> None:
        if not self._changing and all(part.over for part in self._parts):
            self.over.set()
