"""The doctor: each fault provoked on a real server and found; what cannot be checked; both forms of output."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_worker import ConfigurationError, Publisher
from redis_worker.broker.keys import TOPICS
from redis_worker.broker.operator.doctor import server_checks
from redis_worker.broker.operator.doctor.examination import Examination, examine
from redis_worker.broker.operator.doctor.finding import Finding
from redis_worker.embedded import EmbeddedServer
from tests.support import PATIENCE, Queue, Topic, WorkerProcess, hold, wait_until

NOWHERE = "redis://somebody:hush-hush@127.0.0.1:1"


def of(examination: Examination, subject: str) -> Finding:
    """The only finding of a subject."""
    [finding] = [finding for finding in examination.findings if finding.subject == subject]
    assert bool(finding.remedy) == (finding.level != "good"), finding
    return finding


async def of_queue(server: EmbeddedServer, queue: Queue, check: str) -> Finding:
    examination = await examine(server.url, [queue.keys.waiting])
    return of(examination, f"queue {queue.keys.waiting}: {check}")


def troubles(examination: Examination) -> list[Finding]:
    return [finding for finding in examination.findings if finding.level != "good"]


@pytest.fixture(autouse=True)
def _near(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no server far away."""
    monkeypatch.setattr(server_checks, "_NEAR", PATIENCE)


