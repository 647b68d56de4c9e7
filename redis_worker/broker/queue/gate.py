"""The gate before the start of tasks under limits."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import BUNDLES, TASKS, Keys
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.broker.queue.doorbell import Doorbell
from redis_worker.engine.starts import STARTED
from redis_worker.engine.waiting import happens
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected
from redis_worker.vocabulary.limit import Lane, Limit
from redis_worker.vocabulary.priorities import DEFAULT
from redis_worker.vocabulary.rate import Rate
from redis_worker.vocabulary.task import Delivery

# Time for which a call to the head of the queue holds, in ms: then the task waits in its lane again.
_CALL_MS = 10_000
# Most tasks in a call of the script, which blocks all other clients of the server.
_BATCH = 500
# Seconds until the next look at the lanes: while none has tasks, and as the spread of many workers that look.
_UNTIL_CHANGED, _POLL, _SPREAD = 3600.0, 1.0, 0.01
# Pause in seconds before a call is repeated, while Redis is away or a key is damaged.
_PAUSE = 0.5

WHOLE = "rate"
"""The name of the rate of a whole queue."""

Role: TypeAlias = Callable[[], Coroutine[Any, Any, None]]

_START, _WAITS, _BACK, _GONE = 0, 1, 2, 3


class _Question(NamedTuple):
    """A task that wants to start."""

    delivery: Delivery
    lane: Lane
    slack: float
    """The time in ms within which it starts."""
    answer: asyncio.Future[int]


class Gate:
    """Lets tasks start as their limits allow, over all workers; those that wait hold no slot and are not in flight."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        queue: AtLeastOnceQueue,
        doorbell: Doorbell,
        observer: Observer,
        lane_of: Callable[[Delivery], Lane | None],
        rate: Rate | None = None,
    ) -> None:
        """`lane_of` returns the limits of a task; None without any. `rate` is that of the whole queue, or None."""
        self.rate = rate
        self.on_answer: Callable[[Delivery], None] = lambda _: None
        """Called with each task about which the server has decided."""
        self._connection = connection
        self._keys = keys
        self._queue = queue
        self._doorbell = doorbell
        self._observer = observer
        self._lane_of = lane_of
        self._questions: list[_Question] = []
        self._changes: list[tuple[int, Lane, str]] = []
        """Tasks that have ended, or started later than it counts: number, lane, which of both."""
        self._unread: dict[Delivery, asyncio.Future[int]] = {}
        """Answers whose reader was cancelled; it asks again."""
        self._running: dict[Delivery, Lane] = {}
        """The tasks that have started and whose end lets others start."""
        self._unsure = False
        """True once a call got no reply: the server may have executed it."""
        self._to_do = asyncio.Event()
        self._sooner = asyncio.Event()
        """Set when the next look is to come before `_look_at`."""
        self._look_at = math.inf

    @classmethod
    def of_rate(
        cls,
        rate: Rate,
        connection: Connection,
        keys: Keys,
        queue: AtLeastOnceQueue,
        doorbell: Doorbell,
        observer: Observer,
        in_process: bool,
    ) -> Gate:
        """Return the gate of a queue whose tasks all have the same rate; see Lane."""
        lane = Lane([Limit(WHOLE, *rate)], in_process)
        return cls(connection, keys, queue, doorbell, observer, lambda _: lane, rate)

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that run beside the worker."""
        return (self.answer, self.look) if self.rate is None else (self.answer,)  # without lanes nothing waits there

    async def may_start(self, delivery: Delivery) -> bool:
        """See engine.gated_runner.Gate."""
        lane = self._lane_of(delivery)
        if lane is None:
            return True
        slack = lane.slack or 0.0
        while True:
            asked = monotonic()
            answer = await self._ask(delivery, lane, slack)
            self.on_answer(delivery)
            if answer == _GONE and not (self._unsure or delivery.receipt.lost):
                return True  # somebody deleted the tasks in flight: it is still to be done, see settle.lua
            if answer != _START:
                self._observer.released([delivery])
                return False
            passed = (monotonic() - asked) * 1000
            if lane.slack is None or passed <= slack:
                break
            slack = passed * 2
        if lane.ends:
            self._running[delivery] = lane
        STARTED.set(partial(self._has_started, delivery, lane, asked + slack / 1000, asyncio.get_running_loop()))
        return True

    def _has_started(self, delivery: Delivery, lane: Lane, latest: float, loop: asyncio.AbstractEventLoop) -> None:
        """Note a start, in any thread: one later than it counts is corrected, long before its period is over."""
        if lane.slack is not None and (lane.is_reported or monotonic() > latest):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._change, delivery.number, lane, "started")

    def _change(self, number: int, lane: Lane, what: str) -> None:
        self._changes.append((number, lane, what))
        self._to_do.set()

    async def _ask(self, delivery: Delivery, lane: Lane, slack: float) -> int:
        answer = self._unread.pop(delivery, None)
        if answer is None:
            answer = asyncio.get_running_loop().create_future()
            self._questions.append(_Question(delivery, lane, slack, answer))
            self._to_do.set()
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            self._unread[delivery] = answer
            raise

    def ended(self, deliveries: Iterable[Delivery]) -> None:
        """Note that tasks are settled: others may start."""
        for delivery in deliveries:
            if (lane := self._running.pop(delivery, None)) is not None:
                self._change(delivery.number, lane, "ended")

    async def close(self) -> None:
        """Note that all tasks have ended, once none is in flight. Raises Disconnected and Refused."""
        self.ended([*self._running])
        if self._changes:
            changes, self._changes = self._changes, []
            await self._connection.run("gate", *self._arguments((), changes, everywhere=False))

    async def answer(self) -> None:
        """Answer questions until cancelled: those of the same moment in one call. Raises Refused."""
        while True:
            await self._to_do.wait()
            await asyncio.sleep(0)  # others that start now ask first
            self._to_do.clear()
            changes, self._changes = self._changes, []
            questions, self._questions = self._questions, []
            for first in range(0, max(1, len(questions)), _BATCH):
                some = questions[first : first + _BATCH]
                if some or changes:
                    _, verdicts = await self._call(some, changes)
                    changes = []
                    answered = [*zip(some, verdicts, strict=True)]
                    await self._give_back([each.delivery for each, verdict in answered if verdict == _BACK])
                    for question, verdict in answered:
                        question.answer.set_result(verdict)

    async def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Return tasks to the head of the queue, in order. Raises Refused."""
        while deliveries:
            with suppress(Disconnected):
                await self._queue.release(deliveries)
                break
            await asyncio.sleep(_PAUSE)

    async def room(self) -> tuple[int, float, int]:
        """Return how many tasks may start now under the rate, the seconds until one more may, and how many wait.

        Raises Disconnected and Refused.
        """
        assert self.rate is not None
        keys = [f"{self._keys.limits}:{WHOLE}", *self._keys.lists]
        room, wait, waiting = await self._connection.run("room", keys, self.rate)
        return room, wait / 1000, waiting

    async def look(self) -> None:
        """Call up tasks that may start as time passes, or that a dead worker kept from starting, until cancelled."""
        with self._doorbell.bell(self._keys.lanes) as bell:
            while True:
                self._look_at = math.inf
                wait, _ = await self._call((), (), everywhere=True)
                if wait < 0:
                    await bell.wait(_UNTIL_CHANGED, poll=_POLL)
                    self._look_at = min(self._look_at, monotonic() + _POLL)
                while (seconds := self._look_at - monotonic()) > 0:
                    self._sooner.clear()
                    await happens(self._sooner, seconds + random.uniform(0.0, _SPREAD))

    async def _call(
        self, questions: Sequence[_Question], changes: Sequence[tuple[int, Lane, str]], everywhere: bool = False
    ) -> tuple[int, list[int]]:
        """Return the ms until the next look, -1 if nothing waits, and the verdicts. Raises Refused."""
        while True:
            try:
                wait, *verdicts = await self._connection.run("gate", *self._arguments(questions, changes, everywhere))
                break
            except DamagedKey as error:
                self._observer.damaged(error)
            except Disconnected:
                self._unsure = True  # the claimer gets the same error and reports it
            await asyncio.sleep(_PAUSE)
        if wait >= 0 and (look_at := monotonic() + wait / 1000) < self._look_at:
            self._look_at = look_at
            self._sooner.set()
        return wait, verdicts

    def _arguments(
        self, questions: Sequence[_Question], changes: Sequence[tuple[int, Lane, str]], everywhere: bool
    ) -> tuple[list[str], list[Any]]:
        keys, worker = self._keys, self._queue.worker
        arguments: list[Any] = [worker, keys.listed(""), TASKS, BUNDLES, f"{keys.limits}:", _CALL_MS]
        may_go_on = any(what == "ended" for _, _, what in changes)
        arguments += ["1" if everywhere or may_go_on else "", len(changes)]
        for number, lane, what in changes:
            arguments += (number, lane.text, what)
        for delivery, lane, slack, _ in questions:
            priority = keys.priority_of(delivery.number)
            arguments += (delivery.number, lane.text, slack, "" if self.rate is None else "back")
            arguments.append("" if priority == DEFAULT else f"@{priority}")
        return [
            keys.inflight(worker),
            keys.bundles(worker),
            keys.delayed,
            keys.workers,
            keys.lanes,
            keys.waiting,
        ], arguments
