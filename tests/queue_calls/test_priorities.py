"""Claims by priority: in their order or by their weights, exactly; a task comes back to its own list from anywhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import BUNDLE, SPAN, Keys
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.broker.operator.depth import read_depths
from redis_worker.broker.queue.announced_priorities import announce_priorities
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.large_tasks import LARGE_BYTES
from redis_worker.broker.queue.settlement import Limits
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import Priorities, priorities_of
from redis_worker.vocabulary.task import Delivery
from tests.queue_calls.members import Join, Line, again, dead, done, ids, promote_all, set_deaths, task
from tests.support import Queue

NAMES = ("high", "default", "low")
WEIGHTS = {"high": 6, "default": 3, "low": 1}


async def push(queue: Queue, priority: str, *numbers: int | str, filler: str = "") -> None:
    raws = [task(f"{priority}-{number}{filler}") for number in numbers]
    await queue.redis.rpush(queue.keys.list_with(priority), *raws)


async def waiting(queue: Queue, names: Sequence[str] = NAMES) -> list[str]:
    return [id for name in names for id in ids(await queue.redis.lrange(queue.keys.list_with(name), 0, -1))]


def of(claimed: Sequence[Delivery]) -> Counter[str]:
    return Counter(id.split("-")[0] for id in ids(claimed))


async def test_the_first_priority_with_tasks_comes_first(join: Join, queue: Queue) -> None:
    member = await join(priorities=NAMES)
    for name in reversed(NAMES):
        await push(queue, name, 1, 2, 3)
    assert ids(await member.claim(5)) == ["high-1", "high-2", "high-3", "default-1", "default-2"]
    await push(queue, "high", 4)
    rest = await member.claim(100)
    assert ids(rest) == ["high-4", "default-3", "low-1", "low-2", "low-3"]
    assert await member.claim() == []
    assert member.line.scripts.count("claim") == 3  # one call for all lists
    await member.queue.close()
    assert await waiting(queue) == [f"{name}-{n}" for name in NAMES for n in (1, 2, 3, 4) if n < 4 or name == "high"]
    await queue.redis.delete(*member.keys.lists)


async def test_weights_are_exact_in_one_claim_and_task_by_task(join: Join, queue: Queue) -> None:
    """A flood of one priority takes no turn of the others; a turn without tasks goes to the first that has some."""
    member = await join(priorities=WEIGHTS)
    await push(queue, "high", *range(1000))
    await push(queue, "default", *range(100))
    await push(queue, "low", *range(100))
    assert of(await member.claim(10)) == WEIGHTS
    assert of(await member.claim(100)) == {"high": 60, "default": 30, "low": 10}
    one_by_one = [delivery for _ in range(20) for delivery in await member.claim(1)]
    assert of(one_by_one) == {"high": 12, "default": 6, "low": 2}
    await queue.redis.delete(queue.keys.waiting)
    assert of(await member.claim(10)) == {"high": 9, "low": 1}
    await queue.redis.delete(*member.keys.lists)
    await member.queue.release(await member.queue.missing([]))
    await queue.redis.delete(*member.keys.lists)


async def test_any_weights_and_lengths_give_each_its_turns(join: Join, queue: Queue) -> None:
    """Claims as the documentation counts them: a turn for each task, taken over by the first that has some."""
    chance = random.Random(16)
    for _ in range(12):
        priorities = priorities_of({name: chance.randint(1, 9) for name in chance.sample(NAMES, 3)})
        member = await join(priorities=priorities)
        left = {name: [f"{name}-{n}" for n in range(chance.choice((0, 3, 40)))] for name in priorities.names}
        for name, some in left.items():
            await push(queue, name, *range(len(some))) if some else None
        turn = member.queue._turn
        while any(left.values()):
            limit = chance.randint(1, 15)
            expected: dict[str, list[str]] = {name: [] for name in priorities.names}
            for _ in range(min(limit, sum(map(len, left.values())))):
                number = int(priorities.turns[turn % len(priorities.turns)])
                turn += 1
                name = ("default", *priorities.others)[number]
                name = name if left[name] else next(name for name in priorities.names if left[name])
                expected[name].append(left[name].pop(0))
            claimed = await member.claim(limit)
            assert ids(claimed) == [id for some in expected.values() for id in some]
            await member.queue.settle([done(delivery) for delivery in claimed])
        assert await member.claim(5) == []


class Ends:
    """The ways in which a task in flight comes back to its list."""

    def __init__(self, join: Join, queue: Queue, member: Any) -> None:
        self.join, self.queue, self.member = join, queue, member

    async def release(self, claimed: list[Delivery]) -> None:
        await self.member.queue.release(claimed)

    async def die(self, _: list[Delivery]) -> None:
        await (await self.join()).bury(self.member)  # one that knows no priorities

    async def stop(self, _: list[Delivery]) -> None:
        await self.member.queue.close()

    async def retry(self, claimed: list[Delivery]) -> None:
        await self.member.queue.settle([again(delivery) for delivery in claimed])
        await promote_all(await self.join())

    async def fail(self, claimed: list[Delivery]) -> None:
        await self.member.queue.settle([dead(delivery) for delivery in claimed])
        async with DeadLetters(self.queue.redis, self.queue.keys.waiting) as letters:
            assert await letters.requeue([letter async for letter in letters.letters()]) == len(claimed)

    async def vanish(self, claimed: list[Delivery]) -> None:
        """Somebody deletes the tasks in flight, and they are released all the same."""
        keys, name = self.member.keys, self.member.name
        each = [keys.bundle(name, delivery.number - delivery.number % BUNDLE) for delivery in claimed]
        await self.queue.redis.delete(keys.inflight(name), keys.bundles(name), *each)
        await self.member.queue.release(claimed)


@pytest.mark.parametrize("how", ["release", "die", "stop", "retry", "fail", "vanish"])
@pytest.mark.parametrize("filler", ["", "x" * LARGE_BYTES], ids=["small", "large"])
async def test_a_task_comes_back_to_its_list_in_order(join: Join, queue: Queue, how: str, filler: str) -> None:
    member = await join(priorities=NAMES)
    for name in NAMES:
        await push(queue, name, 1, 2, 3, filler=filler)
    before = await waiting(queue)
    claimed = await member.claim(100)
    while more := await member.claim(100):
        claimed += more
    assert sorted(ids(claimed)) == sorted(before)
    assert await waiting(queue) == []
    await getattr(Ends(join, queue, member), how)(claimed)
    assert await waiting(queue) == before
    await queue.redis.delete(*member.keys.lists, queue.keys.dead, queue.keys.output)


@given(weights=st.lists(st.integers(1, 100), min_size=3, max_size=3))
def test_each_has_its_turns_and_none_waits_for_long(weights: list[int]) -> None:
    """In a whole round each has as many turns as its weight says, spread over the round."""
    priorities = priorities_of(dict(zip(NAMES, weights, strict=True)))
    turns = priorities.turns
    shares = Counter(turns)
    found = [shares[number] for number in priorities.order]
    assert [count * sum(weights) for count in found] == [weight * len(turns) for weight in weights]
    for number, count in zip(priorities.order, found, strict=True):
        gaps = (turns + turns).split(number)[1:-1]
        assert max(map(len, gaps), default=0) <= 2 * len(turns) / count


async def test_a_last_chance_is_taken_alone_whatever_its_priority(join: Join, queue: Queue) -> None:
    member = await join(priorities=NAMES)
    await push(queue, "high", 1)
    await push(queue, "low", 1)
    await set_deaths(queue, task("high-1"), 2)
    (alone,) = await member.claim()
    assert ids([alone]) == ["high-1"]
    assert await member.claim() == []
    await member.queue.settle([done(alone)])
    (rest,) = await member.claim()
    assert ids([rest]) == ["low-1"]
    await member.queue.settle([done(rest)])


async def test_at_most_once_takes_by_priority_too(server: EmbeddedServer, queue: Queue) -> None:
    keys = Keys(queue.keys.waiting, queue.keys.output, priorities_of(WEIGHTS))
    line = Line(server.url)
    member = AtMostOnceQueue(line, line, keys, Observer(), Limits(dead=10))
    for name in NAMES:
        await push(queue, name, *range(20))
    claimed = await member.claim(10, wait=False)
    assert of(claimed) == WEIGHTS
    await member.release(claimed)
    assert await waiting(queue) == [f"{name}-{number}" for name in NAMES for number in range(20)]
    await queue.redis.delete(*keys.lists)
    await push(queue, "low", 7)
    (last,) = await member.claim(10, wait=True)
    await push(queue, "low", 8)
    (blocked,) = await member.claim(10, wait=True)
    await member.settle([dead(last), dead(blocked)])
    assert [letter["priority"] for letter in await queue.dead()] == ["low", "low"]
    await queue.redis.delete(queue.keys.dead)
    await line.close()


async def test_operators_see_all_lists_and_claims_without_priorities_are_as_they_were(
    join: Join, queue: Queue, server: EmbeddedServer
) -> None:
    plain = await join()
    sent: list[tuple[int, int]] = []
    run = plain.line.run

    async def noting(name: str, keys: Sequence[Any] = (), arguments: Sequence[Any] = (), **options: Any) -> Any:
        sent.append((len(keys), len(arguments)))
        return await run(name, keys, arguments, **options)

    plain.line.run = noting
    for name in NAMES:
        await push(queue, name, 1, 2)
    assert ids(await plain.claim()) == ["default-1", "default-2"]
    assert sent == [(7, 7)]
    await plain.queue.close()
    member = await join(priorities=NAMES)
    await announce_priorities(member.line, member.keys)
    async with QueueControl(server.url, queue.keys.waiting) as control:
        assert await control.count() == 6
        assert ids(await control.peek(5)) == ["high-1", "high-2", "default-1", "default-2", "low-1"]
        depth = (await read_depths(Connection(queue.redis, owned=False), [queue.keys.waiting], 5.0))[queue.keys.waiting]
        assert (depth.waiting, depth.head) == (6, task("high-1"))
        await control.pause()
        assert await member.claim() == []
        await control.resume()
        assert await control.purge() == 6
    assert await waiting(queue) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([], "must include default, the list itself, got none"),
        (["high", "low"], "must include default, the list itself, got high, low"),
        (["default", "default"], "different names, got default, default"),
        (["default", "a:b"], "letters, digits, _, - and dots, got 'a:b'"),
        ([*"abcdefghij", "default"], "up to 10 different names"),
        ({"default": 1, "low": 0}, "weights from 1 to 100, got low=0"),
        ({"default": True}, "weights from 1 to 100, got default=True"),
        ("high=6,default", "written as high=6,default=3,low=1, got 'high=6,default'"),
        (7, "a list of names, or names with weights, got 7"),
    ],
)
def test_wrong_priorities_are_a_sentence(given: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        priorities_of(given)
    assert problem in str(caught.value)
    assert str(caught.value).startswith("priorities must ")


def test_a_text_stands_for_names_or_weights_and_numbers_fit_into_lua() -> None:
    assert priorities_of("high, default,low") == Priorities(NAMES)
    assert priorities_of("high=6, default=3,low=1") == Priorities(NAMES, (6, 3, 1))
    assert Keys("{shop}:mail").list_with("high") == "{shop}:mail:priority:high"
    assert (Keys("mail").list_with("high"), Keys("mail").list_with("default")) == ("{mail}:priority:high", "mail")
    assert len(str(10 * SPAN - 1)) == 14  # Lua writes out no more digits
