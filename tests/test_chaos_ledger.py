"""The ledger of the chaos driver: it follows the journal of a real server, and finds each broken promise."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
import redis as redis_py
from hypothesis import given, settings
from hypothesis import strategies as st

from redis_worker.broker.keys import CronKeys, Keys
from redis_worker.chaos.cron_ledger import CronLedger
from redis_worker.chaos.journal import Journal
from redis_worker.chaos.ledger import Promise, TaskLedger
from redis_worker.chaos.replay import Replay
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import RedisWorkerError

Commands = list[tuple[Any, ...]]

_numbers = count()


@pytest.fixture(scope="module")
def journaled() -> Iterator[EmbeddedServer]:
    """A server with a journal, from whatever test wrote to it."""
    with EmbeddedServer(persistent=True, options=("--auto-aof-rewrite-percentage", "0")) as server:
        yield server


@pytest.fixture
def client(journaled: EmbeddedServer) -> Iterator[redis_py.Redis]:
    with redis_py.Redis.from_url(journaled.url) as client:
        yield client


HELD_BY, NUMBERS = st.just("h:tasks"), st.sampled_from(["1", "2", "3"])
LISTS, SORTED = st.sampled_from(["a", "b"]), st.sampled_from(["y", "z"])
ELEMENTS, PLACES, ENDS = st.sampled_from("ijk"), st.integers(-4, 4), st.sampled_from(["LEFT", "RIGHT"])
COMMANDS = st.one_of(
    st.tuples(st.sampled_from(["RPUSH", "LPUSH"]), LISTS, ELEMENTS, ELEMENTS),
    st.tuples(st.just("LMOVE"), LISTS, LISTS, ENDS, ENDS),
    st.tuples(st.just("BLMOVE"), LISTS, LISTS, ENDS, ENDS, st.just(0.001)),
    st.tuples(LISTS, st.integers(0, 2), st.integers(1, 2), LISTS).map(
        lambda drawn: ("SORT", drawn[0], "BY", "nosort", "LIMIT", *drawn[1:3], "STORE", drawn[3])
    ),
    st.tuples(st.just("LPOP"), LISTS),
    st.tuples(st.just("LPOP"), LISTS, st.integers(1, 3)),
    st.tuples(st.just("BLPOP"), LISTS, st.just(0.001)),
    st.tuples(st.just("LTRIM"), LISTS, PLACES, PLACES),
    st.tuples(st.just("LREM"), LISTS, st.sampled_from([1, -1]), ELEMENTS),
    st.tuples(st.just("ZADD"), SORTED, st.integers(0, 5), ELEMENTS),
    st.tuples(st.just("ZADD"), SORTED, st.just("NX"), st.integers(0, 5), ELEMENTS),
    st.tuples(st.just("ZREM"), SORTED, ELEMENTS, ELEMENTS),
    st.tuples(st.just("ZREMRANGEBYSCORE"), SORTED, st.just("-inf"), st.integers(0, 5)),
    st.tuples(st.just("ZREMRANGEBYRANK"), SORTED, st.just(0), st.integers(0, 2)),
    st.tuples(st.just("HSET"), HELD_BY, NUMBERS, ELEMENTS),
    st.tuples(st.just("HSET"), HELD_BY, st.just("last"), NUMBERS, NUMBERS, ELEMENTS),
    st.tuples(st.just("HDEL"), HELD_BY, NUMBERS, NUMBERS),
    st.tuples(st.just("UNLINK"), st.sampled_from(["a", "b", "y", "z", "h:tasks"])),
)


@settings(deadline=None, max_examples=60)
@given(commands=st.lists(COMMANDS, max_size=40))
def test_the_replayed_journal_is_what_the_server_holds(journaled: EmbeddedServer, commands: Commands) -> None:
    stem = f"{next(_numbers)}:"
    with redis_py.Redis.from_url(journaled.url) as client:
        for name, *arguments in commands:
            keys = {0, 1} if name in {"LMOVE", "BLMOVE"} else {0, 7} if name == "SORT" else {0}
            named = (f"{stem}{word}" if place in keys else word for place, word in enumerate(arguments))
            client.execute_command(name, *named)
        replay = Replay()
        for transaction in Journal(journaled.folder).transactions():
            for command in transaction:
                list(replay.apply(command))
        for key in (f"{stem}a", f"{stem}b"):
            assert replay.elements(key.encode()) == client.lrange(key, 0, -1)
        tasks = client.hgetall(held := f"{stem}h:tasks")
        assert replay.held(held.encode()) == {number: raw for number, raw in tasks.items() if number != b"last"}
        for key in (f"{stem}y", f"{stem}z"):
            assert replay.members(key.encode()) == dict(client.zrange(key, 0, -1, withscores=True))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers())
def test_a_journal_that_grows_by_pieces_gives_each_transaction_once(tmp_path_factory: Any, seed: int) -> None:
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("journal")
    file = folder / "appendonly.aof"
    file.touch()
    transactions = [
        [[b"SET", b"key\r\n", b"%d" % number] for number in range(chance.randint(1, 3))]
        for _ in range(chance.randint(1, 8))
    ]
    data = b"".join(_written(transaction) for transaction in transactions)
    journal, found, position = Journal(folder), [], 0
    while position < len(data):
        # A killed server cuts an incomplete transaction off when it starts again, and writes it anew.
        size = chance.randint(1, 60)
        file.write_bytes(data[: position + size])
        found += journal.transactions()
        position = journal._offset if chance.random() < 0.3 else position + size

    assert found == transactions


def _written(transaction: list[list[bytes]]) -> bytes:
    commands = transaction if len(transaction) == 1 else [[b"MULTI"], *transaction, [b"EXEC"]]
    return b"".join(
        b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in command)
        for command in commands
    )


KEYS = Keys("q:in", "q:out")
HELD, OTHER = KEYS.inflight("w1"), KEYS.inflight("w2")
RAW = '{"id":"t1","task":[1]}'
PUSH = ("RPUSH", KEYS.waiting, RAW)
CLAIM = [("HSET", HELD, "last", "7", "7", RAW), ("LPOP", KEYS.waiting)]
ANSWER = ("HSET", KEYS.output, "t1", "one")


def _ledger(client: redis_py.Redis, server: EmbeddedServer, promise: Promise, *steps: Commands) -> TaskLedger:
    """The ledger after steps, each of them a transaction, that begin with empty keys."""
    journal = Journal(server.folder)
    for key in client.keys("*"):
        client.unlink(key)
    for _ in journal.transactions():
        pass
    ledger = TaskLedger([KEYS], promise)
    ledger.expect("t1", RAW.encode(), "answered" if promise.has_results else "any", b"one".__eq__)
    for step in steps:
        pipeline = client.pipeline(transaction=True)
        for command in step:
            pipeline.execute_command(*command)
        pipeline.execute()
    for transaction in journal.transactions():
        ledger.observe(transaction, time.time())
    ledger.close()
    return ledger


SETTLE = [("HDEL", HELD, "7"), ANSWER]
RETURN = [("LPUSH", KEYS.waiting, RAW), ("HDEL", HELD, "7"), ("DEL", HELD), ("ZREM", KEYS.workers, "w1")]


def test_a_task_that_is_delivered_again_keeps_the_promise(client: redis_py.Redis, journaled: EmbeddedServer) -> None:
    again = [("HSET", OTHER, "last", "3", "3", RAW), ("LPOP", KEYS.waiting)]
    last = [("HDEL", OTHER, "3"), ANSWER]
    ledger = _ledger(client, journaled, Promise(), [PUSH, LEASE], CLAIM, RETURN, again, last)

    assert ledger.violations == []
    numbers = {"pushed": 1, "answered": 1, "dead": 0, "delivered again": 1, "lost": 0, "written twice": 0}
    assert ledger.counts() == numbers
    assert ledger.settled == 1


BEGUN, DONE, DELAYED = KEYS.begun, KEYS.done, KEYS.delayed
LATER = int(time.time() * 1000) + 3_600_000
LEASE = ("ZADD", KEYS.workers, LATER, "w1")
TOPIC = Promise(has_results=False)


@pytest.mark.parametrize(
    ("promise", "steps", "words"),
    [
        (Promise(), [], "was pushed, and never arrived"),
        (Promise(), [[PUSH]], "is not done with, and nothing goes on: waiting"),
        (Promise(), [[PUSH], [("LPOP", KEYS.waiting)]], "is nowhere"),
        (Promise(), [[PUSH], CLAIM, SETTLE[:1], [ANSWER]], "is nowhere"),
        (Promise(), [[PUSH], [PUSH]], "is in two places at once: waiting and waiting"),
        (Promise(), [[PUSH], CLAIM, [ANSWER], SETTLE[:1]], "is in two places at once: in flight at w1 and answered"),
        (Promise(), [[PUSH], CLAIM, SETTLE, [ANSWER]], "was written twice"),
        (Promise(may_repeat=True), [[PUSH], CLAIM, SETTLE, [("HSET", KEYS.output, "t1", "two")]], "written twice"),
        (Promise(), [[PUSH], CLAIM, SETTLE, [PUSH]], "is in two places at once: answered and waiting"),
        (Promise(), [[PUSH], CLAIM, [SETTLE[0], ("HSET", KEYS.output, "t1", "x")]], "has the wrong answer b'x'"),
        (Promise(may_lose=True), [[PUSH], CLAIM, SETTLE, [PUSH]], "is in two places at once"),
        (Promise(splits=True), [[PUSH], CLAIM, [SETTLE[0]]], "is nowhere"),
        (TOPIC, [[PUSH], CLAIM, [SETTLE[0]], [PUSH]], "is in two places at once: completed and waiting"),
        (
            TOPIC,
            [[("ZADD", DELAYED, LATER, f"token:{RAW}")], [("ZREM", DELAYED, f"token:{RAW}"), PUSH]],
            r"left the delayed ones -?\d+\.\d+ s early",
        ),
        (
            TOPIC,
            [[PUSH], CLAIM, [("ZADD", DONE, LATER, "t1")], [("HSET", BEGUN, "t1", "w1\n7")]],
            "was begun after it was completed",
        ),
        (
            TOPIC,
            [[PUSH], [LEASE], CLAIM, [("HSET", BEGUN, "t1", "w1\n7")], [("HSET", BEGUN, "t1", "w2\n7")]],
            "was begun while another worker had it",
        ),
    ],
)
def test_each_broken_promise_is_found_with_its_history(
    client: redis_py.Redis, journaled: EmbeddedServer, promise: Promise, steps: list[Commands], words: str
) -> None:

    first = _ledger(client, journaled, promise, *steps).violations[0]

    assert re.search(words, first.text), first.text
    assert first.id == "t1"
    assert len(first.history) >= bool(steps)


def test_at_most_once_may_lose_and_write_the_same_again(client: redis_py.Redis, journaled: EmbeddedServer) -> None:
    promise = Promise(may_lose=True, may_repeat=True)
    taken = [("LPOP", KEYS.waiting)]

    lost = _ledger(client, journaled, promise, [PUSH], taken)
    assert (lost.violations, lost.counts()["lost"]) == ([], 1)

    repeated = _ledger(client, journaled, promise, [PUSH], taken, [ANSWER], [ANSWER])
    assert repeated.violations == []
    assert repeated.counts()["written again with the same value"] == 1


RUN, PUSHED = CronKeys("c:run"), CronKeys("c:push")


NOW = int(time.time()) * 1000


def _fire(keys: CronKeys, instant: int) -> tuple[Any, ...]:
    return ("ZADD", keys.fired, instant, str(instant))


@pytest.mark.parametrize(
    ("commands", "ran", "words"),
    [
        (
            [_fire(RUN, NOW), _fire(RUN, NOW + 2000)],
            [NOW, NOW + 2000],
            [f"{NOW + 1000} was left out by the job"],
        ),
        ([_fire(RUN, NOW - 40_000)], [NOW - 40_000], ["was the last one fired by the job that runs a function, long"]),
        ([_fire(RUN, NOW)], [NOW, NOW], [f"instant {NOW} ran 2 times"]),
        ([_fire(RUN, NOW)], [NOW, NOW + 1000], [f"instant {NOW + 1000} ran, and was not fired"]),
        ([_fire(RUN, NOW), ("ZREM", RUN.fired, f"{NOW}"), _fire(RUN, NOW)], [NOW], [f"instant {NOW} was fired twice"]),
        (
            [_fire(RUN, NOW), *(("HSET", RUN.runs, name, f"due {NOW} {NOW} worker") for name in ("r1", "r1", "r2"))],
            [NOW],
            [f"instant {NOW} has two runs"],
        ),
        ([_fire(PUSHED, NOW)], [], ["0 tasks for 1 instants"]),
        ([_fire(RUN, NOW), _fire(PUSHED, NOW), ("RPUSH", "c:in", '{"id":1,"task":[]}')], [NOW], []),
    ],
)
def test_the_ledger_of_cron_finds_what_is_fired_twice_or_left_out(
    client: redis_py.Redis, journaled: EmbeddedServer, commands: Commands, ran: list[int], words: list[str]
) -> None:
    journal = Journal(journaled.folder)
    client.delete(RUN.fired, RUN.runs, PUSHED.fired, "c:in")
    for _ in journal.transactions():
        pass
    ledger = CronLedger(RUN, PUSHED, "c:in", lambda: ran)
    for command in commands:
        client.execute_command(*command)
    for transaction in journal.transactions():
        ledger.observe(transaction, NOW / 1000)
    ledger.close()

    assert len(ledger.violations) == len(words)
    for violation, word in zip(ledger.violations, words, strict=True):
        assert word in violation.text


def test_a_command_that_the_ledger_cannot_follow_ends_the_run() -> None:

    with pytest.raises(RedisWorkerError, match="cannot follow the command LINSERT"):
        list(Replay().apply([b"LINSERT", b"key", b"BEFORE", b"pivot", b"value"]))
