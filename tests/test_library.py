"""The library in other people's programs: their clients, their loops, their mistakes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.credentials import CredentialProvider

import redis_worker
from redis_worker import (
    ConfigurationError,
    Disconnected,
    Observer,
    Refused,
    SyncTaskClient,
    TaskClient,
    TaskError,
    WorkerPool,
    start_worker_pool,
)
from redis_worker.broker.keys import QUEUES, Keys
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, ROOT, Queue, wait_until

SUCCESS = b'{"status":"success","result":%d}'


async def double(arguments: list[Any]) -> Any:
    return arguments[0] * 2


def names(queue: Queue) -> tuple[str, str]:
    return queue.keys.waiting, queue.keys.output


# Without a server: the tests that users write


async def test_double() -> None:
    redis = fakeredis.FakeAsyncRedis()
    async with WorkerPool(redis, "in", "out", "list", double), TaskClient(redis, "in", "out") as client:
        assert await client.run([21]) == 42


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}], ids=str)
async def test_everything_works_on_fakeredis(delivery: str, options: dict[str, Any]) -> None:
    redis = fakeredis.FakeAsyncRedis(**options)
    keys = Keys("in", "out")
    pool = WorkerPool(redis, "in", "out", "list", double, 10, delivery=delivery, max_tasks=502)
    async with pool, TaskClient(redis, "in", "out") as client:
        ids = await client.submit_many([[n] for n in range(500)])
        results = {result.id: result.value async for result in client.results(ids, PATIENCE, delete=True)}
        assert [results[id] for id in ids] == [n * 2 for n in range(500)]
        with pytest.raises(TaskError, match="Parse error: task should be a list, got a number"):
            await client.run(1, PATIENCE)
        await client.push_raw([b"unreadable"])
        await wait_until(lambda: pool.counters.processed == 502)
    assert await redis.llen(keys.dead) == 1
    left = {key if isinstance(key, str) else key.decode() for key in await redis.keys()}
    assert left == {keys.dead, QUEUES}
    await redis.aclose()


async def test_a_stop_hands_back_on_fakeredis() -> None:
    async with fakeredis.FakeAsyncRedis() as redis, TaskClient(redis, "in", "out") as client:

        async def forever(arguments: list[Any]) -> None:
            await asyncio.sleep(PATIENCE)

        await client.submit_many([[n] for n in range(5)])
        async with WorkerPool(redis, "in", "out", "list", forever, 2, shutdown_timeout=0) as pool:
            await wait_until(lambda: pool.running == 2)
        assert [json.loads(raw)["task"] for raw in await redis.lrange("in", 0, -1)] == [[n] for n in range(5)]


# Callers' clients


def callers_clients(server: EmbeddedServer) -> dict[str, Redis]:
    def client(**options: Any) -> Redis:
        return Redis(port=server.port, **options)

    return {
        "plain": client(),
        "decoding": client(decode_responses=True),
        "impatient": client(socket_timeout=0.2),
        "protocol 2": client(protocol=2),
        "protocol 3": client(protocol=3, legacy_responses=False),
        "decoding protocol 2": client(protocol=2, decode_responses=True, legacy_responses=False),
        "of one connection": client(single_connection_client=True),
        "with a small pool": Redis.from_pool(BlockingConnectionPool(port=server.port, max_connections=1)),
        "of another encoding": client(encoding="latin-1", decode_responses=True),
        "that checks its health": client(health_check_interval=1),
    }


KINDS = pytest.mark.parametrize("kind", list(callers_clients(EmbeddedServer(port=1))))


@pytest.fixture
async def client_of(server: EmbeddedServer) -> AsyncIterator[Callable[[str], Redis]]:
    clients = callers_clients(server)
    yield clients.__getitem__
    for client in clients.values():
        await client.aclose(close_connection_pool=True)


def ports(client: Redis) -> set[str]:
    """The local ports of a client's connections that are open."""
    pool = client.connection_pool
    connections: list[Any] = [*pool._available_connections, *pool._in_use_connections]
    return {str(c._writer.get_extra_info("sockname")[1]) for c in connections if c.is_connected}


async def blocking_ports(redis: Redis) -> set[str]:
    """The ports of the connections that wait in a blocking pop."""
    clients = await redis.client_list()
    return {client["addr"].rpartition(":")[2] for client in clients if client["cmd"] in ("blmove", "blpop")}


