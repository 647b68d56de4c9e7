"""Turns of calls: never more at once than there are, in order, and none lost whatever is cancelled or fails."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.broker.connection.turns import Turns

# What happens next: somebody comes, the caller of that number is cancelled or ends, all who wait are failed.
STEPS = st.lists(
    st.one_of(
        st.just(("come", 0)),
        st.tuples(st.sampled_from(["cancel", "end"]), st.integers(0, 20)),
        st.just(("fail", 0)),
        st.just(("turn", 0)),
    ),
    max_size=60,
)


class Callers:
    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.tasks: list[asyncio.Task[None]] = []
        self.ends: list[asyncio.Event] = []
        self.order: list[int] = []
        self.now = self.most = 0

    def come(self) -> None:
        self.ends.append(asyncio.Event())
        self.tasks.append(asyncio.create_task(self._call(len(self.tasks))))

    async def _call(self, number: int) -> None:
        if self.turns.free:
            self.turns.free -= 1
        else:
            await self.turns.wait()
        self.order.append(number)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.ends[number].wait()
        finally:
            self.now -= 1
            self.turns.give_back()


@given(at_once=st.integers(1, 4), steps=STEPS)
def test_whatever_happens_no_turn_is_lost(at_once: int, steps: list[tuple[str, int]]) -> None:
    async def run() -> None:
        turns = Turns(at_once)
        callers = Callers(turns)
        for step, number in steps:
            if step == "come":
                callers.come()
            elif step == "fail":
                turns.fail(lambda: ConnectionError("silent"))
            elif step == "turn":
                await asyncio.sleep(0)
            elif number < len(callers.tasks):
                callers.tasks[number].cancel() if step == "cancel" else callers.ends[number].set()
        for end in callers.ends:
            end.set()
        await asyncio.gather(*callers.tasks, return_exceptions=True)
        assert callers.most <= at_once
        assert callers.order == sorted(callers.order)
        assert turns.free == at_once

    asyncio.run(run())


async def test_who_waits_is_told_that_there_is_no_answer() -> None:
    turns = Turns(1)
    turns.free -= 1
    waiting = [asyncio.create_task(turns.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    turns.fail(lambda: ConnectionError("silent"))
    for each in waiting:
        with pytest.raises(ConnectionError, match="silent"):
            await each
    turns.give_back()
    assert turns.free == 1
