"""Every way of naming a Redis, with real servers: Cluster, Sentinel, TLS, Unix sockets, passwords and rights."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from redis.asyncio import Redis, RedisCluster, Sentinel
from redis.crc import key_slot

from redis_worker import (
    ConfigurationError,
    Disconnected,
    Refused,
    TaskClient,
    TaskQueue,
    Unreachable,
    WorkerPool,
    chain,
)
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import QUEUES, Keys
from redis_worker.broker.operator.doctor import server_checks
from redis_worker.broker.operator.doctor.examination import examine
from redis_worker.broker.operator.status import StatusReader
from redis_worker.embedded import HOST, EmbeddedServer
from tests.session import free_port
from tests.support import PATIENCE, WorkerProcess, hold, wait_until
from tests.tls import Certificates, make_certificates, tls_in_front_of

SECRET = "hush-hush"
NAMES = ("{q}:in", "{q}:out")
# In a cluster of three these lie on different nodes.
APART = ("one:in", "two:out")


async def double(arguments: list[Any]) -> Any:
    return arguments[0] * 2


async def works(redis: Any, names: tuple[str, str] = NAMES, count: int = 200) -> WorkerPool:
    """Have a pool process tasks, failing ones and unreadable ones too, and a client collect the results."""
    pool = WorkerPool(redis, *names, "list", double, 10, max_tasks=count + 2)
    async with pool, TaskClient(redis, *names) as client:
        assert await client.run([21], PATIENCE) == 42
        ids = await client.submit_many([[n] if n % 10 else {} for n in range(count)])
        await client.push_raw([b"unreadable"])
        results = {result.id: result async for result in client.results(ids, PATIENCE, delete=True)}
        assert [results[id].value for id in ids] == [n * 2 if n % 10 else None for n in range(count)]
        await wait_until(lambda: pool.counters.processed == count + 2)
    assert (pool.counters.failed, pool.counters.dead) == (count // 10 + 1, 1)
    assert pool.counters.reconnects == 0
    return pool


async def left_behind(redis: Any, names: tuple[str, str] = NAMES) -> list[str]:
    """Which keys there are of the queue, but for its dead letters, which are deleted."""
    keys = Keys(*names)
    assert await redis.delete(keys.dead) == 1
    return [
        key for key in (*names, keys.workers, keys.presence, keys.retired, keys.attempts) if await redis.exists(key)
    ]


# Redis Cluster


class Cluster:
    """A cluster of a few masters, each a process."""

    def __init__(self, nodes: list[EmbeddedServer]) -> None:
        self.nodes = nodes
        self.url = f"redis+cluster://{HOST}:{nodes[0].port}"
        for index, node in enumerate(nodes):
            first, last = (16384 * edge // len(nodes) for edge in (index, index + 1))
            self.command(node, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            self.command(node, "CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            for other in nodes[:index]:
                self.command(node, "CLUSTER", "MEET", HOST, other.port)
        self.wait_until(lambda: all(map(self.sees_all, nodes)))

    def add_replica(self, replica: EmbeddedServer, master: EmbeddedServer) -> None:
        """Have an empty node follow a master."""
        self.command(replica, "CLUSTER", "MEET", HOST, master.port)
        self.nodes.append(replica)
        self.wait_until(lambda: all(map(self.sees_all, self.nodes)))
        self.command(replica, "CLUSTER", "REPLICATE", self.id(master))
        self.wait_until(lambda: b"master_link_status:up" in self.command(replica, "INFO replication"))

    def wait_until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, "the cluster did not come up"
            time.sleep(0.02)

    def command(self, node: EmbeddedServer, *command: Any) -> Any:
        with redis_py.Redis(port=node.port) as client:
            return client.execute_command(*command)

    def sees_all(self, node: EmbeddedServer) -> bool:
        try:
            state = self.command(node, "CLUSTER", "INFO").decode().split()
        except redis_py.ConnectionError:
            return False
        return "cluster_state:ok" in state and f"cluster_known_nodes:{len(self.nodes)}" in state

    def id(self, node: EmbeddedServer) -> str:
        return str(self.command(node, "CLUSTER", "MYID").decode())

    def node_of(self, key: str) -> EmbeddedServer:
        slot = key_slot(key.encode())
        for first, last, (_, port, *_), *_ in self.command(self.nodes[0], "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"slot {slot} belongs to nobody")

    def migrate(self, key: str) -> None:
        """Move the slot of `key` to another node, with all that is in it, as `redis-cli --cluster reshard` does."""
        slot, source = key_slot(key.encode()), self.node_of(key)
        target = next(node for node in self.nodes if node is not source)
        self.command(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self.command(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        while keys := self.command(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            self.command(source, "MIGRATE", HOST, target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            self.command(node, "CLUSTER", "SETSLOT", slot, "NODE", self.id(target))


@contextlib.contextmanager
def cluster_nodes(binary: Path, count: int, timeout: float = PATIENCE) -> Iterator[list[EmbeddedServer]]:
    """Nodes of a cluster to be: one that is silent for `timeout` seconds is dead to the others."""
    options = (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", str(int(timeout * 1000))),
        *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
    )
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(EmbeddedServer(binary, options=options)) for _ in range(count)]


@pytest.fixture(scope="module")
def cluster(server: EmbeddedServer) -> Iterator[Cluster]:
    with cluster_nodes(server.binary, 3) as nodes:
        yield Cluster(nodes)


def cluster_client(cluster: Cluster) -> RedisCluster:
    return RedisCluster(HOST, cluster.nodes[-1].port)


@pytest.mark.parametrize("names", [NAMES, APART], ids=["one slot", "two slots"])
async def test_a_cluster_by_its_url(cluster: Cluster, names: tuple[str, str]) -> None:
    pool = await works(cluster.url, names)
    assert pool.address == cluster.url
    async with cluster_client(cluster) as client:
        assert await left_behind(client, names) == []


@pytest.mark.parametrize("options", [{}, {"decode_responses": True, "protocol": 2}], ids=["plain", "decoding"])
async def test_a_cluster_by_the_callers_client(cluster: Cluster, options: dict[str, Any]) -> None:
    async with RedisCluster(HOST, cluster.nodes[1].port, **options) as client:
        await works(client, APART)
        assert await left_behind(client, APART) == []  # the client is open
        assert any(connection.is_connected for node in client.get_nodes() for connection in node._connections)


async def test_flows_and_passed_on_results_need_one_slot(cluster: Cluster) -> None:
    for name, is_one in (("{flows}", True), ("flows", False)):
        tasks = TaskQueue(cluster.url, name)
        add = tasks.task(_add)
        if is_one:
            async with tasks.worker():
                assert await (await chain(add.call(1), add, add).submit()).result(PATIENCE) == 4
        else:
            with pytest.raises(ConfigurationError, match="name the queue 'flows' with a hash tag"):
                await add.options(after=add.handle("1")).submit(1)
        await tasks.close()
    async with TaskClient(cluster.url, "{q}:next", NAMES[1]) as client, TaskClient(cluster.url, *NAMES) as first:
        id = await first.submit([1, 2])
        async with (
            WorkerPool(cluster.url, *NAMES, "list", "sum", forward="{q}:next"),
            WorkerPool(cluster.url, "{q}:next", NAMES[1], "any", lambda values: values[0]),
        ):
            assert await client.result(id, PATIENCE, delete=True) == 3
    async with cluster_client(cluster) as redis:
        await redis.delete("{flows}:results")
    with pytest.raises(ConfigurationError, match="results are passed on only within one slot"):
        await WorkerPool(cluster.url, *NAMES, "list", "sum", forward="elsewhere").run()


async def _add(left: int, right: int = 1) -> int:
    return left + right


async def test_priorities_in_a_cluster(cluster: Cluster) -> None:
    """All lists lie in the slot of the queue, and a push to each wakes a worker."""
    keys, priorities = Keys(*APART), {"high": 3, "default": 2, "low": 1}
    async with (
        TaskClient(cluster.url, *APART, priorities=priorities) as client,
        WorkerPool(cluster.url, *APART, "list", double, priorities=priorities) as pool,
    ):
        for name in priorities:
            assert await client.result(await client.submit([1], priority=name), PATIENCE, delete=True) == 2
            later = await client.submit([2], priority=name, delay=0.01)
            assert await client.result(later, PATIENCE, delete=True) == 4
        await wait_until(lambda: pool.counters.succeeded == 6)
    async with cluster_client(cluster) as redis:
        await redis.delete(keys.announced)


async def test_in_two_slots_the_result_comes_first_and_the_acknowledgement_after(cluster: Cluster) -> None:
    keys = Keys(*APART)
    node = cluster.node_of(keys.waiting)
    assert node is not cluster.node_of(keys.output)
    gate = asyncio.Event()

    async def work(arguments: list[Any]) -> None:
        await gate.wait()

    async with cluster_client(cluster) as client:
        async with WorkerPool(cluster.url, *APART, "list", work, max_tasks=1) as pool:
            await client.rpush(keys.waiting, b'{"id":1,"task":[]}')
            await wait_until(lambda: pool.running == 1)
            os.kill(node.pid, signal.SIGSTOP)
            try:
                gate.set()
                await wait_until(lambda: client.hexists(keys.output, "1"))
                assert pool.counters.processed == 0
            finally:
                os.kill(node.pid, signal.SIGCONT)
            await wait_until(lambda: pool.counters.processed == 1)
        await client.delete(keys.output)


async def test_killed_in_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    keys = Keys(*APART)
    processes = [WorkerProcess(cluster.url, keys, "--lease", "2", processor="tests.processors:gate") for _ in range(2)]
    first, second = processes
    try:
        async with cluster_client(cluster) as client:
            await first.started()
            await client.rpush(keys.waiting, f'{{"id":1,"task":["{tmp_path}"]}}')
            await wait_until(lambda: second.alive and (tmp_path / "running").exists())
            [pid] = map(int, (tmp_path / "running").read_text().split())
            victim, other = (first, second) if pid == first.pid else (second, first)
            victim.kill()
            (tmp_path / "open").touch()
            await wait_until(lambda: client.hexists(keys.output, "1"))
            assert await client.hget(keys.output, "1") == b'{"status":"success","result":%d}' % other.pid
            await wait_until(lambda: "recovered 1 tasks" in other.log)
            other.signal(signal.SIGTERM)
            assert await other.ended() == 0
            await client.delete(keys.output, keys.retired)
    finally:
        for process in processes:
            process.close()


async def test_the_status_of_queues_on_several_nodes(cluster: Cluster) -> None:
    assert cluster.node_of(APART[0]) is not cluster.node_of(APART[1])
    pools = [WorkerPool(cluster.url, input_key, "results", "list", double) for input_key in APART]
    async with cluster_client(cluster) as client:
        await client.delete(QUEUES)  # of other tests
        for name in APART:
            await client.delete(f"{{{name}}}:workers", f"{{{name}}}:claimants", f"{{{name}}}:retired")
    async with pools[0], pools[1], StatusReader(cluster.url) as reader:
        await wait_until(lambda: _described(reader, 2))
        found = await reader.read()
        assert [(queue.name, queue.workers) for queue in found.queues] == [(name, 1) for name in sorted(APART)]


async def _described(reader: StatusReader, count: int) -> bool:
    return sum(worker.host is not None for worker in (await reader.read()).workers) == count


async def test_braces_that_are_no_tag_are_refused_in_a_cluster(cluster: Cluster) -> None:
    with pytest.raises(ConfigurationError, match=r"'a}b' cannot be used: its braces are not a hash tag"):
        await WorkerPool(cluster.url, "a}b", "out", "list", double).run()


async def test_the_doctor_in_a_cluster(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of the server is said of one node; queues and outputs are found wherever they lie."""
    monkeypatch.setattr(server_checks, "_NEAR", PATIENCE)  # a busy machine is no server far away
    async with cluster_client(cluster) as client:
        await client.zadd("{one:in}:workers", {"buried": 1})
        await hold(client, Keys("one:in"), "buried", b"task")
        examination = await examine(cluster.url, [*APART, "a}b"], APART[1:])
        await client.delete("{one:in}:workers", Keys("one:in").inflight("buried"))
    assert [(found.level, found.subject) for found in examination.findings if found.level != "good"] == [
        ("warning", "persistence (one node)"),
        ("fault", "queue one:in: workers"),
        ("fault", "queue a}b"),
    ]
    assert len([found for found in examination.findings if found.subject.endswith(" (one node)")]) == 10
    assert examination.findings[-1].what == "results: 0"
    assert "in Redis Cluster their workers poll" in str(examination.findings)