@pytest.fixture
async def settings(redis: Redis) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Changes settings of the server, and restores them."""
    before: dict[str, Any] = {}

    async def change(**values: Any) -> None:
        for name, value in {name.replace("_", "-"): value for name, value in values.items()}.items():
            before.setdefault(name, (await redis.config_get(name))[name])
            await redis.config_set(name, value)

    yield change
    for name, value in reversed(before.items()):
        await redis.config_set(name, value)


# The server


async def test_nothing_is_wrong(own_server: EmbeddedServer) -> None:
    async with Redis.from_url(own_server.url) as redis:
        await redis.rpush("in", b'{"id":1,"task":[],"emit_ts":%f}' % time.time())
        await redis.zadd("{in}:workers", {"alive": (time.time() + 60) * 1000})
        examination = await examine(redis, ["in", "in"], ["out"])
        await redis.ping()  # a caller's client is left open
    assert troubles(examination) == []
    assert examination.connected
    assert examination.healthy
    assert [finding.subject for finding in examination.findings] == [
        *("connection", "latency", "clock", "version", "role", "result expiry", "topics"),
        *("eviction", "memory", "persistence", "last save"),
        *(f"queue in: {check}" for check in ("waiting", "workers", "dead letters", "delayed", "order")),
        "output out",
    ]
    assert "appendfsync always" in of(examination, "persistence").what
    assert of(examination, "queue in: workers").what == "1 live"
    assert of(examination, "queue in: waiting").what.startswith("1 waiting, the oldest sampled for ")


@pytest.mark.parametrize(
    ("changed", "subject", "level", "words"),
    [
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", "warning", "may evict tasks when its memory is full"),
        ({"maxmemory_policy": "allkeys-lru", "maxmemory": "1gb"}, "eviction", "fault", "the policy is allkeys-lru"),
        ({"maxmemory_policy": "volatile-ttl", "maxmemory": "1gb"}, "eviction", "fault", "may evict counts of attempts"),
        ({"maxmemory": "1gb"}, "memory", "good", "used of 1,024 MiB (0%)"),
        ({"maxmemory": "1"}, "memory", "fault", "the server accepts no more tasks"),
        ({"save": ""}, "persistence", "warning", "a restart of the server loses everything"),
        ({"save": "3600 1"}, "persistence", "good", "RDB (save 3600 1)"),
    ],
)  # fmt: skip
async def test_settings(
    server: EmbeddedServer, settings: Any, changed: dict[str, str], subject: str, level: str, words: str
) -> None:
    await settings(**changed)
    examination = await examine(server.url, ["in"], ["out"])
    finding = of(examination, subject)
    assert (finding.level, words in finding.what) == (level, True), finding
    assert examination.healthy == (level != "fault")
    assert examination.connected
    assert of(examination, "queue in: waiting").level == "good"  # even where the server takes no more


async def test_memory_that_is_nearly_full(server: EmbeddedServer, redis: Redis, settings: Any) -> None:
    await settings(maxmemory=int((await redis.info("memory"))["used_memory"] * 1.1))
    assert of(await examine(server.url), "memory").level != "good"


async def test_an_append_only_file_that_nobody_syncs(own_server: EmbeddedServer) -> None:
    async with Redis.from_url(own_server.url) as redis:
        for value, level in (("no", "warning"), ("everysec", "good")):
            await redis.config_set("appendfsync", value)
            finding = of(await examine(redis), "persistence")
            assert (finding.level, f"appendfsync {value}" in finding.what) == (level, True)


async def test_a_save_that_failed(server: EmbeddedServer) -> None:
    """The server then refuses PING and all writes, so that no worker can work."""
    with EmbeddedServer(server.binary, options=("--save", "3600 1")) as broken:
        (broken.folder / "dump.rdb").mkdir()  # which no file can be renamed to
        async with Redis.from_url(broken.url) as redis:
            await redis.bgsave()
            await wait_until(lambda: _save_failed(redis), "the save to fail")
            with pytest.raises(ResponseError, match="MISCONF"):
                await redis.ping()
            examination = await examine(broken.url, ["in"])
            await redis.config_set("save", "")  # or it will not end without having saved
    assert examination.connected
    assert [finding.subject for finding in troubles(examination)] == ["connection", "last save"]
    assert "answers, but cannot work: MISCONF" in examination.findings[0].what
    assert of(examination, "last save").what == "the last RDB save failed (rdb_last_bgsave_status: err)"


async def _save_failed(redis: Redis) -> bool:
    return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == "err")


async def test_a_replica(server: EmbeddedServer) -> None:
    with EmbeddedServer(server.binary, options=("--replicaof", "127.0.0.1", "1")) as replica:
        assert of(await examine(replica.url), "role").level == "fault"


@contextlib.asynccontextmanager
async def user(redis: Redis, *rights: str) -> AsyncIterator[str]:
    await redis.execute_command("ACL", "SETUSER", "limited", "on", ">hush-hush", "~*", "&*", *rights)
    try:
        options = redis.connection_pool.connection_kwargs
        yield f"redis://limited:hush-hush@{options['host']}:{options['port']}/0"
    finally:
        await redis.execute_command("ACL", "DELUSER", "limited")


async def test_a_user_who_may_not_look(redis: Redis) -> None:
    await redis.sadd(TOPICS, "seen")
    async with user(redis, "+@all", "-config", "-info", "-client|tracking") as url:
        examination = await examine(url, ["in"], ["out"])
    assert examination.healthy
    hidden = [
        finding.subject for finding in troubles(examination) if "cannot be checked: Redis refuses" in finding.what
    ]
    assert hidden == ["version", "role", "eviction", "memory", "persistence", "last save"]
    polled = of(examination, "topics")
    assert polled.level == "warning"
    assert polled.what.startswith("known: 1; their workers poll")
    assert of(examination, "queue mq:seen: waiting").level == "good"
    assert "hush-hush" not in repr(examination)
    await redis.delete(TOPICS)
    async with user(redis, "+@all", "-client|tracking") as url:
        assert of(await examine(url), "topics").level == "good"  # nobody needs it


async def test_a_user_who_may_hardly_do_anything(redis: Redis) -> None:
    async with user(redis, "+ping") as url:
        examination = await examine(url, ["in"], ["out"])
    assert examination.healthy
    assert examination.findings[0].level == "good"
    found = {finding.subject: finding.what for finding in troubles(examination)}
    assert all("NOPERM" in what or "permission" in what for what in found.values()), found
    assert {"known topics", "latency and clock", "result expiry", "queue in", "output out"} < set(found)


async def test_without_a_connection(redis: Redis) -> None:
    async with user(redis, "+@all") as url:
        wrong = await examine(url.replace("hush-hush", "wrong"), ["in"])
    for examination, words in ((wrong, "refuses the login"), (await examine(NOWHERE, ["in"]), "no Redis at redis://")):
        assert not examination.connected
        assert not examination.healthy
        [finding] = examination.findings
        assert (finding.level, finding.subject) == ("fault", "connection")
        assert words in finding.what
        assert "hush" not in repr(finding)
    with pytest.raises(ConfigurationError):
        await examine("http://127.0.0.1")


# A server that says what the test wants: old, far away, with a wrong clock, or gone in the midst of it


@contextlib.asynccontextmanager
async def stub(replies: dict[bytes, bytes], most: int = 1000, delay: float = 0.0) -> AsyncIterator[str]:
    """Replies by the first word of a command, and hangs up after so many; it knows no other command."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        commands = hiredis.Reader()
        while most > 0 and (data := await reader.read(65536)):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                await asyncio.sleep(delay)
                most -= 1
                writer.write(replies.get(command[0].upper(), b"-ERR unknown command '%b'\r\n" % command[0]))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"redis://127.0.0.1:{listening.sockets[0].getsockname()[1]}?protocol=2"


def bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def clock(ahead: float) -> bytes:
    now = str(int(time.time() + ahead))
    return b"*2\r\n" + bulk(now) + bulk("0")


async def test_a_server_that_is_old_and_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "_NEAR", 0.005)
    replies = {b"PING": b"+PONG\r\n", b"INFO": bulk("redis_version:6.0.16\r\n"), b"TIME": clock(-3600)}
    async with stub(replies, delay=0.006) as url:
        examination = await examine(url, ["in"], ["out"])
    version = of(examination, "version")
    assert (version.level, version.what) == ("fault", "Redis 6.0.16 is too old")
    distance = of(examination, "latency")
    assert distance.level == "warning"
    assert " ms (median of 11)" in distance.what
    skew = of(examination, "clock")
    assert skew.level == "warning"
    assert "s behind this machine's" in skew.what
    # It knows nothing else, and that is said, not raised.
    untold = [finding for finding in troubles(examination) if "cannot be checked" in finding.what]
    assert {"INFO does not report role" in finding.what for finding in untold} == {True, False}
    assert {finding.subject for finding in untold} >= {"memory", "persistence", "queue in", "output out"}


async def test_a_clock_that_is_ahead() -> None:
    async with stub({b"PING": b"+PONG\r\n", b"TIME": clock(60)}) as url:
        assert "s ahead of this machine's" in of(await examine(url), "clock").what


async def test_a_server_that_goes_away_meanwhile() -> None:
    async with stub({b"PING": b"+PONG\r\n", b"TIME": clock(0)}, most=15) as url:
        examination = await examine(url, ["in"])
    assert not examination.connected
    assert "disconnected during the examination" in examination.findings[0].what
    assert [finding.subject for finding in examination.findings].count("connection") == 1


async def test_a_server_that_is_busy_with_a_script() -> None:
    busy = b"-BUSY Redis is busy running a script\r\n"
    async with stub(dict.fromkeys((b"PING", b"INFO", b"SMEMBERS"), busy)) as url:
        examination = await examine(url)
    assert not examination.connected
    [finding] = examination.findings
    assert "answers, but cannot work: BUSY" in finding.what


async def test_naming_a_server_that_is_none() -> None:
    async with stub({b"PING": b"+PONG\r\n", b"INFO": bulk("redis_version:7.0.0\r\nredis_mode:sentinel\r\n")}) as url:
        examination = await examine(url)
    assert not examination.connected
    assert "redis+sentinel://" in examination.findings[0].what


# Queues