@KINDS
@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
async def test_the_callers_client_is_used_and_left_alone(
    queue: Queue, client_of: Callable[[str], Redis], kind: str, delivery: str
) -> None:
    client = client_of(kind)
    assert await client.ping()
    before = ports(client)
    pool = WorkerPool(client, *names(queue), "list", double, delivery=delivery, max_tasks=52)
    async with pool, TaskClient(client, *names(queue)) as tasks:
        [blocking] = await wait_until(lambda: blocking_ports(queue.redis))
        assert blocking not in ports(client)
        assert await tasks.run(["a😀"], PATIENCE) == "a😀a😀"
        ids = await tasks.submit_many([[n] for n in range(50)])
        results = {result.id: result.value async for result in tasks.results(ids, PATIENCE)}
        assert [results[id] for id in ids] == [n * 2 for n in range(50)]
        assert blocking not in ports(client)
        await tasks.push_raw([b"unreadable"])
        await wait_until(lambda: pool.counters.processed == 52)
    assert pool.counters.reconnects == 0
    assert before <= ports(client)  # not one of its connections has been closed
    assert await client.ping()
    assert await client.hlen(queue.keys.output) == 50


async def test_connections_of_its_own_are_closed(server: EmbeddedServer, queue: Queue) -> None:
    async with Redis(port=server.port, client_name="mine") as client:
        await client.ping()
        pool = WorkerPool(client, *names(queue), "list", double, max_tasks=1)
        async with pool, TaskClient(client, *names(queue)) as tasks:
            assert await tasks.run([1], PATIENCE) == 2
        await wait_until(lambda: _only(client, queue.redis))


async def _only(client: Redis, redis: Redis) -> bool:
    named = [known for known in await redis.client_list() if known["name"] == "mine"]
    return {known["addr"].rpartition(":")[2] for known in named} == ports(client)


async def test_the_database_of_the_callers_client(server: EmbeddedServer) -> None:
    async with Redis(port=server.port, db=5) as client:
        pool = WorkerPool(client, "in", "out", "list", double, max_tasks=1)
        assert pool.address == f"localhost:{server.port}/5"
        async with pool, TaskClient(client, "in", "out") as tasks:
            assert await tasks.run([1], PATIENCE) == 2
        assert await client.keys() == [QUEUES.encode()]
        await client.flushdb()


async def test_a_pool_in_the_foreground(server: EmbeddedServer, queue: Queue) -> None:
    await queue.push_tasks([[n] for n in range(10)])
    async with Redis(port=server.port) as client:
        counters = await start_worker_pool(client, *names(queue), "list", double, burst=True)
    assert counters.succeeded == 10


# The client of tasks


@pytest.fixture
async def client(server: EmbeddedServer, queue: Queue) -> AsyncIterator[TaskClient]:
    async with TaskClient(server.url, *names(queue)) as client:
        yield client
        assert not client._results.get()._waiting, "somebody is still waited for"


async def test_submitting(client: TaskClient, queue: Queue) -> None:
    assert await client.submit([1], "given") == "given"
    assert await client.submit(None, 7) == "7"
    made = await client.submit({"a": 2**70})
    ids = await client.submit_many([n] for n in range(1200))
    assert len(set(ids)) == 1200
    payloads = [json.loads(raw) for raw in await queue.waiting()]
    assert [payload["id"] for payload in payloads] == ["given", 7, made, *ids]
    assert [payload["task"] for payload in payloads] == [[1], None, {"a": 2**70}, *([n] for n in range(1200))]
    assert all(payload["emit_ts"] <= time.time() for payload in payloads)


async def test_what_cannot_be_submitted(client: TaskClient, queue: Queue) -> None:
    for task in ({1, 2}, float("nan"), b"bytes", object()):
        with pytest.raises(ValueError, match="JSON"):
            await client.submit(task)
    assert await queue.waiting() == []


@pytest.mark.parametrize("id", [True, 1.5, b"bytes", ()])
async def test_ids_that_are_none(client: TaskClient, queue: Queue, id: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="an id is a string or an integer"):
        await client.submit([1], id)
    with pytest.raises((TypeError, ValueError), match="an id is a string or an integer"):
        await client.result(id, 0)
    assert await queue.waiting() == []


