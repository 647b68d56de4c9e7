"""One topic that cannot be consumed stops no other, is tried again, and loses nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from redis_worker import Message, Publisher, Refused, TopicWorker
from redis_worker.broker.keys import TOPICS
from redis_worker.embedded import EmbeddedServer
from redis_worker.service import refused_topics as refusals
from tests.support import Topic, wait_until


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "_FIRST", 0.5)


@pytest.fixture
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


class Handled:
    """A handler that notes the ids of what it has handled, and lets no message through while its gate is closed."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.begun = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, message: Message) -> None:
        self.begun += 1
        await self.gate.wait()
        self.ids.append(message.id)

    async def all_of(self, *ids: str) -> None:
        await wait_until(lambda: set(ids) <= set(self.ids), f"{ids} in {self.ids}")


async def others_are_handled(server: EmbeddedServer, handled: Handled, topic: str, id: str) -> None:
    async with Publisher(server.url) as publisher:
        await publisher.publish(topic, 1, id=id)
    await handled.all_of(id)


@pytest.mark.parametrize("pattern", ["by name", "by pattern"])
@pytest.mark.parametrize("idempotent", [False, True])
async def test_a_list_that_becomes_a_string_at_run_time(
    server: EmbeddedServer, topic: Topic, caplog: pytest.LogCaptureFixture, pattern: str, idempotent: bool
) -> None:
    redis, key, other, handled = topic.redis, topic.keys.waiting, f"{topic.name}.other", Handled()
    worker = TopicWorker(server.url, lease=2)
    for name in [topic.name, other] if pattern == "by name" else [f"{topic.name}*"]:
        worker.handler(name, idempotent=idempotent, concurrency=2)(handled)
    async with Publisher(server.url) as publisher:
        await publisher.publish(other, 1, id="other1")
        await publisher.publish_many(topic.name, range(4), ids=["a", "b", "c", "d"])
        with caplog.at_level(logging.WARNING):
            async with worker:
                await handled.all_of("a", "b", "c", "d", "other1")
                handled.gate.clear()
                await publisher.publish_many(topic.name, range(4), ids=["e", "f", "g", "h"])
                await wait_until(lambda: handled.begun == 7, "messages in flight")
                async with redis.pipeline(transaction=True) as damage:
                    kept, _ = await damage.lrange(key, 0, -1).set(key, "no list").execute()
                said = f"the topic {topic.name} is not consumed, retrying periodically"
                await wait_until(lambda: said in caplog.text, "the warning")
                handled.gate.set()
                await others_are_handled(server, handled, other, "other2")
                await asyncio.sleep(2)  # it is tried again meanwhile
                assert caplog.text.count(said) == 1
                async with redis.pipeline(transaction=True) as mending:
                    mending.delete(key)
                    if kept:
                        mending.rpush(key, *kept)
                    await mending.execute()
                await handled.all_of("e", "f", "g", "h")
                await wait_until(lambda: worker.counters.succeeded == len(set(handled.ids)), "all to be settled")
                assert f"the topic {topic.name} is consumed again" in caplog.text
    assert await topic.dead() == []
    assert await redis.hlen(topic.keys.attempts) == 0  # nobody was charged
    await forget(topic)


async def forget(topic: Topic) -> None:
    """Delete what is left of topics whose names begin with that of `topic`."""
    async for key in topic.redis.scan_iter(f"*mq:{topic.name}*", count=1000):
        await topic.redis.delete(key)