async def bury(queue: Queue, worker: str = "buried", live: bool = False) -> None:
    """Have a worker die that holds two tasks, one of which had just arrived."""
    keys, redis = queue.keys, queue.redis
    await redis.zadd(keys.workers, {worker: (time.time() - 60) * 1000})
    if live:
        await redis.zadd(keys.workers, {"alive": (time.time() + 60) * 1000})
    await hold(redis, keys, worker, b'{"id":"a","task":[1]}')
    await redis.rpush(keys.arrived(worker), b'{"id":"b","task":[2]}')


async def test_dead_workers_and_the_remedy(
    server: EmbeddedServer, queue: Queue, worker: Callable[..., WorkerProcess]
) -> None:
    await bury(queue)
    await queue.push({"id": "c", "task": [3]})
    await queue.redis.zadd(queue.keys.delayed, {'t:{"id":"d","task":[4]}': (time.time() - 60) * 1000})
    finding = await of_queue(server, queue, "workers")
    assert (finding.level, finding.what) == (
        "fault",
        "in flight with dead workers: 2 (buried), and no live worker recovers them",
    )
    assert finding.remedy.startswith(f"start a worker on this queue: redis-worker run --input {queue.keys.waiting}")
    late = await of_queue(server, queue, "delayed")
    assert (late.level, late.what[:29]) == ("warning", "1 of 1 are overdue, the first")
    running = await worker().started()
    await wait_until(lambda: queue.answered(4), "the tasks to be done")
    examination = await examine(server.url, [queue.keys.waiting], [queue.keys.output])
    assert [finding for finding in troubles(examination) if finding.subject != "persistence"] == []
    assert of(examination, f"queue {queue.keys.waiting}: workers").what == "1 live"
    running.signal(15)
    assert await running.ended() == 0
    await queue.redis.delete(queue.keys.attempts)


async def test_dead_workers_beside_a_live_one(server: EmbeddedServer, queue: Queue) -> None:
    await bury(queue, live=True)
    finding = await of_queue(server, queue, "workers")
    assert (finding.level, "not yet recovered by the 1 live" in finding.what) == ("warning", True)
    keys = queue.keys
    await queue.redis.delete(keys.workers, keys.inflight("buried"), keys.arrived("buried"))


async def test_what_came_late_to_a_retired_worker(server: EmbeddedServer, queue: Queue) -> None:
    keys = queue.keys
    await queue.redis.zadd(keys.retired, {f"retired{n}": (time.time() + 60) * 1000 for n in range(5)})
    for n in range(5):
        await hold(queue.redis, keys, f"retired{n}", b"late")
    finding = await of_queue(server, queue, "workers")
    assert (finding.level, "workers: 5 (retired0, retired1, retired2, …)" in finding.what) == ("fault", True)
    await queue.redis.delete(*(keys.inflight(f"retired{n}") for n in range(5)))


async def test_nobody_works(server: EmbeddedServer, queue: Queue) -> None:
    await queue.push_tasks([[1]])
    finding = await of_queue(server, queue, "workers")
    assert (finding.level, "none holds a lease, and tasks wait" in finding.what) == ("warning", True)


async def test_dead_letters(server: EmbeddedServer, queue: Queue) -> None:
    await queue.redis.rpush(queue.keys.dead, b"letter")
    finding = await of_queue(server, queue, "dead letters")
    assert finding[::2] == ("warning", "1")
    assert finding.remedy == f"redis-worker dead list --input {queue.keys.waiting}"
    await queue.redis.set(queue.keys.dropped, 7)
    finding = await of_queue(server, queue, "dead letters")
    assert finding.what == "1, and 7 older ones were dropped"
    assert finding.remedy.endswith(f"redis-cli DEL '{queue.keys.dropped}'")
    await queue.redis.delete(queue.keys.dropped)


def tasks(stamps: Iterable[Any], name: str = "emit_ts") -> list[dict[str, Any]]:
    return [{"id": n, "task": [], "data": 1, name: stamp} for n, stamp in enumerate(stamps)]


