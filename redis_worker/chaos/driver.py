"""A run from start to end: workers, producers, faults, and the ledger that follows."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

from redis_worker.chaos.attack import Attack, Inflicted
from redis_worker.chaos.display import Display
from redis_worker.chaos.faults import KINDS, Fault, schedule
from redis_worker.chaos.ledger import Violation
from redis_worker.chaos.options import Options
from redis_worker.chaos.proxy import Proxy
from redis_worker.chaos.stage import Stage, set_up
from redis_worker.chaos.tasks import Producers
from redis_worker.chaos.units import Unit
from redis_worker.registry import find_function, find_parser, find_processor
from redis_worker.signals import stop_signals
from redis_worker.vocabulary.errors import ConfigurationError

_TICK = 0.05
_SAMPLE_EVERY = 0.5
# The end of waiting for tasks: no progress for so long, in seconds. Leases and backoffs are shorter.
_PATIENCE = 75.0


class Sample(NamedTuple):
    """A point of the timeline."""

    at: float
    """Time of day, in seconds since the epoch."""
    pushed: int
    settled: int


@dataclass(slots=True)
class Story:
    """The events of a run, and its outcome."""

    started: float = field(default_factory=time.time)
    samples: list[Sample] = field(default_factory=list)
    inflicted: list[Inflicted] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    is_complete: bool = False
    """False if it was interrupted."""

    def first_offence(self) -> Violation | None:
        """Return the first violation with a history, if there is one."""
        return next((violation for violation in self.violations if violation.history), None)


def steps_of(story: Story, violation: Violation) -> list[tuple[float, str]]:
    """Return the history of a task and the faults in that time: seconds after the start, and a text."""
    if not violation.history:
        return []
    begin, end = violation.history[0][0], violation.history[-1][0]
    steps = [*violation.history]
    for fault in story.inflicted:
        if begin <= fault.end and fault.begin <= end:
            steps.append((fault.begin, f"({fault.text})"))
            if fault.end - fault.begin > 1 and fault.end <= end:
                steps.append((fault.end, f"(over: {fault.text})"))
    return [(at - story.started, text) for at, text in sorted(steps)]


async def perform(options: Options, display: Display) -> Story:
    """Run `options`. The story is incomplete if it was interrupted. Raises RedisWorkerError."""
    _check(options)
    performance = asyncio.create_task(_perform(options, display))

    def stop() -> None:
        performance.cancel()

    with stop_signals(stop, stop):
        try:
            return await performance
        except asyncio.CancelledError:
            return Story()


async def _perform(options: Options, display: Display) -> Story:
    async with AsyncExitStack() as stack:
        stage = await set_up(options, stack)
        kinds = _kinds(options, stage, display)
        units = []
        for crew in stage.mode.crews():
            proxy = None if stage.place is None else await stack.enter_async_context(Proxy(stage.place))
            url = stage.url(None if proxy is None else proxy.port)
            units.append(Unit(crew.name, stage.processes, crew.arguments, url, proxy, is_fleet=crew.is_fleet))
        await asyncio.gather(*(unit.is_up() for unit in units))
        display.say(f"{stage.title}; workers: {', '.join(unit.name for unit in units)}")
        fleets = [position for position, unit in enumerate(units) if unit.is_fleet]
        singles = [position for position, unit in enumerate(units) if not unit.is_fleet]
        driver = Driver(
            stage, units, schedule(options.seed, kinds, options.seconds, singles, fleets), options.seconds, display
        )
        try:
            await driver.run()
        except asyncio.CancelledError:
            pass  # the story so far is returned
        return driver.story


def _kinds(options: Options, stage: Stage, display: Display) -> list[str]:
    """Return the faults to inflict. Raises ConfigurationError if one is not to be had."""
    possible = (*stage.mode.faults, *(["failover"] if options.replica else []))
    if unknown := [name for name in options.faults if name not in possible]:
        if unknown[0] == "failover":
            raise ConfigurationError("the fault 'failover' needs --replica")
        raise ConfigurationError(f"the mode {options.mode} has no fault {unknown[0]!r}; it has {', '.join(possible)}")
    wanted = [name for name in KINDS if name in (options.faults or possible)]
    left_out = {name for name in wanted if KINDS[name].target == "server"} if not stage.servers else set()
    if options.url is not None and stage.place is None:
        left_out |= {name for name in wanted if KINDS[name].target == "network"}
    if left_out:
        names = ", ".join(name for name in wanted if name in left_out)
        if not set(wanted) - left_out:
            raise ConfigurationError(f"these faults need a private server: {names}; leave out --url")
        display.say(f"left out, because the server is not private: {names}")
    return [name for name in wanted if name not in left_out]


def _check(options: Options) -> None:
    """Raise ConfigurationError if the user's functions cannot be found: a worker would only say so in its log."""
    if options.processor is None:
        return
    if options.mode in {"topics", "cron"}:
        find_function("handler" if options.mode == "topics" else "job", options.processor)
    else:
        find_processor(options.processor)
        find_parser(options.parser)


