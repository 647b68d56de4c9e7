"""The lists of topics, and the set of their names."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from random import Random

from redis.asyncio import Redis

from redis_worker import ConfigurationError, Message, Reject, TopicWorker
from redis_worker.broker.keys import TOPICS, Keys, topic_list
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.message import check_topic
from tests.fuzz import letters
from tests.fuzz.inputs import any_bytes, choose, id_, json_text, json_value, mutated
from tests.fuzz.running import AsyncTarget, Violation

_VALID = [b'{"id":"t1","topic":"t","data":{"a":[1]},"published_at":1764000000.5}']
_NAMES = ("fuzz.plain", "fuzz.once", "fuzz.batch")


def message(random: Random) -> bytes:
    """Return a message, with members that are there twice, missing, or more than there should be."""
    members = [b'"id":' + id_(random), b'"data":' + json_value(random)]
    if random.random() < 0.6:
        members.append(b'"topic":' + json_text(random))
    if random.random() < 0.6:
        members.append(b'"published_at":' + json_value(random))
    if random.random() < 0.1:
        members.pop(random.randrange(len(members)))
    random.shuffle(members)
    return b"{" + b",".join(members) + b"}"


class _Worker(AsyncTarget):
    async def open(self) -> None:
        self._server = EmbeddedServer()
        self._server.start()
        self._redis = Redis.from_url(self._server.url)
        self._worker = TopicWorker(self._server.url, dead_limit=100_000)
        self._declare()
        self._work = asyncio.create_task(self._worker.run())

    def _declare(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self._worker.stop()
        try:
            await self._work
            if keys := await self._redis.keys("*:inflight:*"):
                raise Violation(f"left in flight: {keys}")
        finally:
            await self._redis.aclose()
            self._server.stop()

    def _check_alive(self) -> None:
        if self._work.done():
            raise Violation(f"the worker has stopped: {self._work.exception()!r}")


class Topics(_Worker):
    """Messages to handlers: a plain one, an idempotent one, and one of batches."""

    name = "topics"
    batch = 300
    share = 0.15

    def make(self, random: Random) -> bytes:
        return choose(random, message, _VALID)

    def _declare(self) -> None:
        self._seen: dict[str, set[str]] = {name: set() for name in _NAMES}
        self._pushed = 0

        def work(message: Message) -> None:
            self._seen[message.topic].add(message.id)
            if isinstance(message.data, str):
                raise (Reject if len(message.data) % 2 else ValueError)(message.data)

        @self._worker.handler(_NAMES[0], retries=0)
        async def plain(message: Message) -> None:
            work(message)

        @self._worker.handler(_NAMES[1], retries=0, idempotent=True)
        async def once(message: Message) -> None:
            work(message)

        @self._worker.batch_handler(_NAMES[2], size=50, within=0.01, retries=0)
        async def together(messages: Sequence[Message]) -> None:
            self._seen[_NAMES[2]].update(message.id for message in messages)

    async def check(self, inputs: Sequence[bytes]) -> None:
        pushed: dict[str, list[bytes]] = {name: [] for name in _NAMES}
        for raw in inputs:
            pushed[_NAMES[len(raw) % len(_NAMES)]].append(raw)
        for name, raws in pushed.items():
            raws.append(b'{"id":"sentinel %d","data":1}' % self._pushed)
            await self._redis.delete(Keys(topic_list(name)).dead)
            await self._redis.rpush(topic_list(name), *raws)
        self._pushed += len(inputs) + len(_NAMES)
        while self._worker.counters.processed < self._pushed:
            self._check_alive()
            await asyncio.sleep(0.002)
        for name, raws in pushed.items():
            dead = letters.counted(await self._redis.lrange(Keys(topic_list(name)).dead, 0, -1))
            for raw, count in Counter(raws).items():
                if dead[letters.digest(raw)] != count and letters.id_of(raw) not in self._seen[name]:
                    raise Violation(f"of {name}: neither a dead letter, nor was it handled", raw)


class TopicNames(_Worker):
    """Bytes in the set of known topics: those that are names are consumed, the others are left alone."""

    name = "topic-names"
    batch = 20
    share = 0.0002

    def make(self, random: Random) -> bytes:
        valid = random.choice(("a.b", "order.reminder", "x", "日本.ö", "a-b_c", "mq:x", "a b", "{t}", "t*")).encode()
        return mutated(random, valid) if random.random() < 0.8 else any_bytes(random, 60)

    def _declare(self) -> None:
        self._seen: set[tuple[str, str]] = set()
        self._batches = 0

        @self._worker.default_handler
        async def handle(message: Message) -> None:
            self._seen.add((message.topic, message.id))

    async def check(self, inputs: Sequence[bytes]) -> None:
        self._batches += 1
        id = f"b{self._batches}"
        good = f"good.{id}"
        raw = json.dumps({"id": id, "data": 1})
        for name in {*inputs, good.encode()}:
            await self._redis.rpush(b"mq:" + name, raw)
            await self._redis.sadd(TOPICS, name)
        for name in {*inputs, good.encode()}:
            try:
                topic = check_topic(name.decode())
            except (ConfigurationError, UnicodeDecodeError):
                continue
            while (topic, id) not in self._seen:
                self._check_alive()
                await asyncio.sleep(0.002)
