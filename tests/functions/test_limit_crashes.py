"""Kills after every call of a task under limits: another worker ends all tasks as promised, and no place is left taken.

Each life has tasks that succeed, one that is retried and one that is rejected.
"""

from __future__ import annotations

import json
from asyncio import gather
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis

from redis_worker import Handle, TaskError
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.registration import reclaim
from redis_worker.embedded import EmbeddedServer
from tests.crashes import Forks
from tests.functions.crashing_limits import FILLER, LIVES, NOT_RUN, PRIORITIES, REJECTED, RETRIED, Work
from tests.support import Queue, wait_until

MOST_POINTS = 100
# Lives whose second worker runs at the same time: it waits more than it works.
AT_ONCE = 8
# Points of a life that the short form shows: in the middle of it, at calls of all kinds.
SOME = (5, 12, 19)


@pytest.fixture
async def forks() -> AsyncIterator[Forks]:
    """Forks workers of crashing_limits."""
    async with Forks("tests.functions.crashing_limits") as forks:
        yield forks


async def test_some_kills_under_all_limits(forks: Forks, redis: Redis, server: EmbeddedServer, tmp_path: Path) -> None:
    are_killed = await gather(*(is_killed("all", point, forks, server.url, redis, tmp_path) for point in SOME))
    assert all(are_killed)


@pytest.mark.long
@pytest.mark.parametrize("name", LIVES)
@pytest.mark.timeout(600)
async def test_kills_at_all_calls(
    name: str, forks: Forks, redis: Redis, server: EmbeddedServer, tmp_path: Path
) -> None:
    for first in range(1, MOST_POINTS, AT_ONCE):
        points = range(first, first + AT_ONCE)
        are_killed = await gather(*(is_killed(name, point, forks, server.url, redis, tmp_path) for point in points))
        if not all(are_killed):
            break
    assert first > 1
    assert not all(are_killed)


async def is_killed(name: str, point: int, forks: Forks, url: str, redis: Redis, folder: Path) -> bool:
    """Kill a worker at `point` of a life and let another one finish. Return False if it had ended before."""
    prefix = f"p{point}"
    work, queue = Work(name, url, prefix, str(folder)), Queue(redis, Keys(f"{prefix}:in", f"{prefix}:out"))
    handles = await work.submit()
    killed = await forks.life(point, name, url, prefix, folder) != 0
    held = await after_the_kill(work, queue, handles)
    await finish(work, queue, handles)
    check_runs(work, held)
    return killed


async def after_the_kill(work: Work, queue: Queue, handles: Sequence[Handle[int]]) -> set[int]:
    """Check that each task is in one place; return the numbers of those in flight, whose lease now ends."""
    keys, redis = queue.keys, queue.redis
    places = await queue.ledger()
    places.update(id.decode() for id in await redis.hkeys(keys.flow))
    for priority in ("high", "low"):
        places.update(json.loads(raw)["id"] for raw in await redis.lrange(keys.list_with(priority), 0, -1))
    assert places == Counter(handle.id for handle in handles)
    numbers = {handle.id: number for number, handle in enumerate(handles)}
    held = {numbers[json.loads(raw)["id"]] for raw in await queue.inflight()}
    for name in await redis.zrange(keys.workers, 0, -1):
        await redis.zadd(keys.workers, {name: 1})
        if work.life.priorities:  # the next worker shall find all tasks in their lists
            await reclaim(Connection(redis, owned=False), keys, name.decode())
    return held