class Driver:
    """One run on a stage, with units that work."""

    def __init__(
        self, stage: Stage, units: Sequence[Unit], faults: Sequence[Fault], seconds: float, display: Display
    ) -> None:
        self.story = Story()
        self._mode = stage.mode
        self._observer = stage.observer
        self._units = units
        self._faults = faults
        self._seconds = seconds
        self._display = display
        self._producers = Producers(stage.connection, self._mode.total, seconds, len(faults), self._mode.make)
        self._attack = Attack(stage, units, self._producers, self._violated)
        self._settled = 0
        self._moved = time.monotonic()

    async def run(self) -> None:
        """Inflict the faults and observe, until all tasks are settled or nothing moves. It fills the story."""
        watch = asyncio.create_task(self._watch())
        try:
            try:
                await self._work(watch)
            except ExceptionGroup as group:  # of tasks that ran together: one error says why
                raise _first_of(group) from None
            await self._wind_up(watch)
            self.story.is_complete = True
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await self._observer.finish()
            self._finish_story()

    async def _work(self, watch: asyncio.Task[None]) -> None:
        """Push tasks and inflict faults for the length of the run."""
        async with asyncio.TaskGroup() as group:
            for fault in self._faults:
                group.create_task(self._inflict(fault))
            group.create_task(self._producers.run())
            group.create_task(_fail_with(watch, self._seconds))
        await self._producers.finish()

    async def _inflict(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        inflicted = await self._attack.inflict(fault)
        self._display.say(inflicted.text, "bad")

    async def _wind_up(self, watch: asyncio.Task[None]) -> None:
        """Wait until all tasks are settled, then stop the workers."""
        self._moved = time.monotonic()
        while self._mode.ledger.settled < self._mode.total and time.monotonic() - self._moved < self._patience():
            if watch.done():
                watch.result()
            await asyncio.sleep(_TICK)
        watch.cancel()
        for sentence in await asyncio.gather(*(unit.stop() for unit in self._units)):
            if sentence is not None:
                self._violated(sentence)

    def _patience(self) -> float:
        # At-most-once may lose tasks: the others have been settled after some seconds without progress.
        return _PATIENCE / 10 if self._mode.may_lose else _PATIENCE

    async def _watch(self) -> None:
        """Follow the journals, show the progress, and start again what has ended."""
        sampled = 0.0
        while True:
            await self._observer.observe()
            if self._mode.ledger.settled != self._settled:
                self._settled, self._moved = self._mode.ledger.settled, time.monotonic()
            if time.monotonic() - sampled >= _SAMPLE_EVERY:
                sampled = time.monotonic()
                self._sample()
            for unit in self._units:
                if not unit.turn.locked() and (sentence := unit.fault()) is not None:
                    self._violated(sentence)
            await asyncio.sleep(_TICK)

    def _sample(self) -> None:
        pushed, settled = self._producers.pushed, self._mode.ledger.settled
        self.story.samples.append(Sample(time.time(), pushed, settled))
        if self._mode.total:
            self._display.show("tasks", settled, self._mode.total)

    def _finish_story(self) -> None:
        self._sample()
        if self.story.is_complete:
            self._mode.ledger.close()
        self.story.inflicted = sorted(self._attack.inflicted, key=lambda fault: fault.begin)
        self.story.violations += self._mode.ledger.violations
        self.story.counts = self._mode.ledger.counts()

    def _violated(self, sentence: str) -> None:
        self._display.say(sentence, "bad")
        self.story.violations.append(Violation(sentence))


def _first_of(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first_of(first) if isinstance(first, ExceptionGroup) else first


async def _fail_with(watch: asyncio.Task[None], seconds: float) -> None:
    """Return after `seconds`; raise what `watch` raises before."""
    await asyncio.wait({watch}, timeout=seconds)
    if watch.done():
        watch.result()
