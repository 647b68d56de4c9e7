"""A running part: its units, in this process or in one process each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from redis_worker.file.plan import DaemonPart, JobPart, KafkaPart, Part, PoolPart, TasksPart
from redis_worker.supervisor.process.part_process import PartProcess
from redis_worker.supervisor.unit import Unit
from redis_worker.supervisor.wiring import Wiring
from redis_worker.supervisor.work import Work
from redis_worker.vocabulary.logger import library_logger
from redis_worker.vocabulary.service import Consuming, PartKind, PartState, PartStatus, lag_of

logger = library_logger("redis_worker.supervisor")

# The state of a part is the worst state of its units.
_WORST_FIRST: tuple[PartState, ...] = (
    *("failed", "restarting", "stopping", "Redis is away", "Kafka is away", "the sink is away"),
    *("waiting for Redis", "waiting for Kafka", "starting", "running", "ended"),
)
# The time limit of a cancelled part, in seconds: a pool hands back its tasks.
_CANCEL_TIMEOUT = 6.0
# The least time to stop, in seconds, so that a part that stops at once is not cancelled.
_LEAST_TIMEOUT = 0.2


class RunningPart:
    """The units of one part."""

    def __init__(self, part: Part, wiring: Wiring, given_up: Callable[[Part, BaseException], None]) -> None:
        """`given_up` is called when the part, or one of its processes, has failed for good."""
        self.part = part
        self._wiring = wiring
        supervision = part.supervision
        self.processes = supervision.processes or 0
        if supervision.processes is None:
            makers: list[tuple[str, Callable[[], Work]]] = [(part.name, partial(wiring.make, part))]
        else:
            numbers = range(1, supervision.processes + 1)
            makers = [(f"{part.name}#{number}", partial(self._process, number)) for number in numbers]
        self.units: list[Unit] = []
        for title, made in makers:
            first = self.units[0] if self.units else None
            self.units.append(Unit(part.name, title, supervision, made, partial(given_up, part), first))

    def _process(self, number: int) -> Work:
        return PartProcess(_numbered(self.part, number), f"{self.part.name}#{number}", self._wiring)

    @property
    def state(self) -> PartState:
        """The worst state of its units."""
        states = {unit.state for unit in self.units}
        return next(state for state in _WORST_FIRST if state in states)

    def status(self) -> PartStatus:
        """Return the status: state, restarts, last error and processes."""
        error = next((unit.error for unit in self.units if unit.error), None)
        restarts = sum(unit.restarts for unit in self.units)
        lag = lag_of(self.consuming())
        return PartStatus(self.part.name, kind_of(self.part), self.state, restarts, error, self.processes, lag)

    def consuming(self) -> list[Consuming]:
        """Return the queues that the part claims from."""
        return [queue for unit in self.units for queue in unit.consuming()]

    @property
    def over(self) -> bool:
        """True when no unit runs, nor will run again."""
        return all(unit.task is not None and unit.task.done() for unit in self.units)

    def start(self, ended: Callable[[], None]) -> None:
        """Start all units; `ended` is called when a unit ends for good."""
        for unit in self.units:
            unit.start().add_done_callback(lambda _: ended())

    def cancel(self) -> None:
        """Cancel all units."""
        for unit in self.units:
            unit.cancel()

    async def stop(self, until: float) -> None:
        """Stop gracefully within the part's `shutdown_timeout`, at most until `until` by the loop's clock."""
        for unit in self.units:
            unit.stop()
        tasks = [unit.task for unit in self.units if unit.task is not None]
        if not tasks:
            return
        now = asyncio.get_running_loop().time()
        budget = max(_LEAST_TIMEOUT, min(self.part.supervision.shutdown_timeout, until - now))
        _, late = await asyncio.wait(tasks, timeout=budget)
        if late:
            logger.warning("%s has not stopped in %.1f s: cancelling it", self.part.name, budget)
            self.cancel()
            _, late = await asyncio.wait(late, timeout=_CANCEL_TIMEOUT)
        if late:
            logger.error("%s does not end: abandoning it", self.part.name)


def _numbered(part: Part, number: int) -> Part:
    """Return `part` for one of its processes: the members of a Kafka group need different names."""
    if not isinstance(part, KafkaPart) or part.options.get("instance_id") is None:
        return part
    return replace(part, options=part.options | {"instance_id": f"{part.options['instance_id']}-{number}"})


def kind_of(part: Part) -> PartKind:
    """Return the kind of `part`."""
    match part:
        case PoolPart() | TasksPart():
            return "pool"
        case KafkaPart():
            return "kafka"
        case DaemonPart():
            return "daemon"
        case JobPart():
            return "cron job"
        case _:
            return "topics"
