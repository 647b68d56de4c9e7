"""What Redis does not take: the one task it is due to gets an error or a cut letter, all others what is theirs."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from redis_worker import Message, TopicWorker, WorkerPool, processor
from redis_worker.broker.keys import Keys, topic_list
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.embedded import EmbeddedServer
from redis_worker.engine.reconnect import Reconnect
from redis_worker.engine.settler import Settler
from redis_worker.ports import Observer, Unwritten
from redis_worker.vocabulary.errors import Refused, Unacceptable
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import Queue, wait_until

MOST = 1024 * 1024
"""What the server takes."""


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> Iterator[EmbeddedServer]:
    with EmbeddedServer(first_server.binary, options=("--proto-max-bulk-len", str(MOST))) as running:
        yield running


def large(arguments: list[int]) -> str:
    return "x" * arguments[0]


@processor(execution="inline")
def large_inline(arguments: list[int]) -> str:
    return "x" * arguments[0]


@processor(execution="process")
def large_in_process(arguments: list[int]) -> str:
    return "x" * arguments[0]


async def large_coroutine(arguments: list[int]) -> str:
    return "x" * arguments[0]


SIZES = [1, 3 * MOST, 2, 40 * MOST, *[5] * 200, 2 * MOST]


async def _all_are_answered(queue: Queue, pool: WorkerPool) -> None:
    await wait_until(lambda: queue.answered(len(SIZES)))
    for id, result in (await queue.results()).items():
        size = SIZES[int(id)]
        if size < MOST:
            assert result == {"status": "success", "result": "x" * size}
        else:
            assert result["status"] == "error"
            assert str(size + 32) in result["error"]
    guilty = sum(size > MOST for size in SIZES)
    assert (pool.counters.failed, pool.counters.succeeded) == (guilty, len(SIZES) - guilty)
    assert await queue.inflight() == []


@pytest.mark.parametrize("call", [large, large_inline, large_in_process, large_coroutine])
@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_a_result_that_is_too_large(server: EmbeddedServer, queue: Queue, call: Any, delivery: Any) -> None:
    """`_all_are_answered` checks each result: an error for each that is too large, and its own for any other."""
    await queue.push_tasks([[size] for size in SIZES])
    async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", call, delivery=delivery) as pool:
        await _all_are_answered(queue, pool)


async def test_a_reply_that_is_lost_in_the_reset(server: EmbeddedServer, queue: Queue) -> None:
    """redis-py writes first and reads then: it sees ECONNRESET, and the pool was "away" for ever."""
    await queue.push_tasks([[size] for size in SIZES])
    names = (queue.keys.waiting, queue.keys.output, "list")
    async with Redis.from_url(server.url) as client, WorkerPool(client, *names, large) as pool:
        await _all_are_answered(queue, pool)


class Proxy:
    """A proxy that hangs up, without a word, on whoever sends it too much at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_server = await asyncio.open_connection("127.0.0.1", self._port)
        sent = 0

        async def pass_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, limited: bool) -> None:
            nonlocal sent
            try:
                while data := await source.read(65536):
                    sent = sent + len(data) if limited else 0
                    if sent > 2 * MOST:
                        break
                    target.write(data)
            except ConnectionError:
                pass
            finally:
                for end in (writer, to_server[1]):
                    end.transport.abort()

        for task in (pass_on(reader, to_server[1], True), pass_on(to_server[0], writer, False)):
            running = asyncio.create_task(task)
            self._tasks.add(running)
            running.add_done_callback(self._tasks.discard)


async def test_a_proxy_that_hangs_up(server: EmbeddedServer, queue: Queue) -> None:
    await queue.push_tasks([[size] for size in SIZES])
    async with Proxy(server.port) as url:
        async with WorkerPool(url, queue.keys.waiting, queue.keys.output, "list", large_inline) as pool:
            await wait_until(lambda: queue.answered(len(SIZES)))
            assert sum("closes the connection" in str(result) for result in (await queue.results()).values()) >= 2
        assert pool.counters.failed == 3


