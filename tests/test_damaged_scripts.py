"""Every script, with each of its keys damaged in turn: it does what it can, or it changes nothing and says why."""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

import redis_worker.broker.scripts as scripts
from redis_worker.broker.scripts import script
from redis_worker.embedded import EmbeddedServer

NAMES = sorted({path.stem for path in Path(scripts.__file__).parent.glob("*.lua")} - {"common", "flows"})
T1, T2, T3, T4 = b'{"id":"1"}', b'{"id":"2"}', b'{"id":"3"}', b'{"id":"4"}'


_NONE: dict[str, str] = {}


class Call(NamedTuple):
    """A call of a script on keys that hold something."""

    keys: dict[str, str]
    """By its role, the type of each."""
    arguments: list[Any]
    beside: dict[str, str] = _NONE
    """Keys whose names the script derives from these."""

    @property
    def all(self) -> dict[str, str]:
        """Every key that the script uses."""
        return self.keys | self.beside


FLOW = {"flow": "hash", "flow_left": "hash", "flow_edges": "zset"}


def step(id: str, unique: str, how: str, raw: bytes, order: str, *after: str) -> list[Any]:
    """Return the arguments of park.lua for a step."""
    return [id, unique, "", 0, how, raw, order, len(after), *after]


def _settle(*keys: tuple[str, str], remember: int = 0) -> Call:
    header = ["w1", "channel", "wake", 1, 0, 1000, remember, "", 1, 2, ""]
    outcomes = [1, "1", "{}", 2, "token", 10, 33, "token", 10, 3, "letter", "1", "3", "{}"]
    first = {"inflight": "hash", "attempts": "hash", "dead": "list", "workers": "zset", "delayed": "zset"}
    return Call(first | {"dropped": "string", "bundles": "hash"} | dict(keys), [*header, *outcomes], FLOW)


CRON = {"fired": "zset", "running": "zset", "runs": "hash", "queued": "zset", "record": "hash", "ended": "list"}
NOW = int(time.time() * 1000)
LANE = '[4503599627370497,["x",1,1000]]'


def _cron(*roles: str) -> dict[str, str]:
    return {role: CRON[role] for role in roles}