@pytest.mark.parametrize(
    ("payloads", "level"),
    [
        (tasks(1e9 - n for n in range(100)), "warning"),
        (tasks((1e9 - n for n in range(100)), "published_at"), "warning"),
        (tasks(1e9 - n for n in (0, 1, 2)), "warning"),
        (tasks(1e9 + n for n in range(100)), "good"),
        # Nothing to tell it by: no times, no numbers, milliseconds, too few, too close to each other.
        (tasks(["late", None, {}, True, 3e12, -1]), "good"),
        ([b"unreadable", b"[]", b'{"id":[]}', b"\xff"], "good"),
        (tasks([1e9, 1e9 - 100]), "good"),
        (tasks(1e9 - n / 1000 for n in range(100)), "good"),
        # Retried and delayed tasks at the tail, recovered ones at the head.
        (tasks([*(1e9 + n for n in range(50)), *(1e9 - 500 + n for n in range(50))]), "good"),
        (tasks([*(1e9 - 500 + n for n in range(5)), *(1e9 + n for n in range(50))]), "good"),
        # What cannot be dated lies among what can.
        ([*tasks(1e9 - n for n in range(50)), b"unreadable"], "warning"),
        ([b'{"id":1,"task":"%b"}' % (b"x" * 2_000_000), *tasks(1e9 - n for n in range(50))], "warning"),
    ],
)  # fmt: skip
async def test_the_order_of_a_queue(server: EmbeddedServer, queue: Queue, payloads: list[Any], level: str) -> None:
    await queue.push(*payloads)
    finding = await of_queue(server, queue, "order")
    assert finding.level == level, finding
    if level == "warning":
        assert finding.what.startswith("last-in-first-out: ")
        assert "RPUSH" in finding.remedy


async def test_known_topics_are_examined(server: EmbeddedServer, topic: Topic) -> None:
    async with Publisher(server.url) as publisher:
        await publisher.publish(topic.name, 1)
    for _ in range(2):
        examination = await examine(server.url, [topic.keys.waiting])
        waiting = of(examination, f"queue {topic.keys.waiting}: waiting")
        assert waiting.what.startswith("1 waiting, the oldest sampled for ")
        workers = of(examination, f"queue {topic.keys.waiting}: workers")
        assert workers.remedy == f"start a worker that consumes the topic {topic.name}"


async def test_no_queue_is_named_and_what_is_known_cannot_be_read(server: EmbeddedServer, redis: Redis) -> None:
    assert (await examine(server.url)).findings[-1].subject == "queues"
    await redis.sadd(TOPICS, b"\xff")
    finding = of(await examine(server.url), "known topics")
    assert (finding.level, "not UTF-8" in finding.what) == ("warning", True)
    await redis.delete(TOPICS)


async def test_keys_of_other_types(server: EmbeddedServer, queue: Queue) -> None:
    keys, redis = queue.keys, queue.redis
    for key, kind in ((keys.waiting, "string"), (keys.dead, "string")):
        await redis.set(key, 1)
        finding = of(await examine(server.url, [keys.waiting]), f"queue {keys.waiting}")
        assert (finding.level, f"holds a {kind}, not a list" in finding.what) == ("fault", True)
        await redis.delete(key)
    await redis.set(keys.workers, 1)
    finding = of(await examine(server.url, [keys.waiting]), f"queue {keys.waiting}")
    assert (finding.level, f"{keys.workers} holds a string, not a zset" in finding.what) == ("fault", True)
    await redis.delete(keys.workers)
    await redis.rpush(keys.output, 1)
    finding = of(await examine(server.url, [], [keys.output]), f"output {keys.output}")
    assert (finding.level, "holds a list, not a hash" in finding.what) == ("fault", True)
    await redis.sadd(keys.waiting + "\n", 1)
    finding = (await examine(server.url, [keys.waiting + "\n"])).findings[-1]
    assert "\n" not in "".join(finding)
    await redis.delete(keys.waiting + "\n")


