"""At most once: a dead letter whose reply was lost is sent again, and stored once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.queue.at_most_once import AtMostOnceQueue
from redis_worker.broker.queue.settlement import Limits
from redis_worker.embedded import EmbeddedServer
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import Disconnected
from redis_worker.vocabulary.task import Delivery, Outcome
from tests.support import Queue


class _Unlucky(Connection):
    """A connection that loses replies, and requests."""

    replies_to_lose = requests_to_lose = 0

    async def run(self, name: str, *arguments: Any, **options: Any) -> Any:
        if name == "bury" and self.requests_to_lose:
            self.requests_to_lose -= 1
            raise Disconnected("the request was lost")
        reply = await super().run(name, *arguments, **options)
        if name == "bury" and self.replies_to_lose:
            self.replies_to_lose -= 1
            raise Disconnected("the reply was lost")
        return reply


@pytest.fixture
async def unlucky(server: EmbeddedServer) -> AsyncIterator[_Unlucky]:
    connection = _Unlucky(address_of(server.url).open(), owned=True)
    yield connection
    await connection.close()


@pytest.mark.parametrize(("replies", "requests"), [(0, 0), (1, 0), (3, 0), (0, 1), (0, 2), (2, 2)])
async def test_each_letter_is_stored_once(unlucky: _Unlucky, queue: Queue, replies: int, requests: int) -> None:
    unlucky.replies_to_lose, unlucky.requests_to_lose = replies, requests
    at_most_once = AtMostOnceQueue(unlucky, unlucky, queue.keys, Observer(), Limits(dead=10_000))
    receipt = at_most_once._receipt
    # Two of them are equal: they are two tasks.
    dead = [Outcome(Delivery(raw, receipt), None, None, "no JSON", dead=True) for raw in (b"one", b"two", b"two")]

    while True:
        try:
            await at_most_once.settle(dead)
        except Disconnected:
            continue  # as the settler does, with a pause
        break
    more = [Outcome(Delivery(b"two", receipt), None, None, "no JSON", dead=True)]
    await at_most_once.settle(more)

    assert [letter["raw"] for letter in await queue.dead()] == ["one", "two", "two", "two"]