async def test_a_list_that_is_a_string_at_the_start(
    server: EmbeddedServer, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where it is the only topic."""
    await topic.redis.set(topic.keys.waiting, "no list")
    worker, handled = TopicWorker(server.url), Handled()
    worker.handler(topic.name)(handled)
    with caplog.at_level(logging.WARNING):
        async with worker:
            await wait_until(lambda: f"the topic {topic.name} is not consumed" in caplog.text)
            await topic.redis.delete(topic.keys.waiting)
            await topic.push({"id": "x", "data": 1})
            await handled.all_of("x")


async def test_a_topic_that_is_stopped_is_not_tried_again(server: EmbeddedServer, topic: Topic) -> None:
    await topic.redis.set(topic.keys.waiting, "no list")
    worker, handled = TopicWorker(server.url), Handled()
    worker.handler(topic.name)(handled)
    async with worker:
        await worker.stop_consumer(topic.name)
        await topic.redis.delete(topic.keys.waiting)
        await topic.push({"id": "x", "data": 1})
        await asyncio.sleep(1.5)
        assert handled.ids == []
        with pytest.raises(Refused, match="holds a string, not a list"):
            await topic.redis.rename(topic.keys.waiting, "away")
            await topic.redis.set(topic.keys.waiting, "no list")
            await worker.start_consumer(topic.name)
        await topic.redis.rename("away", topic.keys.waiting)
        await worker.start_consumer(topic.name)
        await handled.all_of("x")


async def user(redis: Redis, *rights: str) -> None:
    await redis.execute_command("ACL", "SETUSER", "limited", "on", ">secret", "&*", *rights)


async def test_a_topic_without_rights_stops_no_other(
    server: EmbeddedServer, topic: Topic, caplog: pytest.LogCaptureFixture
) -> None:
    """Others are handled, and so is this one once it may be read."""
    redis, other, handled = topic.redis, f"{topic.name}.other", Handled()
    await user(redis, "~{mq*", f"~mq:{other}", "+@all")
    worker = TopicWorker(server.url.replace("://", "://limited:secret@"), lease=2)
    worker.handler(topic.name)(handled)
    worker.handler(other)(handled)
    try:
        async with worker:
            await others_are_handled(server, handled, other, "a")
            await wait_until(lambda: f"the topic {topic.name} is not consumed" in caplog.text)
            await user(redis, f"~mq:{topic.name}")
            await topic.push({"id": "b", "data": 1})
            await handled.all_of("b")
    finally:
        await redis.execute_command("ACL", "DELUSER", "limited")
        await forget(topic)


async def no_rights(redis: Redis) -> None:
    await user(redis, "resetkeys")


async def other_password(redis: Redis) -> None:
    await user(redis, "resetpass", ">other")
    await redis.execute_command("CLIENT", "KILL", "USER", "limited")


@pytest.mark.parametrize("change", [no_rights, other_password])
@pytest.mark.parametrize("names", [["{}"], ["{}", "{}.other"], ["{}*"]])
async def test_what_concerns_all_ends_the_worker_with_a_sentence(
    server: EmbeddedServer, topic: Topic, change: Callable[[Redis], Awaitable[None]], names: list[str]
) -> None:
    redis, handled = topic.redis, Handled()
    await user(redis, "~*", "+@all")
    worker = TopicWorker(server.url.replace("://", "://limited:secret@"), lease=2)
    for name in names:
        worker.handler(name.format(topic.name))(handled)
    try:
        running = asyncio.create_task(worker.run())
        await others_are_handled(server, handled, topic.name, "a")
        await change(redis)
        with pytest.raises(Refused, match=r"Redis refuses the (command|login): .*; (grant|check)"):
            await asyncio.wait_for(running, 60)
    finally:
        await redis.execute_command("ACL", "DELUSER", "limited")
        await forget(topic)


async def test_without_rights_at_the_start(server: EmbeddedServer, topic: Topic) -> None:
    await user(topic.redis, "~{mq}:topics", "+@all")
    worker = TopicWorker(server.url.replace("://", "://limited:secret@"))
    worker.handler(topic.name)(Handled())
    try:
        with pytest.raises(Refused, match="grant the user permission"):
            await worker.run()
    finally:
        await topic.redis.execute_command("ACL", "DELUSER", "limited")


@pytest.mark.parametrize("damage", ["a string", "a strange name", "gone"])
async def test_the_registry_of_topics_is_damaged(
    server: EmbeddedServer, topic: Topic, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    redis, handled = topic.redis, Handled()
    worker = TopicWorker(server.url)
    worker.handler(topic.name)(handled)
    worker.default_handler(handled)
    with caplog.at_level(logging.WARNING):
        async with worker:
            await topic.push({"id": "a", "data": 1})
            await handled.all_of("a")
            if damage == "a string":
                await redis.set(TOPICS, "no set")
                await wait_until(lambda: f"the key {TOPICS!r} holds a string, not a set" in caplog.text)
            elif damage == "a strange name":
                await redis.sadd(TOPICS, b"\xff")
                await wait_until(lambda: f"the key {TOPICS!r} has members that are not UTF-8" in caplog.text)
            else:
                await redis.delete(TOPICS)
            await asyncio.sleep(2)
            await topic.push({"id": "b", "data": 1})
            await handled.all_of("b")
            if damage == "a string":
                await redis.delete(TOPICS)
            await others_are_handled(server, handled, f"{topic.name}.new", "c")
    assert sum(TOPICS in record.message for record in caplog.records) == (damage != "gone")
    await forget(topic)


async def test_a_damaged_registry_at_the_start(server: EmbeddedServer, topic: Topic) -> None:
    redis, handled = topic.redis, Handled()
    await redis.set(TOPICS, "no set")
    worker = TopicWorker(server.url)
    worker.handler(topic.name)(handled)
    async with worker:
        await topic.push({"id": "a", "data": 1})
        await handled.all_of("a")
        await redis.delete(TOPICS)
        await wait_until(lambda: redis.exists(TOPICS), "the topic to be known again")
        assert await redis.smembers(TOPICS) == {topic.name.encode()}