async def finish(work: Work, queue: Queue, handles: Sequence[Handle[int]]) -> None:
    """Let another worker end all tasks. Check the answers, and that neither a place nor a key is left."""
    keys = queue.keys
    async with work.tasks.worker(max(work.life.slots, work.life.most), lease=2):
        for number, handle in enumerate(handles):
            assert await answer_of(handle) == expected(number, handles)
        (letter,) = await queue.dead()
        assert letter["id"] == handles[REJECTED].id
        places = f"{keys.limits}:concurrency:", f"{keys.limits}:key:"
        await wait_until(lambda: is_clear(queue, *places), "all that is of a task to end", 15)
        assert not await queue.redis.keys(f"{keys.limits}:*:called")  # no place is reserved
        for key in sorted(set(work.life.keys)) or [""]:
            fillers = await work.fill(key)
            await wait_until(lambda: work.filling == work.life.most, "as many tasks as may to begin")
            work.empty()
            assert [await filler.result(30) for filler in fillers] == [FILLER] * work.life.most
        await wait_until(lambda: is_clear(queue), "the limits to be as before", 15)
    await work.tasks.close()


async def answer_of(handle: Handle[int]) -> int | str:
    """Return the result of a task, or its error."""
    try:
        return await handle.result(30)
    except TaskError as error:
        return error.error


def expected(number: int, handles: Sequence[Handle[int]]) -> int | str:
    """Return the answer that a task is to get."""
    rejection = "Processing error: not wanted"
    if number == NOT_RUN:
        return f"Processing error: not run: the task {handles[REJECTED].id} failed: {rejection}"
    return rejection if number == REJECTED else number


async def is_clear(queue: Queue, *passing: str) -> bool:
    """Return True if its only keys are those that last longer than tasks; `passing` begin the names of others."""
    keys, redis = queue.keys, queue.redis
    found = [key.decode() for key in await redis.keys(f"*{keys.waiting.partition(':')[0]}:*")]
    names = {name for name in found if not name.startswith((keys.listed(""), *passing))}
    lasting = {keys.output, keys.dead, keys.retired, keys.claimants, keys.announced, keys.workers, keys.presence}
    return names <= lasting and await redis.zcard(keys.workers) == 1


class Run(NamedTuple):
    """A line of the log."""

    word: str
    number: int
    time: float
    pid: int


def runs_in(work: Work) -> list[Run]:
    """Return the lines of the log."""
    lines = (line.split() for line in work.log.read_text().splitlines())
    return [Run(word, int(number), float(time), int(pid)) for word, number, time, pid in lines]


def check_runs(work: Work, held: set[int]) -> None:
    """Check how often tasks ran, in which order, and how many at a time."""
    life, runs = work.life, runs_in(work)
    begins = [run for run in runs if run.word == "begin"]
    numbers = Counter(run.number for run in begins)
    for number in set(range(life.count)) - {NOT_RUN}:
        assert 1 <= numbers[number] <= 1 + (number == RETRIED) + (number in held)
    if life.rate is not None:
        assert most_in([run.time for run in begins], life.rate.ms / 1000) <= life.rate.most
    for pid in {run.pid for run in runs}:  # what a killed one ran has ended with it
        own = [run for run in runs if run.pid == pid]
        assert most_at_once(own) <= life.limits.get("concurrency", len(own))
        for key in set(life.keys):
            of_key = [run for run in own if life.key_of(run.number) == key]
            assert most_at_once(of_key) <= life.limits["per_key"]
        if life.priorities and not life.limits:  # a retry comes when it is due
            found = [run.number for run in own if run.word == "begin" and run.number != RETRIED]
            assert found == sorted(found, key=lambda number: (PRIORITIES.index(life.priority_of(number)), number))
    for key in set(life.keys) if "in_order" in life.limits else ():
        found = [run.number for run in begins if life.key_of(run.number) == key]
        assert found == sorted(found)


def most_in(starts: list[float], period: float) -> int:
    """Return the greatest number of starts in a period of this length, wherever it begins."""
    return max(sum(first <= start < first + period for start in starts) for first in starts)


def most_at_once(runs: list[Run]) -> int:
    """Return the greatest number of tasks of a process that had begun and not ended."""
    changes = [{"begin": 1, "end": -1}.get(run.word, 0) for run in runs]
    return max(accumulate(changes), default=0)