async def test_an_output_that_only_grows(server: EmbeddedServer, queue: Queue) -> None:
    key = queue.keys.output
    for start in range(0, 100_001, 10_000):
        await queue.redis.hset(key, mapping={str(n): "{}" for n in range(start, min(start + 10_000, 100_001))})
    finding = of(await examine(server.url, [], [key]), f"output {key}")
    assert (finding.level, finding.what) == ("warning", "results: 100,001, and none of 10 expires")
    expires = "HEXPIRE, so" in of(await examine(server.url), "result expiry").what
    assert ("--result-ttl" in finding.remedy) == expires
    if expires:
        for start in range(0, 100_001, 10_000):
            await queue.redis.hexpire(key, 600, *map(str, range(start, min(start + 10_000, 100_001))))
        finding = of(await examine(server.url, [], [key]), f"output {key}")
        assert (finding.level, finding.what) == ("good", "results: 100,001, which expire")


# The command


def doctor(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-W", "error", "-m", "redis_worker", "doctor", *arguments)
    return subprocess.run(
        command, cwd=folder, env=os.environ | env, capture_output=True, check=False, text=True, timeout=PATIENCE
    )


async def test_the_command(server: EmbeddedServer, queue: Queue, tmp_path: Path) -> None:
    key = queue.keys.waiting
    ended = doctor(tmp_path, "--url", server.url, "--input", key, "--input", "another", "--output", queue.keys.output)
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    slow = sum(line.startswith("warning  latency: ") for line in lines)  # as it may be on a busy machine
    assert ended.stderr == f"faults: 0, warnings: {1 + slow}, good: {21 - slow}\n"
    assert lines[0] == f"good     connection: {server.url} answers"
    assert f"good     queue {key}: waiting: 0 waiting" in lines
    assert "good     queue another: workers: 0 live" in lines
    [warned] = [line for line in lines if line.startswith("warning") and "latency: " not in line]
    assert warned.startswith("warning  persistence: neither AOF nor RDB: ")
    assert " -> CONFIG SET appendonly yes" in warned

    await bury(queue)
    ended = doctor(tmp_path, "--json", REDIS_URL=server.url, REDIS_WORKER_INPUT=key)
    assert (ended.returncode, ended.stderr) == (1, "")
    found = json.loads(ended.stdout)
    assert (found["connected"], found["healthy"]) == (True, False)
    [finding] = [finding for finding in found["findings"] if finding["level"] == "fault"]
    assert set(finding) == {"level", "subject", "what", "remedy"}
    assert finding["subject"] == f"queue {key}: workers"
    await queue.redis.delete(queue.keys.workers, queue.keys.inflight("buried"), queue.keys.arrived("buried"))


async def test_the_command_without_a_connection(tmp_path: Path) -> None:
    ended = doctor(tmp_path, "--url", NOWHERE)
    assert ended.returncode == 3
    assert ended.stdout.startswith("fault    connection: no Redis at redis://somebody:***@127.0.0.1:1 (")
    assert len(ended.stdout.splitlines()) == 1
    ended = doctor(tmp_path, "--url", NOWHERE, "--json")
    assert ended.returncode == 3
    assert json.loads(ended.stdout)["connected"] is False
    assert doctor(tmp_path, "--url", "http://nothing").returncode == 2
    assert doctor(tmp_path, "--input", "").returncode == 2


async def test_a_key_in_the_environment_is_one_key(server: EmbeddedServer, tmp_path: Path) -> None:
    ended = doctor(tmp_path, "--url", server.url, REDIS_WORKER_INPUT="my tasks", REDIS_WORKER_OUTPUT="")
    assert ended.returncode == 0
    assert "queue my tasks: waiting: 0 waiting" in ended.stdout
    assert "output" not in ended.stdout
