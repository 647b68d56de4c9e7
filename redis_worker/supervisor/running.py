"""A part at work: its units, in this process or each in one of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from redis_worker.file.plan import DaemonPart, JobPart, Part, PoolPart
from redis_worker.supervisor.process.part_process import PartProcess
from redis_worker.supervisor.unit import Unit
from redis_worker.supervisor.wiring import Wiring
from redis_worker.supervisor.work import Work
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming, PartKind, PartState, PartStatus

logger = library_logger("redis_worker.supervisor")

# The state of a part is that of its unit which stands worst.
_WORST_FIRST: tuple[PartState, ...] = (
    *("failed", "restarting", "stopping", "Redis is away", "waiting for Redis", "starting", "running", "ended"),
)
# What a part that was told to end at once gets for it, in seconds: a pool hands back what it holds.
_LAST_WORDS = 6.0
# When there is no time left, a part that would stop at once is still not cancelled, in seconds.
_A_MOMENT = 0.2


class RunningPart:
    """The units of one part."""

    def __init__(self, part: Part, wiring: Wiring, given_up: Callable[[Part, BaseException], None]) -> None:
        """`given_up` is called when it, or one of its processes, has failed for good."""
        self.part = part
        self._wiring = wiring
        supervision = part.supervision
        self.processes = supervision.processes or 0
        if supervision.processes is None:
            makers: list[tuple[str, Callable[[], Work]]] = [(part.name, partial(wiring.make, part))]
        else:
            titles = [f"{part.name}#{number}" for number in range(1, supervision.processes + 1)]
            makers = [(title, partial(self._process, title)) for title in titles]
        self.units: list[Unit] = []
        for title, made in makers:
            first = self.units[0] if self.units else None
            self.units.append(Unit(part.name, title, supervision, made, partial(given_up, part), first))

    def _process(self, title: str) -> Work:
        return PartProcess(self.part, title, self._wiring)

    @property
    def state(self) -> PartState:
        """How it stands: as the unit that stands worst."""
        states = {unit.state for unit in self.units}
        return next(state for state in _WORST_FIRST if state in states)

    def status(self) -> PartStatus:
        """How it stands, in full."""
        error = next((unit.error for unit in self.units if unit.error), None)
        restarts = sum(unit.restarts for unit in self.units)
        return PartStatus(self.part.name, kind_of(self.part), self.state, restarts, error, self.processes)

    def consuming(self) -> list[Consuming]:
        """The queues it claims from just now."""
        return [queue for unit in self.units for queue in unit.consuming()]

    @property
    def over(self) -> bool:
        """True when nothing of it runs, nor is to run again."""
        return all(unit.task is not None and unit.task.done() for unit in self.units)

    def start(self, ended: Callable[[], None]) -> None:
        """Begin; `ended` is called whenever one of its units has come to its end."""
        for unit in self.units:
            unit.start().add_done_callback(lambda _: ended())

    def cancel(self) -> None:
        """End at once."""
        for unit in self.units:
            unit.cancel()

    async def stop(self, until: float) -> None:
        """End gracefully, in the time that is its own, and at the latest when the loop's clock shows `until`."""
        for unit in self.units:
            unit.stop()
        tasks = [unit.task for unit in self.units if unit.task is not None]
        if not tasks:
            return
        now = asyncio.get_running_loop().time()
        budget = max(_A_MOMENT, min(self.part.supervision.shutdown_timeout, until - now))
        _, late = await asyncio.wait(tasks, timeout=budget)
        if late:
            logger.warning("%s has not stopped in %.1f s: it is cancelled", self.part.name, budget)
            self.cancel()
            _, late = await asyncio.wait(late, timeout=_LAST_WORDS)
        if late:
            logger.error("%s does not end: it is left behind", self.part.name)


def kind_of(part: Part) -> PartKind:
    """What kind of part it is."""
    match part:
        case PoolPart():
            return "pool"
        case DaemonPart():
            return "daemon"
        case JobPart():
            return "cron job"
        case _:
            return "topics"
