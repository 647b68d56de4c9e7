"""The lists of topics, and the set of their names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from random import Random

from redis_worker import ConfigurationError, Message, Reject, TopicWorker
from redis_worker.broker.keys import TOPICS, Keys, topic_list
from redis_worker.vocabulary.message import check_topic
from tests.fuzz import letters
from tests.fuzz.inputs import any_bytes, choose, id_, json_text, json_value, mutated
from tests.fuzz.running import Violation, WorkerTarget

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


class Topics(WorkerTarget):
    """Messages to handlers: a plain one, an idempotent one, and one of batches."""

    name = "topics"
    batch = 300
    share = 0.15

    def make(self, random: Random) -> bytes:
        return choose(random, message, _VALID)

    def new_worker(self, url: str) -> TopicWorker:
        worker = TopicWorker(url, dead_limit=100_000)
        self._seen: dict[str, set[str]] = {name: set() for name in _NAMES}
        self._pushed = 0

        def work(message: Message) -> None:
            self._seen[message.topic].add(message.id)
            if isinstance(message.data, str):
                raise (Reject if len(message.data) % 2 else ValueError)(message.data)

        @worker.handler(_NAMES[0], retries=0)
        async def plain(message: Message) -> None:
            work(message)

        @worker.handler(_NAMES[1], retries=0, idempotent=True)
        async def once(message: Message) -> None:
            work(message)

        @worker.batch_handler(_NAMES[2], size=50, within=0.01, retries=0)
        async def together(messages: Sequence[Message]) -> None:
            self._seen[_NAMES[2]].update(message.id for message in messages)

        return worker

    async def check(self, inputs: Sequence[bytes]) -> None:
        pushed: dict[str, list[bytes]] = {name: [] for name in _NAMES}
        for raw in inputs:
            pushed[_NAMES[len(raw) % len(_NAMES)]].append(raw)
        for name, raws in pushed.items():
            raws.append(b'{"id":"sentinel %d","data":1}' % self._pushed)
            await self.redis.delete(Keys(topic_list(name)).dead)
            await self.redis.rpush(topic_list(name), *raws)
        self._pushed += len(inputs) + len(_NAMES)
        await self.processed(self._pushed)
        for name, raws in pushed.items():
            dead = letters.counted(await self.redis.lrange(Keys(topic_list(name)).dead, 0, -1))
            for raw, count in Counter(raws).items():
                if dead[letters.digest(raw)] != count and letters.id_of(raw) not in self._seen[name]:
                    raise Violation(f"of {name}: neither a dead letter, nor was it handled", raw)


class TopicNames(WorkerTarget):
    """Bytes in the set of known topics: those that are names are consumed, the others are left alone."""

    name = "topic-names"
    batch = 20
    share = 0.0002

    def make(self, random: Random) -> bytes:
        valid = random.choice(("a.b", "order.reminder", "x", "日本.ö", "a-b_c", "mq:x", "a b", "{t}", "t*")).encode()
        return mutated(random, valid) if random.random() < 0.8 else any_bytes(random, 60)

    def new_worker(self, url: str) -> TopicWorker:
        worker = TopicWorker(url, dead_limit=100_000)
        self._seen: set[tuple[str, str]] = set()
        self._batches = 0

        @worker.default_handler
        async def handle(message: Message) -> None:
            self._seen.add((message.topic, message.id))

        return worker

    async def check(self, inputs: Sequence[bytes]) -> None:
        self._batches += 1
        id = f"b{self._batches}"
        good = f"good.{id}"
        raw = json.dumps({"id": id, "data": 1})
        for name in {*inputs, good.encode()}:
            await self.redis.rpush(b"mq:" + name, raw)
            await self.redis.sadd(TOPICS, name)
        for name in {*inputs, good.encode()}:
            try:
                topic = check_topic(name.decode())
            except (ConfigurationError, UnicodeDecodeError):
                continue
            while (topic, id) not in self._seen:
                await self.pause()