CALLS: dict[str, list[Call]] = {
    "admit": [
        Call(
            {"waiting": "list", "delayed": "zset", "unique": "hash", "output": "hash"},
            ["wake", 5, how, "1", "", 0, "token", T1, "2", "call", 0, "token", T2, "3", "call", 1000, "token", T3],
        )
        for how in ("", "in", "at")
    ],
    "announce": [Call({"supervisors": "hash"}, ["id", '{"a":1}', 1, 1, "name", "host"])],
    "begin": [
        Call(
            {"inflight": "hash", "done": "zset", "begun": "hash", "workers": "zset", "delayed": "zset"}
            | {"bundles": "hash"},
            [
                *("w1", "inflight:", ":tasks", ":bundles", 500),
                *(1, "a", "token", "0", 2, "b", "token", "1", 33, "c", "token", "1"),
            ],
        )
    ],
    "broadcast": [Call({"events": "stream"}, [10, "channel", "{}", "other", "1"])],
    "bury": [Call({"dead": "list", "dropped": "string"}, [1, 0, "letter"])],
    "claim": [
        Call(
            {"waiting": "list", "inflight": "hash", "arrived": "list", "workers": "zset", "attempts": "hash"}
            | {"paused": "absent", "bundles": "hash"},
            ["w1", 10, 3, 0, large],
        )
        for large in (1, 8192)
    ],
    "beat": [Call({"running": "zset"}, ["process", 1000])],
    "cancel": [
        Call(
            {"waiting": "list", "delayed": "zset", "attempts": "hash", "output": "hash", "cancelled": "zset"}
            | {"unique": "hash", "inflight": "hash", "bundles": "hash"},
            [id, "{}", "channel", 1, 1000, 1, b"token:" + raw, id, raw],
            FLOW,
        )
        for id, raw in (("1", T1), ("33", T4))
    ],
    "cron_claim": [
        Call(
            _cron("fired", "running", "runs", "queued", "record", "ended") | pushes,
            [which, NOW - 5, "run", 1000, overlap, "worker", 100, 1, "next", *(["task"] if pushes else [])],
        )
        for which in ("due", "queued", "hand")
        for overlap in ("skip", "allow", "queue")
        for pushes in ({}, {"waiting": "list"})
    ],
    "cron_finish": [
        Call(_cron("running", "runs", "record", "ended"), ["run", "success", "", "", 1, 2, 3, "worker", flag])
        for flag in "01"
    ],
    "cron_miss": [Call(_cron("fired", "record"), [NOW - 10, 5, 1])],
    "cron_open": [
        Call(_cron("fired", "record", "queued", "ended"), ["app", "name", "* * * * *", "UTC", how, 100])
        for how in ("first", "again", "hand")
    ],
    "cron_queue": [Call(_cron("fired", "queued", "record"), [1, NOW - 3, NOW - 2])],
    "gate": [
        Call(
            {"inflight": "hash", "bundles": "hash", "delayed": "zset", "workers": "zset", "lanes": "zset"}
            | {"waiting": "list", "limits:x": "zset", "limits:x:called": "zset"},
            ["w1", "inflight:", ":tasks", ":bundles", "limits:", 1000, everywhere, *ended, *questions],
        )
        for everywhere in ("", "1")
        for ended in ([0], [2, 9, LANE, "ended", 8, LANE, "started"])
        for questions in (
            [],
            [1, LANE, 10, "", "", 2, LANE, 10, "back", "", 3, LANE, 10, "", "@x", 7, LANE, 10, "", ""],
        )
    ],
    "missing": [Call({"inflight": "hash", "attempts": "hash", "bundles": "hash"}, [2])],
    "overdue": [Call({"workers": "zset", "retired": "zset"}, [])],
    "present": [Call({"workers": "zset", "presence": "hash"}, ["w1", '{"a":1}'])],
    "promote": [Call({"delayed": "zset", "waiting": "list"}, [10])],
    "progress": [Call({"workers": "zset", "progress": "absent"}, ["w1", 1000, "1", "{}"])],
    "park": [
        Call(
            {"waiting": "list", "unique": "hash", "output": "hash", "flow": "hash"},
            [
                *("channel", 0, "ab"),
                *step("5", "1", "fail", T1, "", "1"),
                *step("6", "", "run", T2, "", "1", "5"),
                *step("7", "1", "fail", T1, "aa"),
                *step("8", "1", "fail", T1, "aa"),
            ],
            {"flow_left": "hash", "flow_edges": "zset"},
        )
    ],
    "purge": [Call({"waiting": "list", "unique": "hash"}, [], {"flow": "hash"})],
    "reclaim": [
        Call(
            {"workers": "zset", "retired": "zset", "inflight": "hash", "waiting": "list", "attempts": "hash"}
            | {
                "arrived": "list",
                "presence": "hash",
                "claimants": "zset",
                "listed": "list",
                "large": "set",
                "bundles": "hash",
            },
            ["w1", retired, 1000, force],
        )
        for retired in (0, 1000)
        for force in (0, 1)
    ],
    "register": [Call({"workers": "zset"}, ["w2", 1000])],
    "rename": [
        Call(
            {"workers": "zset", "retired": "zset", "claimants": "zset", "inflight": "hash", "inflight:w2": "absent"}
            | {"presence": "hash", "bundles": "hash", "bundles:w2": "absent"},
            ["w1", "w2", 1000, 1000],
        )
    ],
    "release": [
        Call({"inflight": "hash", "waiting": "list", "workers": "zset", "bundles": "hash"}, ["w1", *rest])
        for rest in (["", 1, 2, 33], ["1", T1])
    ],
    "renew": [
        Call({"workers": "zset"}, ["w1", 1000]),
        Call(
            {"workers": "zset", "retired": "zset", "claimants": "zset", "inflight": "hash", "arrived": "list"}
            | {"bundles": "hash"},
            ["w1", 1000, 5000],
        ),
    ],
    "revive": [
        Call({"dead": "list", "waiting": "list", "attempts": "hash"}, [what, "old letter", T1])
        for what in ("requeue", "purge")
    ],
    "seek": [Call({"waiting": "list"}, [0, '"1"'])],
    "schedule": [Call({"delayed": "zset"}, ["wake", 5, "in", "token", T1])],
    "settle": [
        _settle(),
        _settle(("output", "hash")),
        _settle(("done", "zset"), ("begun", "hash"), remember=1000),
        _settle(("output", "hash"), ("unique", "hash"), ("cancelled", "zset"), remember=-1),
    ],
    "take": [Call({"waiting": "list", "paused": "absent"}, [10])],
    "undelay": [
        Call({"delayed": "zset", "waiting": "list", "attempts": "hash", "unique": "hash"}, [how, b"token:" + T1])
        for how in ("cancel", "run")
    ],
    "write": [Call({"output": "hash"}, ["channel", 0, "1", "{}"])],
}
READ_ONLY = {"room", "inspect", "examine", "cron_read", "supervisors", "overdue", "missing"}
CASES = [pytest.param(name, call, id=f"{name}-{n}") for name in CALLS for n, call in enumerate(CALLS[name])]


async def _fill(redis: Redis, call: Call) -> None:
    sha = script("claim").digest  # any digest will do as the name of a count
    for key, kind in call.all.items():
        await redis.delete(key)
        if kind == "list":
            await redis.rpush(key, *((T1, T2, T3) if key in ("listed", "waiting", "arrived") else ("old letter",)))
        elif kind == "zset":
            members = {"w1": NOW - 1000} if key in ("workers", "running", "retired") else {f"{NOW - 10}": NOW - 10}
            await redis.zadd(key, members)
        elif kind == "hash" and key == "inflight":
            await redis.hset(key, mapping={"last": 4, "1": T1, "2": T2, "3": T3})
        elif kind == "set":
            await redis.sadd(key, 5)
            await redis.delete(f"{key}:5")
            await redis.rpush(f"{key}:5", T4)
        elif kind == "hash" and key == "bundles":
            await redis.hset(key, 32, 0b10)
            await redis.delete(f"{key}:32")
            await redis.rpush(f"{key}:32", "", T4)
        elif kind == "hash":
            await redis.hset(key, f"d{sha}", 1)
        elif kind == "string":
            await redis.set(key, 5)