HOSTILE = b'"' + b"\x01" * 400_000 + b'"'
"""Six times as large in a letter."""


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_a_letter_that_is_too_large(server: EmbeddedServer, queue: Queue, delivery: Any) -> None:
    await queue.push_tasks([[1]] * 50)
    await queue.push(HOSTILE, b"not JSON")
    await queue.push_tasks([[1]] * 50, first=50)
    names = (queue.keys.waiting, queue.keys.output, "list")
    async with WorkerPool(server.url, *names, large_inline, delivery=delivery) as pool:
        await wait_until(lambda: queue.answered(100))
        await wait_until(lambda: pool.counters.dead == 2)
    letters = {letter.get("raw"): letter for letter in await queue.dead()}
    cut = letters[None]
    assert cut["sha256"] == hashlib.sha256(HOSTILE).hexdigest()
    assert cut["size"] == len(HOSTILE)
    assert cut["raw_start"].encode() == HOSTILE[: len(cut["raw_start"])]
    assert cut["reason"].startswith("not JSON")
    assert letters["not JSON"]["reason"].startswith("not JSON")
    async with DeadLetters(server.url, queue.keys.waiting) as dead:
        found = [letter async for letter in dead.letters()]
        assert sorted(letter.cut for letter in found) == [False, True]
        assert await dead.requeue(found) == 1
        assert await queue.waiting() == [b"not JSON"]
        assert await dead.purge(found) == 1


@pytest.fixture
async def topic(redis: Redis) -> AsyncIterator[Keys]:
    keys = Keys(topic_list("large"))
    yield keys
    await redis.flushdb()


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("batch", [False, True])
async def test_a_message_whose_letter_is_too_large(
    server: EmbeddedServer, redis: Redis, topic: Keys, batch: bool, idempotent: bool
) -> None:
    worker = TopicWorker(server.url)
    seen: set[str] = set()

    async def handle(message: Message) -> None:
        seen.add(message.id)
        if message.id == "large":
            raise ValueError("no")

    async def handle_batch(messages: list[Message]) -> dict[str, str]:
        seen.update(message.id for message in messages)
        return {message.id: "no" for message in messages if message.id == "large"}

    if batch:
        worker.batch_handler("large", size=10, within=0.1, idempotent=idempotent)(handle_batch)
    else:
        worker.handler("large", idempotent=idempotent)(handle)
    small = [json.dumps({"id": str(n), "data": n}) for n in range(50)]
    body = json.dumps({"id": "large", "data": '"' * 400_000})
    await redis.rpush(topic.waiting, *small[:25], body, *small[25:])
    async with worker:
        await wait_until(lambda: len(seen - {"large"}) == 50)
        await wait_until(lambda: redis.llen(topic.dead))
    [letter] = await redis.lrange(topic.dead, 0, -1)
    assert json.loads(letter)["sha256"] == hashlib.sha256(body.encode()).hexdigest()
    assert worker.counters.failed == 1


class _Receipt:
    lost = False


class FakeQueue:
    """Takes a settlement only if nothing in it is refused."""

    def __init__(self, guilty: set[str], broken: bool = False) -> None:
        self.guilty = guilty
        self.broken = broken
        self.written: dict[str, bytes | None] = {}
        self.calls = 0

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self.calls += 1
        if self.broken or any(it.id in self.guilty and it.error is None for it in outcomes):
            raise Unwritten([(Unacceptable("too large"), outcomes)], [])
        for outcome in outcomes:
            assert outcome.id is not None
            assert outcome.id not in self.written
            self.written[outcome.id] = outcome.result
        return []


def _outcomes(count: int) -> list[Outcome]:
    return [Outcome(Delivery(b"raw", _Receipt()), str(n), b"result") for n in range(count)]


@pytest.mark.parametrize("guilty", [set(), {"0"}, {"999"}, {"3", "500", "501"}])
async def test_the_guilty_are_set_apart(guilty: set[str]) -> None:
    queue = FakeQueue(guilty)
    settler = Settler(queue, Reconnect(Observer()), Observer())  # type: ignore[arg-type]
    settler.add(_outcomes(1000))
    running = asyncio.create_task(settler.run())
    await settler.flush()
    running.cancel()
    await asyncio.wait({running})
    assert len(queue.written) == 1000
    assert {id for id, result in queue.written.items() if result != b"result"} == guilty
    assert queue.calls <= 1 + 25 * len(guilty)


async def test_what_is_refused_whatever_is_in_it_ends_the_pool_soon() -> None:
    queue = FakeQueue(set(), broken=True)
    settler = Settler(queue, Reconnect(Observer()), Observer())  # type: ignore[arg-type]
    settler.add(_outcomes(1000))
    with pytest.raises(Refused, match="too large"):
        await settler.run()
    assert queue.calls < 20