async def test_results(client: TaskClient, queue: Queue) -> None:
    """Of a foreign worker, which announces nothing."""
    await queue.redis.hset(queue.keys.output, mapping={"7": SUCCESS % 49, "bad": b'{"status":"error","error":"why"}'})
    assert await client.result(7) == await client.result("7") == 49
    with pytest.raises(TaskError, match="task bad: why") as raised:
        await client.result("bad")
    assert (raised.value.id, raised.value.error) == ("bad", "why")
    waiting = asyncio.create_task(client.result("later", PATIENCE))
    await asyncio.sleep(0)
    await queue.redis.hset(queue.keys.output, "later", SUCCESS % 1)
    assert await waiting == 1
    assert await client.result("later", delete=True) == 1
    assert not await queue.redis.hexists(queue.keys.output, "later")
    assert await client.delete([7, "bad", "none"]) == 2


@pytest.mark.parametrize("raw", [b"hello", b"[]", b"{}", b'{"status":"success"}', b'{"status":"other"}', b"\xff"])
async def test_a_result_that_is_none(client: TaskClient, queue: Queue, raw: bytes) -> None:
    await queue.redis.hset(queue.keys.output, "odd", raw)
    with pytest.raises(TaskError, match="the result is not a JSON object"):
        await client.result("odd")


@pytest.mark.parametrize("timeout", [0, 0.05])
async def test_no_result_in_time(client: TaskClient, queue: Queue, timeout: float) -> None:
    with pytest.raises(TimeoutError, match=rf"no result for 1 tasks \(none\) within {timeout:g} s"):
        await client.result("none", timeout)
    await queue.redis.hset(queue.keys.output, mapping={"there": SUCCESS % 1})
    results = client.results(["there", "none", "nor this"], timeout)
    assert (await anext(results)).id == "there"
    with pytest.raises(TimeoutError, match="no result for 2 tasks"):
        await anext(results)


async def test_results_as_they_come_in(client: TaskClient, queue: Queue) -> None:
    results = client.results(["a", "b", "c", "a"], PATIENCE)
    for id in ("b", "c", "a"):
        await queue.redis.hset(queue.keys.output, id, SUCCESS % 1)
        assert (await anext(results)).id == id
    with pytest.raises(StopAsyncIteration):
        await anext(results)


async def test_what_is_given_up_leaves_nothing_behind(client: TaskClient, queue: Queue) -> None:
    waiting = [asyncio.create_task(client.result(f"id{n}")) for n in range(10)]
    await wait_until(lambda: _subscribers(queue))
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(client.result("other"), 0.01)
    results = client.results(["x", "y"])
    await queue.redis.hset(queue.keys.output, "x", SUCCESS % 1)
    assert (await anext(results)).id == "x"
    await results.aclose()
    assert not client._results.get()._waiting


async def _subscribers(queue: Queue) -> int:
    [(_, count)] = await queue.redis.pubsub_numsub(queue.keys.channel)
    return int(count)