async def _everything(redis: Redis) -> dict[bytes, bytes]:
    return {key: await redis.dump(key) for key in await redis.keys("*")}


async def _run(redis: Redis, name: str, call: Call) -> Any:
    return await redis.eval(script(name).source, len(call.keys), *call.keys, *call.arguments)


def test_there_is_a_call_of_every_script_that_writes() -> None:
    assert set(NAMES) - READ_ONLY <= CALLS.keys()


@pytest.mark.parametrize(("name", "call"), CASES)
async def test_a_script_that_fails_has_changed_nothing(redis: Redis, name: str, call: Call) -> None:
    await _fill(redis, call)
    await _run(redis, name, call)
    for damaged, kind in call.all.items():
        await redis.flushdb()
        await _fill(redis, call)
        await redis.delete(damaged)
        if kind == "string":
            await redis.rpush(damaged, "damage")
        else:
            await redis.set(damaged, "damage")
        before = await _everything(redis)
        error = await _error(redis, name, call)
        if error is None:
            if kind != "absent":
                assert await redis.type(damaged) == (b"list" if kind == "string" else b"string")
            continue
        assert await _everything(redis) == before, f"{name} failed half-way on {damaged}: {error}"
        # What is derived is named, with what it holds and what it should.
        if damaged not in ("waiting", "output", "inflight", "arrived", "listed", "large", "bundles"):
            assert error.startswith("DAMAGED ")
            assert error.endswith(f" {damaged}")


async def _error(redis: Redis, name: str, call: Call) -> str | None:
    try:
        await _run(redis, name, call)
    except ResponseError as error:
        return str(error)
    return None


MEMBERS = ("", "abc", "-1", "1.5", "inf", "nan", "9" * 30, "\xff", "a b", ":", "lost ", "\n")


@pytest.mark.parametrize(("name", "call"), CASES)
async def test_malformed_members_are_no_obstacle(redis: Redis, name: str, call: Call) -> None:
    """A member that nobody of us has written neither stops a script nor makes it stop half-way."""
    digests = [f"{kind}{_sha1(raw)}" for kind in "dr" for raw in (T1, T2, T3)]
    fields = ["floor", "schedule", "timezone", "run", "w1", "1", "a", "id", "b"]
    fields += [f"count:{outcome}" for outcome in ("lost", "success", "skipped", "missed")]
    for member in MEMBERS:
        await redis.flushdb()
        await _fill(redis, call)
        for key, kind in call.all.items():
            if kind == "hash":
                await redis.hset(key, mapping=dict.fromkeys([*fields, *digests, "last", "01", "0", "9" * 30], member))
            elif kind == "zset":
                await redis.zadd(key, {member: NOW - 500, f"{member}-": "-inf", f"{member}+": "inf"})
            elif kind == "string":
                await redis.set(key, member)
            elif kind == "list" and key not in ("listed", "waiting", "arrived"):
                await redis.lpush(key, member)
        try:
            reply = await _run(redis, name, call)
        except ResponseError as error:
            raise AssertionError(f"{name} with {member!r}: {error}") from None
        assert not isinstance(reply, list) or None not in reply


def _sha1(raw: bytes) -> str:
    import hashlib

    return hashlib.sha1(raw).hexdigest()


async def test_what_cannot_be_dropped_and_counted_is_kept(redis: Redis) -> None:
    call = CALLS["settle"][0]
    await _fill(redis, call)
    await redis.delete("dropped")
    await redis.rpush("dropped", "damage")
    assert await _run(redis, "settle", call) == [[], 3, b"dropped", b"list", b"string"]
    assert await redis.lrange("dead", 0, -1) == [b"old letter", b"letter"]


async def test_a_delayed_member_without_a_token_is_moved_once(redis: Redis) -> None:
    """It made the script fail after the others were moved, and so they were moved again every second."""
    await redis.zadd("delayed", {"a:1": 1, "nonsense": 2, "b:2": 3})
    assert await redis.eval(script("promote").source, 2, "delayed", "waiting", 10) == [3, -1]
    assert await redis.lrange("waiting", 0, -1) == [b"1", b"nonsense", b"2"]


def test_scripts_are_read_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a free descriptor can still settle."""

    def files(_: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(importlib.resources, "files", files)
    monkeypatch.setattr(scripts, "files", files)
    clear: Callable[[], None] = getattr(script, "cache_clear", lambda: None)
    clear()
    assert all(script(name).source for name in NAMES)


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server