async def test_a_slot_moves_to_another_node_while_the_pool_works(cluster: Cluster) -> None:
    ids: list[str] = []

    async def submit(client: TaskClient) -> None:
        for _ in range(50):
            with contextlib.suppress(Disconnected):
                ids.append(await client.submit([1], f"task{len(ids)}"))

    async with WorkerPool(cluster.url, *NAMES, "list", double), TaskClient(cluster.url, *NAMES) as client:
        for _ in range(3):
            await asyncio.gather(submit(client), asyncio.to_thread(cluster.migrate, NAMES[0]))
        await submit(client)
        assert {result.id async for result in client.results(ids, PATIENCE, delete=True)} == set(ids)
    async with cluster_client(cluster) as redis:
        assert not await redis.exists(NAMES[0])
        assert not await redis.exists(Keys(*NAMES).workers)
        await redis.delete(Keys(*NAMES).retired)


@pytest.mark.parametrize("names", [NAMES, APART], ids=["one slot", "two slots"])
async def test_results_are_heard_of_in_a_cluster(
    cluster: Cluster, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are announced; who is not told would look only after a long time here."""
    monkeypatch.setattr("redis_worker.broker.client.results._POLL", 10 * PATIENCE)
    gate = asyncio.Event()

    async def work(arguments: list[Any]) -> Any:
        await gate.wait()
        return arguments[0]

    def subscribed() -> bool:
        replies = [cluster.command(node, "PUBSUB", "NUMSUB", Keys(*names).channel) for node in cluster.nodes]
        return any(count for _, count in replies)

    async with WorkerPool(cluster.url, *names, "list", work, max_tasks=1), TaskClient(cluster.url, *names) as client:
        waiting = asyncio.create_task(client.run([5], PATIENCE))
        await wait_until(subscribed)
        gate.set()
        assert await waiting == 5


async def test_a_node_dies_and_its_replica_takes_over(server: EmbeddedServer) -> None:
    """`answers_after` gets each answer; the pool has reconnected."""
    with cluster_nodes(server.binary, 4, timeout=1.0) as [*masters, replica]:
        cluster = Cluster(masters)
        master = cluster.node_of(NAMES[0])
        cluster.add_replica(replica, master)
        url = f"redis+cluster://{HOST}:{master.port}"  # of all nodes the one that dies
        async with WorkerPool(url, *NAMES, "list", double) as pool, TaskClient(url, *NAMES) as client:
            await answers_after(client, master)
            await wait_until(lambda: pool.counters.reconnects)


async def answers_after(client: TaskClient, master: EmbeddedServer) -> None:
    """Tasks are answered before and after the death of a master, and who waits then goes on waiting.

    A sentinel that a machine has held up does nothing for 30 seconds after that.
    """
    ids = await client.submit_many([[n] for n in range(100)])
    assert {result.id async for result in client.results(ids, PATIENCE)} == set(ids)
    results = client.results([await client.submit([1]), "late"], 3 * PATIENCE)
    assert (await anext(results)).value == 2  # it has looked, and now waits
    awaited = asyncio.ensure_future(anext(results))
    os.kill(master.pid, signal.SIGKILL)

    async def submitted() -> bool:
        with contextlib.suppress(Disconnected):
            return await client.submit([21], "late") == "late"
        return False  # nobody has taken over yet

    await wait_until(submitted, "somebody to take over", 2 * PATIENCE)
    assert (await awaited).value == 42
    await results.aclose()


async def test_a_whole_cluster_goes_away_while_somebody_waits(server: EmbeddedServer) -> None:
    with EmbeddedServer(server.binary, persistent=True, options=("--cluster-enabled", "yes")) as node:
        cluster = Cluster([node])
        async with TaskClient(cluster.url, *NAMES) as client:
            cluster.command(node, "HSET", NAMES[1], "early", b'{"status":"success","result":1}')
            results = client.results(["early", "late"], PATIENCE)
            assert (await anext(results)).id == "early"  # it has looked, and now waits
            waiting = asyncio.ensure_future(anext(results))
            os.kill(node.pid, signal.SIGKILL)
            await asyncio.sleep(1)
            await asyncio.to_thread(node.restart)
            await asyncio.to_thread(cluster.wait_until, lambda: cluster.sees_all(node))
            cluster.command(node, "HSET", NAMES[1], "late", b'{"status":"success","result":1}')
            assert (await waiting).id == "late"


async def test_naming_a_cluster_as_a_server_and_a_server_as_a_cluster(cluster: Cluster, server: EmbeddedServer) -> None:
    node = next(node for node in cluster.nodes if node is not cluster.node_of(NAMES[0]))
    with pytest.raises(Refused, match=r"this Redis is a cluster node .*: use a redis\+cluster:// URL"):
        await WorkerPool(node.url, *NAMES, "list", double).run()
    with pytest.raises(Refused, match="this Redis is not a cluster node: use a redis://"):
        await WorkerPool(f"redis+cluster://{HOST}:{server.port}", *NAMES, "list", double).run()


async def test_a_cluster_that_is_not_whole_is_waited_for(server: EmbeddedServer) -> None:
    with EmbeddedServer(server.binary, options=("--cluster-enabled", "yes")) as node:
        pool = WorkerPool(f"redis+cluster://{HOST}:{node.port}", *NAMES, "list", double, connect_timeout=0.3)
        with pytest.raises(Unreachable, match="slots are not covered"):
            await pool.run()


# Sentinel


@dataclass
class Replicated:
    """A master, its replica, and the sentinel that watches them, at `port`."""

    master: EmbeddedServer
    replica: EmbeddedServer
    port: int

    @property
    def url(self) -> str:
        return f"redis+sentinel://{HOST}:{self.port}/mymaster/0"


@contextlib.contextmanager
def sentinel_of(master: EmbeddedServer, folder: Path, *settings: str, down: float = PATIENCE) -> Iterator[int]:
    """A sentinel, which ends with this process however that ends; its port. A server silent for `down` s is dead."""
    for port in (free_port() for _ in range(20)):
        config = folder / f"sentinel-{port}.conf"
        lines = [
            f"port {port}",
            f"bind {HOST}",
            f"dir {folder}",
            *settings,
            f"sentinel monitor mymaster {HOST} {master.port} 1",
            f"sentinel down-after-milliseconds mymaster {int(down * 1000)}",
            "sentinel failover-timeout mymaster 2000",
        ]
        config.write_text("\n".join(lines))
        log = folder / f"sentinel-{port}.log"
        with log.open("wb") as output:
            guard = subprocess.Popen(
                ["/bin/sh", "-c", '"$@" & read -r _; kill -9 $!', "guard", master.binary, config, "--sentinel"],
                stdin=subprocess.PIPE,
                stdout=output,
                process_group=0,
            )
        try:
            if _opens(port, log):
                yield port
                return
        finally:
            guard.communicate(b"\n")
    raise AssertionError("no port for a sentinel")


def _opens(port: int, log: Path) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if b"bind: " in log.read_bytes():
            return False
        with contextlib.suppress(OSError), socket.create_connection((HOST, port)):
            return True
        time.sleep(0.01)
    raise AssertionError(log.read_text())


@contextlib.contextmanager
def replicated(binary: Path, folder: Path, **watch: float) -> Iterator[Replicated]:
    with contextlib.ExitStack() as stack:
        master = stack.enter_context(EmbeddedServer(binary, options=("--repl-diskless-sync-delay", "0")))
        replica = stack.enter_context(EmbeddedServer(binary, options=("--replicaof", HOST, str(master.port))))
        port = stack.enter_context(sentinel_of(master, folder, **watch))
        sentinel = stack.enter_context(redis_py.Redis(port=port))
        end = time.monotonic() + PATIENCE
        while not (known := sentinel.sentinel_slaves("mymaster")) or known[0]["flags"] != "slave":
            assert time.monotonic() < end, f"the sentinel does not see the replica: {known}"
            time.sleep(0.05)
        yield Replicated(master, replica, port)


@pytest.fixture(scope="module")
def watched(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicated]:
    with replicated(server.binary, tmp_path_factory.mktemp("sentinel")) as servers:
        yield servers


async def test_sentinel_by_its_url(watched: Replicated) -> None:
    pool = await works(watched.url)
    assert pool.address == watched.url
    async with Redis.from_url(watched.master.url) as client:
        assert await left_behind(client) == []


async def test_the_doctor_by_sentinel(watched: Replicated, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the sentinel it is the master that is examined; a replica and a sentinel are told for what they are."""
    monkeypatch.setattr(server_checks, "_NEAR", PATIENCE)
    examination = await examine(watched.url, ["in"])
    assert [found.subject for found in examination.findings if found.level != "good"] == ["persistence"]
    [role] = [found for found in (await examine(watched.replica.url)).findings if found.level == "fault"]
    assert role.subject == "role"
    sentinel = await examine(f"redis://{HOST}:{watched.port}")
    assert not sentinel.connected
    assert "this is a Sentinel" in sentinel.findings[0].what


async def test_sentinel_by_the_callers_client(watched: Replicated) -> None:
    sentinel = Sentinel([(HOST, watched.port)], decode_responses=True)  # type: ignore[no-untyped-call]
    async with sentinel, sentinel.master_for("mymaster") as client:
        pool = await works(client)
        assert pool.address == "sentinel service mymaster"
        assert await left_behind(client) == []  # the client is open
        # The sentinel is asked by connections that are closed afterwards.
        for by_the_caller in sentinel.sentinels:  # as many at once as there were calls: they are the caller's
            await by_the_caller.connection_pool.disconnect()
        async with Redis(port=watched.port) as asked:
            await wait_until(lambda: _few_clients(asked, 2 + 1))


async def _few_clients(redis: Redis, most: int) -> bool:
    return len(await redis.client_list()) <= most


async def test_no_such_sentinel_service(watched: Replicated) -> None:
    url = f"redis+sentinel://{HOST}:{watched.port}/other"
    with pytest.raises(Unreachable, match="No master found for 'other'") as raised:
        await WorkerPool(url, *NAMES, "list", double, connect_timeout=0.3).run()
    assert "redis.asyncio" not in str(raised.value)


async def test_naming_a_sentinel_as_a_server(watched: Replicated) -> None:
    with pytest.raises(Refused, match=r"this is a Sentinel, which holds no data: use a URL redis\+sentinel://"):
        await WorkerPool(f"redis://{HOST}:{watched.port}", *NAMES, "list", double).run()


async def test_a_sentinel_with_a_password(watched: Replicated, tmp_path: Path) -> None:
    with sentinel_of(watched.master, tmp_path, f"requirepass {SECRET}") as port:
        with pytest.raises(Refused, match="the sentinels refuse the login; give sentinel_username"):
            await WorkerPool(f"redis+sentinel://{HOST}:{port}/mymaster", *NAMES, "list", double).run()
        pool = await works(f"redis+sentinel://{HOST}:{port}/mymaster?sentinel_password={SECRET}")
        assert SECRET not in pool.address
    async with Redis.from_url(watched.master.url) as client:
        assert await left_behind(client) == []


async def test_the_master_dies_and_its_replica_takes_over(server: EmbeddedServer, tmp_path: Path) -> None:
    """`answers_after` gets each answer; the pool has reconnected."""
    with replicated(server.binary, tmp_path, down=0.5) as servers:
        async with WorkerPool(servers.url, *NAMES, "list", double) as pool, TaskClient(servers.url, *NAMES) as client:
            await answers_after(client, servers.master)
            await wait_until(lambda: pool.counters.reconnects)


# TLS, Unix sockets, passwords, rights


@dataclass
class Secured:
    """A server that asks for a password, at a port, at a Unix socket and with TLS."""

    server: EmbeddedServer
    socket: Path
    tls_port: int
    certificates: Certificates
    front: ssl.SSLContext | None
    """Of TLS in front of a server that has none."""

    def url(self, way: str, user: str = "", password: str = SECRET) -> str:
        match way:
            case "tcp":
                return f"redis://{user}:{password}@{HOST}:{self.server.port}"
            case "unix":
                return f"unix://{user}:{password}@{self.socket}"
        return f"rediss://{user}:{password}@{HOST}:{self.tls_port}?ssl_ca_certs={self.certificates.authority}"

    def admin(self) -> Redis:
        return Redis(port=self.server.port, password=SECRET)

    async def ask_for_certificates(self) -> None:
        """Take only clients that have a certificate."""
        # With TLS 1.3 the refusal comes after the handshake, and may get lost when the connection is reset.
        if self.front is not None:
            self.front.maximum_version, self.front.verify_mode = ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED
            return
        async with self.admin() as admin:
            await admin.config_set("tls-auth-clients", "yes")
            await admin.config_set("tls-protocols", "TLSv1.2")

    async def take_all(self) -> None:
        """Take any client again."""
        if self.front is not None:
            self.front.maximum_version, self.front.verify_mode = ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.CERT_NONE
            return
        async with self.admin() as admin:
            await admin.config_set("tls-auth-clients", "no")
            await admin.config_set("tls-protocols", "")


@pytest.fixture(scope="module")
def secured(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"), HOST)
    # The path of a socket may have some hundred characters.
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path, tls_port = Path(folder) / "socket", free_port()
        options = ["--requirepass", SECRET, "--unixsocket", str(path)]
        tls = [
            *("--tls-port", str(tls_port), "--tls-auth-clients", "no"),
            *("--tls-ca-cert-file", str(certificates.authority)),
            *("--tls-cert-file", str(certificates.server)),
            *("--tls-key-file", str(certificates.key)),
        ]
        front = None
        try:
            running = stack.enter_context(EmbeddedServer(server.binary, options=[*options, *tls]))
        except ConfigurationError:  # it was built without TLS
            running = stack.enter_context(EmbeddedServer(server.binary, options=options))
            front = certificates.context()
            tls_port = stack.enter_context(tls_in_front_of(HOST, running.port, front))
        yield Secured(running, path, tls_port, certificates, front)


WAYS = pytest.mark.parametrize("way", ["tcp", "unix", "tls"])


@WAYS
async def test_every_way_with_a_password(secured: Secured, way: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    pool = await works(secured.url(way))
    assert SECRET not in pool.address
    assert SECRET not in caplog.text
    async with secured.admin() as client:
        assert await left_behind(client) == []


@WAYS
async def test_every_way_by_the_callers_client(secured: Secured, way: str) -> None:
    async with Redis.from_url(secured.url(way)) as client:
        pool = await works(client)
        assert SECRET not in pool.address
        assert await left_behind(client) == []


@WAYS
@pytest.mark.parametrize(("user", "password"), [("", "wrong-secret"), ("nobody", SECRET), ("", "")])
async def test_a_wrong_password_ends_it_at_once(
    secured: Secured, way: str, user: str, password: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    url = secured.url(way, user, password)
    # Without end, were it tried again.
    with pytest.raises(Refused, match=r"refuses the login: .*; check the user name and password") as raised:
        await WorkerPool(url, *NAMES, "list", double, connect_timeout=0).run()
    async with TaskClient(url, *NAMES) as client:
        with pytest.raises(Refused, match="refuses the login"):
            await client.submit([1])
        with pytest.raises(Refused, match="refuses the login"):
            await client.result("1")
    if way == "tls":
        await asyncio.sleep(0.2)  # TLS ends when the other side has said so as well
    for text in (str(raised.value), caplog.text, repr(client)):
        assert "\n" not in str(raised.value)
        assert not password or password not in text


async def test_the_password_changes_while_the_pool_works(secured: Secured) -> None:
    """The connections there are live on; who has to connect anew ends, and says why."""
    async with secured.admin() as admin:
        await admin.execute_command("ACL", "SETUSER", "ann", "on", ">first", "~*", "&*", "+@all")
        url = secured.url("tcp", "ann", "first")
        with pytest.raises(Refused, match="refuses the login"):
            await _cut_off(admin, url)
        await admin.execute_command("ACL", "DELUSER", "ann")
        await admin.flushall()


async def _cut_off(admin: Redis, url: str) -> None:
    async with WorkerPool(url, *NAMES, "list", double):
        await admin.execute_command("ACL", "SETUSER", "ann", "resetpass", ">second")
        await admin.execute_command("CLIENT", "KILL", "USER", "ann")
        await asyncio.sleep(PATIENCE)


async def test_a_user_without_a_right_to_channels(secured: Secured) -> None:
    """Nobody hears of results then: the client looks for them."""
    async with secured.admin() as admin:
        await admin.execute_command("ACL", "SETUSER", "ann", "on", ">pass", "~*", "resetchannels", "+@all", "-publish")
        await works(secured.url("tcp", "ann", "pass"))
        assert await left_behind(admin) == []
        await admin.execute_command("ACL", "DELUSER", "ann")


@pytest.mark.parametrize("rights", [("resetchannels",), ("&*", "-subscribe")], ids=["no channels", "no subscribe"])
@pytest.mark.parametrize("late", [False, True], ids=["never had it", "loses it"])
async def test_who_may_not_subscribe_finds_results_soon(secured: Secured, rights: tuple[str, ...], late: bool) -> None:
    async with secured.admin() as admin:

        async def grant(*rights: str) -> None:
            await admin.execute_command("ACL", "SETUSER", "ann", "on", ">pass", "~*", "+@all", *rights)

        async def subscribed() -> bool:
            [(_, count)] = await admin.pubsub_numsub(Keys(*NAMES).channel)
            return bool(count)

        await grant(*(("&*",) if late else rights))
        async with TaskClient(secured.url("tcp", "ann", "pass"), *NAMES) as client:
            waiting = [asyncio.create_task(client.result(n, PATIENCE)) for n in range(5)]
            if late:
                await wait_until(subscribed)
                await grant(*rights)
                await admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.5)
            assert not await subscribed()
            for n, task in enumerate(waiting):
                await admin.hset(NAMES[1], str(n), b'{"status":"success","result":1}')
                assert await task == 1
        await admin.execute_command("ACL", "DELUSER", "ann")
        await admin.flushall()


@pytest.mark.parametrize(
    ("rights", "sentence"),
    [
        (("~*", "+@all", "-evalsha"), "'evalsha' command"),
        (("~*", "+@all", "-blmove"), "'blmove' command"),
        (("~other", "+@all"), "[Kk]ey"),
        (("~*", "+@all", "-hkeys"), "'hkeys' command|in script|the script can't run"),
    ],
    ids=lambda value: value[-1] if isinstance(value, tuple) else "",
)
async def test_a_user_without_a_right_that_is_needed(
    secured: Secured, rights: tuple[str, ...], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # HKEYS is for the comparison alone.
    monkeypatch.setattr("redis_worker.engine.claimer._COMPARE_EVERY", 1.0)
    async with secured.admin() as admin:
        await admin.execute_command("ACL", "SETUSER", "ann", "on", ">pass", *rights)
        with pytest.raises(Refused, match=rf"refuses the command: .*{sentence}.*; grant the user") as raised:
            await WorkerPool(secured.url("tcp", "ann", "pass"), *NAMES, "list", double, connect_timeout=0).run()
        assert "\n" not in str(raised.value)
        await admin.execute_command("ACL", "DELUSER", "ann")
        await admin.flushall()


async def test_tls_that_cannot_be_ends_it_at_once(secured: Secured) -> None:
    """An authority nobody knows, a name that is not the server's, a server that asks for the client's certificate."""
    trusted = secured.url("tls")
    for url in (trusted.partition("?")[0], trusted.replace(f"@{HOST}", "@localhost")):
        with pytest.raises(Refused, match=r"the TLS connection failed: .*; check the certificates, and that"):
            await WorkerPool(url, *NAMES, "list", double, connect_timeout=0).run()
    await secured.ask_for_certificates()
    try:
        with pytest.raises(Refused, match="the TLS connection failed"):
            await WorkerPool(trusted, *NAMES, "list", double, connect_timeout=0).run()
        mine = f"&ssl_certfile={secured.certificates.server}&ssl_keyfile={secured.certificates.key}"
        await works(trusted + mine)
        async with secured.admin() as admin:
            assert await left_behind(admin) == []
    finally:
        await secured.take_all()


async def test_nobody_is_there(tmp_path: Path) -> None:
    with socket.socket() as held:  # bound, and not listening
        held.bind((HOST, 0))
        urls = (
            f"redis://{HOST}:{held.getsockname()[1]}",
            f"rediss://{HOST}:{held.getsockname()[1]}",
            f"redis+cluster://{HOST}:{held.getsockname()[1]}",
            f"redis+sentinel://{HOST}:{held.getsockname()[1]}/mymaster",
            f"unix://{tmp_path}/socket",
            "redis://no-such-host.invalid",
        )
        pools = [WorkerPool(url, *NAMES, "list", double, connect_timeout=0.2) for url in urls]
        errors = await asyncio.gather(*(pool.run() for pool in pools), return_exceptions=True)
    for url, error in zip(urls, errors, strict=True):
        assert isinstance(error, Unreachable), url
        assert str(error).startswith(f"no Redis at {url} within 0.2 s (")
        assert str(error).endswith("; is it running, and is the address right?")


# A server that hangs


@WAYS
@pytest.mark.parametrize("sending", ["little", "much"])
@pytest.mark.parametrize("lasting", [False, True], ids=["", "lasting"])
async def test_a_hung_call_is_cut_off(secured: Secured, way: str, sending: str, lasting: bool) -> None:
    """The server takes the connection and never answers, or does not even read what is sent."""
    connection = Connection(address_of(secured.url(way)).open(), owned=True, lasting=lasting)
    await asyncio.gather(connection.call("PING"), connection.call("PING"))  # two connections
    os.kill(secured.server.pid, signal.SIGSTOP)
    try:
        waiting = asyncio.create_task(connection.call("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        with pytest.raises(Disconnected, match=r"closed|lost|does not answer|no reply from the server within 0\.1 s"):
            await connection.call("SET", "key", b"x" * (50_000_000 if sending == "much" else 1), patience=0.1)
        with pytest.raises(Disconnected):
            await waiting  # ends with it: all connections were cut
        await connection.close()
    finally:
        os.kill(secured.server.pid, signal.SIGCONT)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    async with secured.admin() as admin:
        await wait_until(lambda: _few_clients(admin, 1))
        assert await admin.strlen("key") <= 1  # what was not sent by then never is
        await admin.delete("key")


async def test_a_call_that_hangs_after_connecting_is_cut_off(secured: Secured) -> None:
    """When it is cut off for the first time there is no connection yet."""
    connection = Connection(address_of(secured.url("tcp")).open(), owned=True, lasting=True)
    os.kill(secured.server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Disconnected):
            await connection.call("PING", patience=0)
        await connection.close()
    finally:
        os.kill(secured.server.pid, signal.SIGCONT)


async def test_a_hung_node_is_cut_off(cluster: Cluster) -> None:
    node = cluster.node_of("key")
    connection = Connection(address_of(cluster.url).open(), owned=True)
    await connection.call("GET", "key")
    os.kill(node.pid, signal.SIGSTOP)
    try:
        for _ in range(2):  # then it cannot even ask which nodes there are
            with pytest.raises(Disconnected):
                await connection.call("GET", "key", patience=0.1)
        await connection.close()
        fresh = Connection(address_of(f"redis+cluster://{HOST}:{node.port}").open(), owned=True)
        with pytest.raises(Disconnected):
            await fresh.call("GET", "key", patience=0.1)
        await fresh.close()
    finally:
        os.kill(node.pid, signal.SIGCONT)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_cluster_client_that_lost_a_node_leaves_nothing_open(cluster: Cluster) -> None:
    connection = Connection(address_of(cluster.url).open(), owned=True)
    for key in ("a", "b", "c", "d"):
        await wait_until(lambda key=key: _gets(connection, key))  # another test may have had a node die
    nodes = connection.client.get_nodes()  # type: ignore[union-attr]
    assert sum(opened.is_connected for node in nodes for opened in node._connections) == 3
    node = cluster.node_of("a")
    waiting = asyncio.create_task(connection.call("BLPOP", "a", 0))
    # A connection that ends while it is idle is replaced, and no call fails of it.
    await wait_until(lambda: any(client["cmd"] == "blpop" for client in cluster.command(node, "CLIENT LIST")))
    cluster.command(node, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    with pytest.raises(Disconnected):
        await waiting
    await connection.close()
    assert not any(opened.is_connected for node in nodes for opened in node._connections)


async def _gets(connection: Connection, key: str) -> bool:
    try:
        await connection.call("GET", key)
    except Disconnected:
        return False
    return True


@pytest.mark.parametrize("lasting", [False, True], ids=["", "lasting"])
async def test_a_call_given_up_while_connecting_leaves_nothing_open(secured: Secured, lasting: bool) -> None:
    connection = Connection(address_of(secured.url("tcp")).open(), owned=True, lasting=lasting)
    os.kill(secured.server.pid, signal.SIGSTOP)
    try:
        call = asyncio.create_task(connection.call("BLPOP", "nothing", 0))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        await connection.close()
    finally:
        os.kill(secured.server.pid, signal.SIGCONT)
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    async with secured.admin() as admin:
        await wait_until(lambda: _few_clients(admin, 1))


async def test_a_server_that_hangs_from_the_start_is_waited_for(secured: Secured) -> None:
    os.kill(secured.server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Unreachable, match=r"within 0\.3 s"):
            await WorkerPool(secured.url("tcp"), *NAMES, "list", double, connect_timeout=0.3).run()
    finally:
        os.kill(secured.server.pid, signal.SIGCONT)