async def test_all_who_wait_share_one_subscription(client: TaskClient, queue: Queue) -> None:
    before = len(await queue.redis.client_list())
    waiting = [asyncio.create_task(client.result(n // 2, PATIENCE)) for n in range(200)]
    await wait_until(lambda: _subscribers(queue))
    await queue.redis.hset(queue.keys.output, mapping={str(n): SUCCESS % n for n in range(100)})
    assert await asyncio.gather(*waiting) == [n // 2 for n in range(200)]
    assert await _subscribers(queue) == 1
    # Few connections ask, though all begin at the same time.
    assert len(await queue.redis.client_list()) < before + 40


async def test_results_are_heard_of(server: EmbeddedServer, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are announced; who is not told would look only after a long time here."""
    monkeypatch.setattr("redis_worker.broker.client.results._POLL", 10 * PATIENCE)
    gate = asyncio.Event()

    async def work(arguments: list[Any]) -> Any:
        await gate.wait()
        return arguments[0]

    pool = WorkerPool(server.url, *names(queue), "list", work, max_tasks=1)
    async with pool, TaskClient(server.url, *names(queue)) as client:
        waiting = asyncio.create_task(client.run([5], PATIENCE))
        await wait_until(lambda: _subscribers(queue))
        gate.set()
        assert await waiting == 5


async def _announce(queue: Queue, news: Any) -> None:
    await queue.redis.publish(queue.keys.channel, json.dumps(news))


async def _listening(client: TaskClient, queue: Queue) -> None:
    """Have the client listen, and hear the confirmation of the server."""
    with pytest.raises(TimeoutError):
        await client.result("never", 0.01)
    await wait_until(lambda: client._results.get()._is_subscribed)


async def test_a_lone_result_is_known_before_it_is_awaited(client: TaskClient, queue: Queue) -> None:
    """Its announcement holds it: nobody asks the server."""
    await _listening(client, queue)
    async with WorkerPool(client._address.name, *names(queue), "list", "sum"):
        results = client._results.get()
        ids = []
        for number in range(3):  # one by one: those that end together are announced without results
            ids.append(await client.submit([number]))
            await wait_until(lambda: results._expected.get(ids[-1]))
        await queue.redis.delete(queue.keys.output)
        assert [await client.result(id, PATIENCE) for id in ids] == [0, 1, 2]
        with pytest.raises(TimeoutError):
            await client.result(ids[0], 0.01)  # it was consumed, and the hash is looked at again
        # What was deleted here is not kept either.
        id = await client.submit([1])
        await wait_until(lambda: results._expected.get(id))
        await client.delete([id])
        with pytest.raises(TimeoutError):
            await client.result(id, 0.01)


async def test_the_announced_result_of_an_id_that_may_be_used_again_is_looked_up(
    client: TaskClient, queue: Queue
) -> None:
    """It may be that of an earlier task, late."""
    await _listening(client, queue)
    await client.submit([1], "mine")
    waiting = asyncio.create_task(client.result("mine", PATIENCE))
    await _announce(queue, {"mine": {"status": "success", "result": "of the task before"}})
    await _announce(queue, ["nobody's"])
    await queue.redis.hset(queue.keys.output, "mine", SUCCESS % 1)
    await _announce(queue, ["mine"])
    assert await waiting == 1


async def test_a_result_is_found_after_its_announcement_was_missed(client: TaskClient, queue: Queue) -> None:
    await _listening(client, queue)
    id = await client.submit([1])
    await queue.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    await queue.redis.hset(queue.keys.output, id, SUCCESS % 1)
    assert await client.result(id, PATIENCE) == 1


async def test_results_that_nobody_announces_are_found_among_others(client: TaskClient, queue: Queue) -> None:
    await _listening(client, queue)
    id = await client.submit([1])
    await queue.redis.hset(queue.keys.output, id, SUCCESS % 1)

    async def chatter() -> None:
        while True:
            await _announce(queue, ["another"])
            await asyncio.sleep(0.02)

    talking = asyncio.create_task(chatter())
    assert await client.result(id, PATIENCE) == 1
    talking.cancel()
    await asyncio.wait({talking})


async def test_the_connection_is_cut_while_somebody_waits(client: TaskClient, queue: Queue) -> None:
    waiting = asyncio.create_task(client.result("late", PATIENCE))
    await queue.redis.hset(queue.keys.output, "early", SUCCESS % 1)
    assert await client.result("early", PATIENCE) == 1  # the other one has looked too, and waits
    for _ in range(3):
        await wait_until(lambda: _subscribers(queue))
        await queue.redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        await queue.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until(lambda: _subscribers(queue))
    await queue.redis.hset(queue.keys.output, "late", SUCCESS % 1)
    assert await waiting == 1


async def test_the_output_key_holds_something_else(client: TaskClient, queue: Queue) -> None:
    waiting = asyncio.create_task(client.result("x", PATIENCE))
    await wait_until(lambda: _subscribers(queue))
    await queue.redis.set(queue.keys.output, "text")
    with pytest.raises(Refused, match="another type than it should"):
        await client.result("y")
    with pytest.raises(Refused, match="another type than it should"):
        await waiting
    await queue.redis.delete(queue.keys.output)


class Vault(CredentialProvider):
    """A caller's own way to the password, which may fail."""

    sealed = False

    def get_credentials(self) -> tuple[str, str]:
        if self.sealed:
            raise LookupError("the vault is sealed")
        return "default", "any"


async def test_an_unforeseen_error_reaches_all_who_wait(server: EmbeddedServer, queue: Queue) -> None:
    vault = Vault()
    async with Redis(port=server.port, credential_provider=vault) as redis, TaskClient(redis, *names(queue)) as client:
        # Connections to ask by are made now, the one to listen on later.
        await asyncio.gather(client.submit([1]), client.submit([2]))
        vault.sealed = True
        waiting = [asyncio.create_task(client.result(id, PATIENCE)) for id in ("a", "b")]
        for task in waiting:
            with pytest.raises(LookupError, match="the vault is sealed"):
                await task
        vault.sealed = False
        late = asyncio.create_task(client.result("a", PATIENCE))
        await wait_until(lambda: _subscribers(queue))
        await queue.redis.hset(queue.keys.output, "a", SUCCESS % 1)
        assert await late == 1


async def test_who_gives_up_takes_nothing_from_others(client: TaskClient, queue: Queue) -> None:
    """One has been brought two results and took one; the other begins to wait for the second."""
    await queue.redis.hset(queue.keys.output, mapping={"a": SUCCESS % 1, "b": SUCCESS % 2})
    results = client.results(["a", "b"], PATIENCE)
    left = {"a", "b"} - {(await anext(results)).id}
    await queue.redis.delete(queue.keys.output)
    waiting = asyncio.create_task(client.result(*left, PATIENCE))
    await asyncio.sleep(0.05)
    await results.aclose()
    await queue.redis.hset(queue.keys.output, *left, SUCCESS % 3)
    assert await waiting == 3


async def test_two_clients_of_one_queue(server: EmbeddedServer, client: TaskClient, queue: Queue) -> None:
    async with TaskClient(server.url, *names(queue)) as other:
        waiting = [asyncio.create_task(each.result("both", PATIENCE)) for each in (client, other)]
        await asyncio.sleep(0)
        await queue.redis.hset(queue.keys.output, "both", SUCCESS % 1)
        assert await asyncio.gather(*waiting) == [1, 1]


async def test_no_server_for_the_client() -> None:
    async with TaskClient("redis://127.0.0.1:1", "in", "out") as client:
        with pytest.raises(Disconnected):
            await client.submit([1])
        with pytest.raises(Disconnected):
            await client.result("x", 0)


async def test_no_server_for_who_waits_without_end() -> None:
    async with TaskClient("redis://127.0.0.1:1", "in", "out") as client:
        waiting = asyncio.create_task(client.result("x"))
        done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
        waiting.cancel()
        assert done
        assert isinstance(waiting.exception(), Disconnected)


async def test_closing_while_somebody_waits(server: EmbeddedServer, queue: Queue) -> None:
    client = TaskClient(server.url, *names(queue))
    waiting = asyncio.create_task(client.result("x"))
    await wait_until(lambda: _subscribers(queue))
    await client.close()
    done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
    waiting.cancel()
    assert done
    assert waiting.exception() is not None


async def test_results_are_looked_for_where_no_connection_is_left_to_listen_on(own_server: EmbeddedServer) -> None:
    async with Redis(port=own_server.port) as redis, TaskClient(own_server.url, "in", "out") as client:
        await asyncio.gather(client.submit([1]), client.submit([2]))  # connections to ask by
        await redis.config_set("maxclients", len(await redis.client_list()))
        waiting = asyncio.create_task(client.result("x", PATIENCE))
        await asyncio.sleep(0.5)
        await redis.hset("out", "x", SUCCESS % 1)
        assert await waiting == 1
        assert not await redis.pubsub_channels()


async def test_the_timeout_holds_when_the_server_hangs(own_server: EmbeddedServer) -> None:
    async with TaskClient(own_server.url, "in", "out") as client:
        with pytest.raises(TimeoutError):
            await client.result("x", 0.01)
        os.kill(own_server.pid, signal.SIGSTOP)
        try:
            waiting = asyncio.create_task(client.result("x", 0.1))
            done, _ = await asyncio.wait({waiting}, timeout=PATIENCE)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert done
        finally:
            os.kill(own_server.pid, signal.SIGCONT)
        assert isinstance(waiting.exception(), TimeoutError)


# The client without a loop


@pytest.fixture
def pool_in_a_thread(server: EmbeddedServer, queue: Queue) -> Iterator[WorkerPool]:
    """A pool in the loop of a thread."""
    pools: list[WorkerPool] = []
    working = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = WorkerPool(server.url, *names(queue), "list", double)
        async with pool:
            pools.append(pool)
            stopped = asyncio.Event()
            stops.append(lambda: loop.call_soon_threadsafe(stopped.set))
            working.set()
            await stopped.wait()

    stops: list[Callable[[], Any]] = []
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert working.wait(PATIENCE)
    yield pools[0]
    stops[0]()
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def test_a_pool_in_a_thread_and_a_client_without_a_loop(
    server: EmbeddedServer, queue: Queue, pool_in_a_thread: WorkerPool
) -> None:
    await asyncio.to_thread(_use_sync_client, server.url, names(queue))
    await wait_until(lambda: pool_in_a_thread.counters.processed == 13)
    assert await queue.results() == {}


def _use_sync_client(url: str, names: tuple[str, str]) -> None:
    with SyncTaskClient(url, *names) as client:
        assert client.run([21], PATIENCE) == 42
        id = client.submit([1])
        assert client.result(id, PATIENCE) == 2
        with pytest.raises(TaskError, match="Parse error"):
            client.run("text")
        ids = client.submit_many([n] for n in range(10))
        assert {result.id: result.value for result in client.results(ids, PATIENCE)} == dict(
            zip(ids, range(0, 20, 2), strict=True)
        )
        results = client.results([*ids, "never"], PATIENCE)
        assert next(results).id in ids
        results.close()  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            client.result("never", 0.01)
        assert client.delete([id, *ids]) == 11


MISUSE = """
import asyncio, gc, sys
from redis_worker import SyncTaskClient
url = sys.argv[1]

def refused(call, *arguments):
    try:
        call(*arguments)
    except Exception as error:
        print(type(error).__name__, error)

async def inside():
    {misuse}

{outside}
asyncio.run(asyncio.sleep(0))
gc.collect()
"""


@pytest.mark.parametrize(
    ("inside", "outside", "said"),
    [
        ("client = SyncTaskClient(url, 'in', 'out'); refused(client.submit, [1]); client.close()", "asyncio.run(inside())",  # noqa: E501
         "use TaskClient"),
        ("refused(client.submit, [1])", "client = SyncTaskClient(url, 'in', 'out'); asyncio.run(inside()); client.close()",  # noqa: E501
         "use TaskClient"),
        ("", "client = SyncTaskClient(url, 'in', 'out'); client.close(); client.close(); refused(client.submit, [1])",
         "closed"),
        ("", "refused(SyncTaskClient, 'localhost', 'in', 'out')", "must begin with one of"),
    ],
    ids=["made in a loop", "used in a loop", "used after its end", "a wrong URL"],
)  # fmt: skip
def test_misuse_of_the_client_without_a_loop(
    server: EmbeddedServer, tmp_path: Path, inside: str, outside: str, said: str
) -> None:
    """One sentence, and no warning."""
    program = tmp_path / "program.py"
    program.write_text(MISUSE.replace("{misuse}", inside or "pass").replace("{outside}", outside))
    ended = run(program, server.url)
    assert (ended.returncode, ended.stderr) == (0, "")
    [line] = ended.stdout.splitlines()
    assert said in line


# A busy machine is slow, of which asyncio's debug mode warns: what is looked for here are errors.
DEV = """
import logging, runpy, sys
logging.getLogger("asyncio").setLevel(logging.ERROR)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", DEV, str(program), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)


# Options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"concurrency": 0}, "concurrency must be at least 1, got 0"),
        ({"max_deliveries": 0}, "max_deliveries must be at least 1, got 0"),
        ({"max_tasks": 0}, "max_tasks must be at least 1, got 0"),
        ({"lease": 1}, "lease must be at least 2, got 1"),
        ({"lease": float("nan")}, "lease must be a number of seconds, .*got nan"),
        ({"connect_timeout": -1}, "connect_timeout must not be negative, got -1"),
        ({"shutdown_timeout": -1}, "shutdown_timeout must not be negative, got -1"),
        ({"delivery": "exactly-once"}, "delivery must be at-least-once or at-most-once, got 'exactly-once'"),
        ({"execution": "fast"}, "execution must be one of auto, async, inline, thread, process, got 'fast'"),
        ({"timeout": 0}, "the time limit must be above 0 seconds, got 0"),
        ({"execution": "thread"}, "a coroutine function cannot run as thread"),
        ({"colour": "red", "burst": True}, "unknown option 'colour'; a pool has concurrency, max_deliveries, "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_that_cannot_be(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        WorkerPool("redis://localhost", "in", "out", "list", double, **options)


def test_what_else_cannot_be() -> None:
    for arguments, sentence in (
        (("redis://localhost", "same", "same", "list", double), "the input list and the output hash are both named"),
        (("redis://localhost", "in", "out", "lst", double), "unknown parser 'lst': did you mean list"),
        (("redis://localhost", "in", "out", "list", "summ"), "unknown processor 'summ': did you mean sum"),
        (("localhost", "in", "out", "list", double), "must begin with one of redis://"),
        ((None, "in", "out", "list", double), "redis must be a URL or a redis.asyncio client, got builtins.NoneType"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            WorkerPool(*arguments)  # type: ignore[arg-type]


# Manners


async def test_no_signal_handler_is_installed_and_no_logging_configured(server: EmbeddedServer, queue: Queue) -> None:
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)
    signals = [signal.getsignal(number) for number in handled]
    loggers = [logging.getLogger(), logging.getLogger("redis_worker"), logging.getLogger("redis")]
    before = [(logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers]
    switches = sys.getswitchinterval(), sys.excepthook, threading.excepthook, asyncio.get_event_loop_policy()
    pool = WorkerPool(server.url, *names(queue), "list", double, max_tasks=1)
    async with pool, TaskClient(server.url, *names(queue)) as client:
        assert await client.run([1], PATIENCE) == 2
        assert [signal.getsignal(number) for number in handled] == signals
    assert [signal.getsignal(number) for number in handled] == signals
    assert [(logger.level, list(logger.handlers), logger.propagate, logger.disabled) for logger in loggers] == before
    assert switches == (
        sys.getswitchinterval(), sys.excepthook, threading.excepthook, asyncio.get_event_loop_policy(),
    )  # fmt: skip


async def test_two_pools_in_one_loop(server: EmbeddedServer, queue: Queue) -> None:
    """One feeds the other: the output of no pool is the input of another, so a processor submits."""
    first, second = names(queue)
    async with TaskClient(server.url, f"{first}:2", second) as onward:

        async def pass_on(arguments: list[Any]) -> Any:
            return await onward.run([arguments[0] + 1], PATIENCE)

        async with (
            WorkerPool(server.url, first, second, "list", pass_on, 10, max_tasks=20) as outer,
            WorkerPool(server.url, f"{first}:2", second, "list", double, 10, max_tasks=20) as inner,
            TaskClient(server.url, first, second) as client,
        ):
            values = await asyncio.gather(*(client.run([n], PATIENCE) for n in range(20)))
            assert values == [(n + 1) * 2 for n in range(20)]
            await wait_until(lambda: outer.counters.processed == inner.counters.processed == 20)
    assert await queue.results() == {}


async def test_no_thread_and_no_task_is_left(server: EmbeddedServer, queue: Queue) -> None:
    threads = set(threading.enumerate())
    for execution, processor in (("async", double), ("thread", _plain), ("inline", _plain)):
        pool = WorkerPool(server.url, *names(queue), "list", processor, execution=execution, max_tasks=1)
        async with pool, TaskClient(server.url, *names(queue)) as client:
            assert await client.run([1], PATIENCE) == 2
    # The loop's own threads, which look up host names, end with the loop.
    await wait_until(lambda: all(t in threads or t.name.startswith("asyncio_") for t in threading.enumerate()))
    assert asyncio.all_tasks() == {asyncio.current_task()}


def _plain(arguments: list[Any]) -> Any:
    return arguments[0] * 2


class Broken(Observer):
    """Raises at every event, and counts them."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        if name not in vars(Observer) or name.startswith("_"):
            return super().__getattribute__(name)

        def fail(*_: object) -> None:
            self.events[name] += 1
            raise RuntimeError(f"broken at {name}")

        return fail


async def test_observers_that_raise_break_nothing(
    server: EmbeddedServer, queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    pool = WorkerPool(server.url, *names(queue), "list", double, observers=[broken])
    async with pool, TaskClient(server.url, *names(queue)) as client:
        ids = await client.submit_many([[n] for n in range(100)])
        assert len([result async for result in client.results(ids, PATIENCE)]) == 100
        await queue.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        with contextlib.suppress(Disconnected):
            await client.submit([1])
        ids = await client.submit_many([[n] for n in range(50)])
        assert len([result async for result in client.results(ids, PATIENCE)]) == 50
    assert broken.events["claimed"]
    assert broken.events["settled"]
    assert "the observer Broken raised an exception; the work continues" in caplog.text
    assert "RuntimeError: broken at claimed" in caplog.text
    assert pool.counters.processed >= 150  # and one more, if its connection was found again in time


class Outages(Observer):
    """Remembers why the server was away."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def disconnected(self, error: Exception, delay: float) -> None:
        self.reasons.append(str(error))


async def test_a_full_server_is_waited_for(own_server: EmbeddedServer) -> None:
    """While it has no memory left, it lets nobody claim; what runs meanwhile finishes."""
    outages = Outages()
    gate = asyncio.Event()

    async def work(arguments: list[Any]) -> Any:
        await gate.wait()
        return arguments[0]

    async with Redis(port=own_server.port) as redis:
        queue = Queue(redis, Keys("in", "out"))
        pool = WorkerPool(own_server.url, "in", "out", "list", work, 20, observers=[outages], max_tasks=20)
        async with pool:
            await queue.push_tasks([[n] for n in range(10)])
            await wait_until(lambda: pool.running == 10)
            await redis.config_set("maxmemory", "1")
            await wait_until(lambda: outages.reasons)
            assert "used memory > 'maxmemory'" in outages.reasons[0]
            gate.set()
            await redis.config_set("maxmemory", "0")
            await queue.push_tasks([[n] for n in range(10, 20)], first=10)
            await wait_until(lambda: pool.counters.processed == 20)
        assert await queue.ledger() == dict.fromkeys(map(str, range(20)), 1)


# Programs that end, in whatever way, and say nothing about it

PROGRAM = """
import asyncio, sys
from redis_worker import TaskClient, WorkerPool, start_worker_pool

url, names = sys.argv[1], sys.argv[2:]

async def work(arguments):
    await asyncio.sleep(arguments[0])

def pool(**options):
    return WorkerPool(url, *names, "list", work, shutdown_timeout=0, **options)

async def running(pool):
    while pool.running < 4:
        await asyncio.sleep(0.01)

async def main():
    async with TaskClient(url, *names) as client:
        await client.submit_many([[600]] * 10)
    {ending}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("async with pool() as it: await running(it)", 0),
        ("async with pool() as it: await running(it); raise SystemExit(3)", 3),
        ("async with pool() as it: await running(it); asyncio.get_running_loop().call_soon(sys.exit, 3); "
         "await asyncio.sleep(600)", 3),
        ("it = pool(); task = asyncio.create_task(it.run()); await running(it)", 0),
        ("task = asyncio.create_task(start_worker_pool(url, *names, 'list', work)); await asyncio.sleep(0)", 0),
        ("it = await pool().__aenter__(); await running(it)", 0),
        ("it = pool()", 0),
    ],
    ids=["with", "raising", "exiting in a callback", "a task left", "a task hardly begun", "a pool left", "not run"],
)  # fmt: skip
def test_the_program_ends(server: EmbeddedServer, tmp_path: Path, ending: str, status: int) -> None:
    import redis

    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("{ending}", ending))
    ended = run(program, server.url, "end:in", "end:out")
    assert (ended.returncode, ended.stderr, ended.stdout) == (status, "", "")
    with redis.Redis(port=server.port) as client:
        assert client.llen("end:in") == 10
        assert list(client.keys("*end:*")) == [b"end:in"]
        client.flushall()


def test_the_names_of_the_package() -> None:
    for name in redis_worker.__all__:
        if name not in ("CallNext", "Duration"):  # an alias of types has no module
            assert getattr(redis_worker, name).__module__.startswith("redis_worker.")
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        redis_worker.other  # noqa: B018
