"""The roles of a consumer on a queue in memory, which fails, hangs and is asked exactly as the test wants it."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from redis_worker import Observer
from redis_worker.engine.counters import Counting
from redis_worker.engine.handler import Handler
from redis_worker.engine.pace import HORIZON, MeanPace, Pace
from redis_worker.engine.reading import TaskReader
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.retry import RetryPolicy
from redis_worker.engine.settler import Settler
from redis_worker.engine.slots import Slots
from redis_worker.engine.task_runner import TaskRunner
from redis_worker.ports import Unwritten
from redis_worker.service.consumer import Consumer, Work
from redis_worker.service.routing import Batching
from redis_worker.vocabulary.errors import DamagedKey, Disconnected
from redis_worker.vocabulary.processor import declaration_of, processor
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import PATIENCE, wait_until

# A bound of unwritten outcomes, and of what one claim may bring on top of it.
FULL, CLAIM = 10_000, 3_000


class Receipt:
    lost = False


class Shelf:
    """The port `Queue` over a list."""

    worker = "here"

    def __init__(self, count: int) -> None:
        self.waiting = deque(self.delivery(number) for number in range(count))
        self.is_asked = False
        """True while a claim looks for tasks, and waits for them."""
        self.calls: list[str] = []
        """The calls so far, except those to settle."""
        self.claimed = 0
        self.asked_for = 0
        """The largest number of tasks asked for at once."""
        self.limits: list[int] = []
        """The numbers of tasks asked for."""
        self.held: list[list[str]] = []
        """The tasks that were held at each look for missing ones."""
        self.settled: list[str] = []
        self.released: list[str] = []
        self.before_claim: Callable[[], None] = lambda: None
        self.before_settlement: Callable[[], Awaitable[None]] = _at_once
        self.lost: list[Delivery] = []
        """Claimed tasks whose reply was lost."""
        self.damaged = False
        """True while a key has another type, so that nothing can be written."""
        self.unwritten = 0
        self.refused: set[str] = set()
        """Tasks that other workers have."""

    cut_short = False

    @staticmethod
    def delivery(number: Any) -> Delivery:
        return Delivery(json.dumps({"id": str(number), "task": number}).encode(), Receipt())

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        self.calls.append("claim")
        self.asked_for = max(self.asked_for, limit)
        self.limits.append(limit)
        self.is_asked = True
        try:
            await asyncio.sleep(0)
            if not self.waiting:
                await asyncio.sleep(0.01)
                return []
        finally:
            self.is_asked = False
        self.before_claim()
        taken = [self.waiting.popleft() for _ in range(min(limit, len(self.waiting)))]
        self.claimed += len(taken)
        return taken

    def lose_a_claim(self) -> None:
        """Called before a claim: two tasks are taken, and the reply is lost."""
        self.before_claim = lambda: None
        self.lost = [self.waiting.popleft() for _ in range(2)]
        raise Disconnected("the reply is lost")

    async def missing(self, held: Iterable[Delivery]) -> list[Delivery]:
        self.calls.append("missing")
        self.held.append(_ids(held))
        found, self.lost = self.lost, []
        return found

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        await self.before_settlement()
        if self.damaged:
            self.unwritten += len(outcomes)
            raise Unwritten([(DamagedKey("key", "string", "hash"), outcomes)], [])
        refused = [outcome for outcome in outcomes if outcome.id in self.refused]
        self.settled += [outcome.id for outcome in outcomes if outcome.id and outcome not in refused]
        return refused

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += _ids(deliveries)
        self.waiting.extendleft(reversed(deliveries))


async def _at_once() -> None: ...


def _ids(deliveries: Iterable[Delivery]) -> list[str]:
    return [json.loads(delivery.raw)["id"] for delivery in deliveries]


@processor(execution="inline")
def inline(arguments: list[Any]) -> Any:
    return arguments[0]


class Outages(Observer):
    """Notes that the queue is away."""

    def __init__(self) -> None:
        self.away = asyncio.Event()

    def disconnected(self, error: Exception, delay: float) -> None:
        self.away.set()


@asynccontextmanager
async def at_work(
    shelf: Shelf, call: Any = inline, concurrency: int = 4, batching: Batching | None = None, **options: Any
) -> AsyncIterator[tuple[Consumer, Outages]]:
    """A consumer of the shelf; it has stopped when the block is left."""
    reader = TaskReader(lambda task: [task], 3)
    work = Work(
        read=reader.read, call=call, declaration=declaration_of(call), concurrency=concurrency, max_deliveries=3,
        batching=batching,
    )  # fmt: skip
    outages, counting = Outages(), Counting()
    observer = _Both(outages, counting)
    consumer = Consumer(
        "shelf", shelf, work, observer, counting,
        reconnect=Reconnect(observer, first=0.05), **{"shutdown_timeout": 1.0} | options,
    )  # fmt: skip
    running = asyncio.create_task(consumer.run())
    try:
        yield consumer, outages
    finally:
        consumer.stop()
        await running


class _Both(Observer):
    def __init__(self, outages: Outages, counting: Counting) -> None:
        self.disconnected = outages.disconnected  # type: ignore[method-assign]
        for event in ("claimed", "settled", "refused", "released"):
            setattr(self, event, getattr(counting, event))


async def settles(shelf: Shelf, count: int) -> None:
    await wait_until(lambda: len(shelf.settled) >= count, f"{count} settlements")
    assert len(set(shelf.settled)) == len(shelf.settled) == count


async def test_what_is_not_written_yet_has_a_bound() -> None:
    shelf, writable = Shelf(40_000), asyncio.Event()
    shelf.before_settlement = writable.wait  # type: ignore[assignment]
    async with at_work(shelf):
        await wait_until(lambda: shelf.claimed >= FULL, "it to be full")
        for _ in range(1000):
            await asyncio.sleep(0)
        assert shelf.claimed < FULL + 2 * CLAIM
        writable.set()
        await settles(shelf, 40_000)


async def test_nothing_is_claimed_while_the_queue_is_away() -> None:
    """Claims and settlements have connections of their own: one may work while the other does not."""
    shelf, writable = Shelf(40_000), asyncio.Event()

    async def fail() -> None:
        if not writable.is_set():
            raise Disconnected("away")

    shelf.before_settlement = fail
    async with at_work(shelf) as (_, outages):
        await outages.away.wait()
        before = shelf.claimed
        for _ in range(1000):
            await asyncio.sleep(0)
        assert shelf.claimed <= before + CLAIM
        writable.set()
        await settles(shelf, 40_000)


async def test_where_no_task_has_ended_yet_as_many_are_claimed_as_there_are_slots() -> None:
    shelf, gate = Shelf(100), asyncio.Event()

    async def call(_: list[Any]) -> None:
        await gate.wait()

    async with at_work(shelf, call, concurrency=5):
        await wait_until(lambda: shelf.claimed >= 5, "the claim")
        for _ in range(1000):
            await asyncio.sleep(0)
        assert (shelf.claimed, shelf.asked_for) == (5, 5)
        gate.set()
        await settles(shelf, 100)


async def test_tasks_that_have_a_slot_do_not_delay_the_next_claim() -> None:
    """One claim takes fewer tasks than there are slots, and none of them may end for long."""
    shelf, gate = Shelf(5000), asyncio.Event()

    async def call(_: list[Any]) -> None:
        await gate.wait()

    async with at_work(shelf, call, concurrency=4500):
        await wait_until(lambda: shelf.claimed > 0, "the first claim")
        for _ in range(100):
            await asyncio.sleep(0)
        assert shelf.claimed == 4500
        gate.set()
        await settles(shelf, 5000)


def test_one_quick_task_after_a_slow_one_is_no_reason_to_claim_far_ahead() -> None:
    pace = Pace()
    assert pace.ahead(4) == 0
    pace.note(0.010)
    pace.note(0.000_01)
    assert pace.ahead(4) == int(HORIZON * 4 / 0.009)
    for _ in range(200):
        pace.note(0.000_01)
    assert pace.ahead(4) > 1000
    pace.note(0.002)
    assert pace.ahead(4) == 8 * pace.ahead(4, is_mixed=True) == 40
    pace.note(1.0)  # a rare one
    assert pace.ahead(4) == int(HORIZON * 4 / pace.long * 2) == 8
    for _ in range(10):
        pace.note(1.0)
    assert pace.ahead(4) == 0


def test_an_interruption_of_a_process_takes_few_tasks_from_its_hand() -> None:
    pace = MeanPace()
    assert pace.ahead(1) == 0
    for _ in range(10):
        pace.note(0.001)
    assert pace.ahead(1) == int(HORIZON / 0.001)
    pace.note(0.004)
    assert pace.ahead(1) == int(HORIZON / 0.0013)
    for _ in range(20):
        pace.note(0.100)
    assert pace.ahead(1) == 0


async def test_what_waits_for_a_slot_takes_its_room() -> None:
    """Of what may be claimed ahead of the slots."""
    observer = Outages()
    reader = TaskReader(lambda task: [task], 3)
    settler = Settler(Shelf(0), Reconnect(observer), observer)
    runner = TaskRunner(Handler(reader.read, inline, None, None, RetryPolicy()), settler, concurrency=4)
    assert runner.room(ahead=True) == runner.room(ahead=False) == 4
    for _ in range(1000):
        runner.add([Shelf.delivery(0)])
        runner.take_back()  # most have waited for some microseconds: others will not wait long either
        if (most := runner.room(ahead=True)) > 14:
            break
    runner.add([Shelf.delivery(number) for number in range(10)])
    assert runner.room(ahead=True) == most - 10
    assert runner.room(ahead=False) == 0
    assert len(runner.held()) == 10  # or they would be taken for lost


async def test_few_are_asked_for_ahead_of_other_slots_while_a_slow_one_runs() -> None:
    shelf, gate = Shelf(2000), asyncio.Event()

    async def call(arguments: list[Any]) -> None:
        await (gate.wait() if arguments == ["slow"] else asyncio.sleep(0.001))

    async with at_work(shelf, call, concurrency=4):
        await settles(shelf, 2000)
        most, shelf.asked_for = shelf.asked_for, 0
        shelf.waiting.append(shelf.delivery("slow"))
        await asyncio.sleep(0.1)  # it is known to be slow
        shelf.waiting.extend(map(shelf.delivery, range(2000, 4000)))
        await settles(shelf, 4000)
        assert 4 < shelf.asked_for < most / 2
        gate.set()


async def test_where_nothing_waits_no_more_is_asked_for_than_can_start_at_once() -> None:
    """By the time when something comes, slow tasks may have taken the slots."""
    shelf, gate = Shelf(2000), asyncio.Event()

    async def call(arguments: list[Any]) -> None:
        if arguments == ["slow"]:
            await gate.wait()

    async with at_work(shelf, call, concurrency=4) as (consumer, _):
        await settles(shelf, 2000)
        assert shelf.asked_for > 4
        await wait_until(lambda: shelf.limits[-1] == 4, "a claim for the free slots")
        before = len(shelf.limits)
        shelf.waiting.extend(shelf.delivery("slow") for _ in range(4))
        await wait_until(lambda: consumer.running == 4, "slow tasks to run")
        await wait_until(lambda: not shelf.waiting and len(shelf.limits) > before + 1, "a claim that finds nothing")
        await wait_until(lambda: not shelf.is_asked, "its end")
        shelf.waiting.append(shelf.delivery("next"))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert len(shelf.waiting) == 1
        gate.set()
        await wait_until(lambda: "next" in shelf.settled, "the next one")


async def test_after_a_lost_reply_the_next_call_looks_for_the_lost() -> None:
    shelf = Shelf(6)
    shelf.before_claim = shelf.lose_a_claim
    async with at_work(shelf):
        await settles(shelf, 6)
    assert shelf.calls[:2] == ["claim", "missing"]


async def test_what_is_finished_and_not_written_is_not_lost() -> None:
    """It is in flight, and is not to be run again."""
    shelf, writable = Shelf(2), asyncio.Event()
    shelf.before_settlement = writable.wait  # type: ignore[assignment]
    async with at_work(shelf):
        await wait_until(lambda: shelf.claimed == 2, "the claim")
        shelf.waiting.extend(map(shelf.delivery, range(2, 4)))
        shelf.before_claim = shelf.lose_a_claim
        await wait_until(lambda: shelf.held, "a look for the lost")
        assert sorted(shelf.held[0]) == ["0", "1"]
        writable.set()
        await settles(shelf, 4)


async def test_what_runs_is_not_lost() -> None:
    shelf, gate = Shelf(2), asyncio.Event()

    async def call(_: list[Any]) -> None:
        await gate.wait()

    async with at_work(shelf, call, concurrency=4) as (consumer, _):
        await wait_until(lambda: consumer.running == 2, "two tasks to run")
        shelf.waiting.extend(map(shelf.delivery, range(2, 4)))
        shelf.before_claim = shelf.lose_a_claim
        await wait_until(lambda: shelf.held, "a look for the lost")
        assert sorted(shelf.held[0]) == ["0", "1"]
        gate.set()
        await settles(shelf, 4)


async def test_what_threads_run_is_not_lost() -> None:
    shelf, gate = Shelf(2), threading.Event()

    def call(_: list[Any]) -> None:
        gate.wait()

    async with at_work(shelf, call, concurrency=4) as (consumer, _):
        try:
            await wait_until(lambda: consumer.running == 2, "two tasks to run")
            shelf.waiting.extend(map(shelf.delivery, range(2, 4)))
            shelf.before_claim = shelf.lose_a_claim
            await wait_until(lambda: shelf.held, "a look for the lost")
            assert sorted(shelf.held[0]) == ["0", "1"]
        finally:
            gate.set()
        await settles(shelf, 4)


async def test_threads_take_tasks_while_the_loop_is_blocked() -> None:
    """And their outcomes wake it once."""
    shelf, count = Shelf(200), itertools.count()
    done = threading.Event()

    def call(_: list[Any]) -> None:
        if next(count) == 199:
            done.set()

    async with at_work(shelf, call, concurrency=200):
        await wait_until(lambda: shelf.claimed == 200, "the claim")
        assert done.wait(PATIENCE)  # blocks it
        await settles(shelf, 200)


async def test_a_stop_claims_no_more_even_if_a_claim_is_repeated() -> None:
    shelf = Shelf(6)
    async with at_work(shelf) as (consumer, _):

        def stop() -> None:
            consumer.stop()
            raise Disconnected("away")

        shelf.before_claim = stop
        await wait_until(lambda: shelf.calls, "the claim")
    assert shelf.calls == ["claim"]
    assert len(shelf.waiting) == 6


async def test_what_others_have_by_now_does_not_count_as_done() -> None:
    shelf = Shelf(5)
    shelf.refused = {"1", "3"}
    async with at_work(shelf) as (consumer, _):
        await wait_until(lambda: consumer.counters.refused == 2, "the refusals")
        await settles(shelf, 3)
    assert (consumer.counters.succeeded, consumer.counters.processed) == (3, 3)


class Ahead(Shelf):
    """A shelf without an end, whose marked tasks come once so many are asked for that not all can start."""

    def __init__(self, marked: list[str], at_once: int) -> None:
        super().__init__(0)
        self.marked = list(map(self.delivery, marked))
        self.at_once = at_once
        self.count = 0

    async def claim(self, limit: int, wait: bool) -> list[Delivery]:
        if self.marked and limit >= self.at_once:
            self.waiting.extend(self.marked)
            self.marked = []
        while len(self.waiting) < limit:
            self.waiting.append(self.delivery(self.count))
            self.count += 1
        return await super().claim(limit, wait)


async def test_what_was_handed_back_does_not_count_as_run() -> None:
    shelf, gate = Ahead(["slow"] * 2 + list("abcdefgh"), at_once=10), asyncio.Event()

    async def call(arguments: list[Any]) -> None:
        if arguments == ["slow"]:
            await gate.wait()

    async with at_work(shelf, call, concurrency=2, max_tasks=20_000) as (consumer, _):
        await wait_until(lambda: shelf.released, "the surplus to be handed back")
        gate.set()
        await wait_until(lambda: consumer.condition == "stopping", "it to end by itself")
        await wait_until(lambda: consumer.counters.processed == 20_000, "the rest to be written")
    assert len(shelf.settled) == 20_000
    assert set("abcdefgh") <= set(shelf.settled)


async def test_what_waits_for_a_damaged_key_is_written_once_it_is_mended() -> None:
    shelf = Shelf(50)
    shelf.damaged = True
    async with at_work(shelf):
        await wait_until(lambda: shelf.unwritten >= 50, "all to wait")
        shelf.damaged = False
        await settles(shelf, 50)


async def test_a_burst_is_over_when_nothing_runs_that_could_push_more() -> None:
    shelf = Shelf(1)

    async def call(arguments: list[Any]) -> None:
        if arguments == [0]:
            await wait_until(lambda: shelf.calls.count("claim") >= 2, "a claim that finds nothing")
            await asyncio.sleep(0)
            shelf.waiting.append(shelf.delivery("pushed"))

    async with at_work(shelf, call, burst=True) as (consumer, _):
        await wait_until(lambda: consumer.condition == "stopping", "it to end by itself")
        await wait_until(lambda: "0" in shelf.settled, "the first task")
    assert shelf.settled == ["0", "pushed"]


async def test_a_slot_that_is_given_back_is_free() -> None:
    slots = Slots(3)
    for _ in range(2):
        for free in (2, 1, 0):
            await slots.take()
            assert slots.free == free
        for free in (1, 2, 3):
            slots.give_back()
            assert slots.free == free


@pytest.mark.parametrize("execution", ["coroutine", "thread"])
async def test_what_others_own_by_now_is_not_started(execution: str) -> None:
    shelf, ran = Ahead(["marker", "x", "y"], at_once=3), []

    def call(arguments: list[Any]) -> None:
        ran.append(arguments[0])
        if arguments == ["marker"]:
            for delivery in lost:
                delivery.receipt.lost = True  # type: ignore[misc]

    async def call_async(arguments: list[Any]) -> None:
        call(arguments)

    lost = shelf.marked[1:]
    async with at_work(shelf, call if execution == "thread" else call_async, concurrency=1):
        await wait_until(lambda: "marker" in shelf.settled, "the marker")
        after = shelf.count + 1
        await wait_until(lambda: str(after) in shelf.settled, "those after it")
    assert not {"x", "y"} & set(ran)


async def test_what_no_thread_has_started_is_handed_back_once() -> None:
    shelf, gate, ran = Ahead(["slow"] * 2 + list("abcdefgh"), at_once=10), threading.Event(), list[Any]()

    def call(arguments: list[Any]) -> None:
        ran.append(arguments[0])
        if arguments == ["slow"]:
            gate.wait()

    async with at_work(shelf, call, concurrency=2, max_tasks=5_000) as (consumer, _):
        try:
            await wait_until(lambda: shelf.released, "the surplus to be handed back")
            assert not set(ran) & set(shelf.released)
        finally:
            gate.set()
        # A busy machine may have the last ones handed back too, when nothing is claimed any more.
        await wait_until(lambda: consumer.counters.processed >= 4_000, "most to be written")
    assert len(ran) == len(shelf.settled)
    assert set("abcdefgh") <= set(shelf.settled)


async def test_what_a_thread_returns_after_a_stop_at_once_is_dropped() -> None:
    shelf, gate, over = Shelf(1), threading.Event(), threading.Event()

    def call(_: list[Any]) -> None:
        gate.wait()
        over.set()

    async with at_work(shelf, call, shutdown_timeout=0) as (consumer, _):
        await wait_until(lambda: consumer.running == 1, "the task to run")
    gate.set()
    await wait_until(over.is_set, "its end")
    assert (consumer.running, shelf.settled) == (0, [])


async def test_what_others_own_by_now_is_in_no_batch() -> None:
    shelf, batches = Shelf(2), []

    async def call(batch: list[Any]) -> dict[str, Any]:
        batches.append(batch)
        return {}

    async with at_work(shelf, call, concurrency=1, batching=Batching(size=3, within=10 * PATIENCE)):
        lost = shelf.waiting[0]
        await wait_until(lambda: shelf.claimed == 2, "two of a batch of three")
        lost.receipt.lost = True  # type: ignore[misc]
        shelf.waiting.append(shelf.delivery(2))
        await settles(shelf, 2)
    assert batches == [[[1], [2]]]


async def test_the_first_success_wakes_all_who_wait_for_the_queue() -> None:
    """However long they would have slept."""
    outages = Outages()
    reconnect = Reconnect(outages, first=20 * PATIENCE, longest=20 * PATIENCE)
    away = True

    async def operation() -> str:
        if away:
            raise Disconnected("away")
        return "done"

    waiting = [asyncio.create_task(reconnect.call(operation)) for _ in range(3)]
    await outages.away.wait()
    away = False
    async with asyncio.timeout(PATIENCE):
        assert await reconnect.call(operation) == "done"
        assert await asyncio.gather(*waiting) == ["done"] * 3
    assert not reconnect.away
