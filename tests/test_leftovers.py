"""The checks after each test: that they find what they look for."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from redis import Redis

from redis_worker.embedded import EmbeddedServer
from tests import leftovers
from tests.leftovers import is_of_a_worker, nothing_left


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "PATIENCE", 0.1)


def test_nothing_is_nothing(first_server: EmbeddedServer) -> None:
    async def work() -> None:
        await asyncio.create_task(asyncio.sleep(0))

    with nothing_left(first_server):
        asyncio.run(work())
        thread = threading.Thread(target=print)
        thread.start()
        thread.join()


def test_a_task_of_an_event_loop() -> None:
    async def work() -> None:
        asyncio.get_running_loop().forgotten = asyncio.create_task(asyncio.sleep(600))

    with pytest.raises(AssertionError, match=r"asyncio tasks left .*sleep"), nothing_left(None):
        asyncio.run(work())
    leftovers.forget_tasks()


def test_a_thread() -> None:
    end = threading.Event()
    with pytest.raises(AssertionError, match=r"threads left: .*test-of-threads"), nothing_left(None):
        thread = threading.Thread(target=end.wait, name="test-of-threads")
        thread.start()
    end.set()
    thread.join()


def test_a_socket() -> None:
    with pytest.raises(AssertionError, match="sockets left"), nothing_left(None):
        held = socket.socket()
    held.close()


def test_a_key(first_server: EmbeddedServer) -> None:
    with Redis.from_url(first_server.url) as redis:
        redis.ping()
        with pytest.raises(AssertionError, match=r"keys left: {'left:behind'}"), nothing_left(first_server):
            redis.set("left:behind", 1)
        redis.delete("left:behind")


def test_keys_of_workers() -> None:
    assert is_of_a_worker("{a}:inflight:w1:tasks")
    assert is_of_a_worker("{a}:workers")
    assert not is_of_a_worker("{a}:dead")
    assert not is_of_a_worker("workers")
