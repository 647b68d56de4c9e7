"""The input list of a pool: each input ends as an answer or as a dead letter, and the pool works on."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, ClassVar

from redis_worker import WorkerPool
from redis_worker.broker.keys import Keys
from tests.fuzz import letters
from tests.fuzz.inputs import choose, id_, json_text, json_value
from tests.fuzz.running import Violation, WorkerTarget

_VALID = [b'{"id":"t1","task":[30]}', b'{"id":7,"task":{"a":[null,1.5]},"emit_ts":1.5,"more":"\\u00e9"}']


def payload(random: Random) -> bytes:
    """Return a payload, with members that are there twice, missing, or more than there should be."""
    members = [b'"id":' + id_(random), b'"task":' + (b"[%b]" % json_value(random))]
    if random.random() < 0.3:
        members.append(b'"emit_ts":' + random.choice((json_value(random), b"1e400", b"-1", repr(time.time()).encode())))
    if random.random() < 0.2:
        members.append(json_text(random) + b":" + json_value(random))
    if random.random() < 0.1:
        members.append(random.choice(members))
    if random.random() < 0.1:
        members.pop(random.randrange(len(members)))
    random.shuffle(members)
    return b"{" + b",".join(members) + b"}"


def work(arguments: list[Any]) -> Any:
    """Return its argument; raise where it is a text, with that text."""
    if len(arguments) == 1 and isinstance(arguments[0], str):
        raise ValueError(arguments[0])
    return arguments


async def work_later(arguments: list[Any]) -> Any:
    """Do the same as a coroutine."""
    return work(arguments)


class Lists(WorkerTarget):
    """A pool with an inline processor, at-least-once."""

    name = "lists"
    batch = 500
    share = 0.7
    options: ClassVar[dict[str, Any]] = {"execution": "inline"}
    processor: ClassVar[Callable[..., Any]] = staticmethod(work)

    def make(self, random: Random) -> bytes:
        return choose(random, payload, _VALID)

    def new_worker(self, url: str) -> WorkerPool:
        self._keys = Keys("fuzz:in", "fuzz:out")
        self._pushed = self._sentinels = 0
        return WorkerPool(url, "fuzz:in", "fuzz:out", "list", self.processor, 16, dead_limit=100_000, **self.options)

    async def check(self, inputs: Sequence[bytes]) -> None:
        redis, keys = self.redis, self._keys
        await redis.delete(keys.output, keys.dead)
        sentinel = f"sentinel {self._sentinels}"
        self._sentinels += 1
        await redis.rpush(keys.waiting, *inputs, json.dumps({"id": sentinel, "task": [1]}))
        self._pushed += len(inputs) + 1
        await self.processed(self._pushed)
        if self.worker.counters.processed > self._pushed:
            raise Violation(f"{self.worker.counters} of {self._pushed}")
        results = await redis.hgetall(keys.output)
        if sentinel.encode() not in results:
            raise Violation("the good task behind them has no result")
        dead = letters.counted(await redis.lrange(keys.dead, 0, -1))
        for raw, count in Counter(inputs).items():
            self._account(raw, count, dead[letters.digest(raw)], results)
        for id, result in results.items():
            value = json.loads(result, parse_int=str)
            if list(value) not in (["status", "result"], ["status", "error"]):
                raise Violation(f"the result of {id!r} is {result!r}")

    def _account(self, raw: bytes, count: int, dead: int, results: dict[bytes, bytes]) -> None:
        if dead == count:
            return
        if dead:
            raise Violation(f"{dead} of {count} equal inputs are dead letters", raw)
        if (id := letters.id_of(raw)) is None:
            raise Violation("neither a dead letter, nor has it an id for a result", raw)
        if id.encode() not in results:
            raise Violation(f"there is no result {id!r}, and no dead letter", raw)


class ListsAtMostOnce(Lists):
    """The same in threads, at-most-once."""

    name = "lists-at-most-once"
    share = 0.04
    options: ClassVar[dict[str, Any]] = {"execution": "thread", "delivery": "at-most-once"}


class ListsRetried(Lists):
    """The same in coroutines, where what fails is tried again."""

    name = "lists-retried"
    share = 0.04
    options: ClassVar[dict[str, Any]] = {"retries": 1, "retry_backoff": 0.001}
    processor = staticmethod(work_later)
