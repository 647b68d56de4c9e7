"""Checks before work begins: server reachable, version and features sufficient, keys of the right type."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from redis.crc import key_slot

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import Keys
from redis_worker.engine.reconnect import Reconnect
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused, Unreachable

# Added BLMOVE and LPOP with a count.
OLDEST = (6, 2)
"""The oldest supported version."""

# The first and the longest pause between tries, in seconds: programs start together with their server.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0


async def connected(connection: Connection, name: str, timeout: float, prepare: Callable[[], Awaitable[None]]) -> None:
    """Wait for a server and run `prepare`, retrying with backoff for `timeout` seconds, 0 for ever.

    A server may answer and still refuse commands: while it is full, a replica, or loading. Raises Unreachable or
    Refused.
    """
    end = time.monotonic() + timeout if timeout else math.inf

    async def begin() -> None:
        answers = False
        try:
            # A server that accepts connections without answering gets the remaining time.
            await connection.ping(max(0.1, end - time.monotonic()) if timeout else PATIENCE)
            answers = True
            await prepare()
        except Disconnected as error:
            if time.monotonic() < end:
                raise
            if answers:
                text = f"Redis at {name} is up but refuses commands (waited {timeout:g} s): {error}"
            else:
                text = f"no Redis at {name} within {timeout:g} s ({error}); is it running, and is the address right?"
            raise Unreachable(text) from None

    await Reconnect(Observer(), first=_FIRST_PAUSE, longest=_LONGEST_PAUSE).call(begin)


async def check_server(connection: Connection) -> None:
    """Raise Refused if the server is too old, or a Sentinel."""
    try:
        info = await connection.info()
    except Refused:
        info = {}  # the user may lack permission, and some servers (fakeredis) do not support it
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers and numbers < OLDEST:
        raise Refused(f"the server is Redis {version}; redis_worker needs 6.2 or later")
    check_no_sentinel(info)


def check_no_sentinel(info: dict[str, Any]) -> None:
    """Raise Refused if the INFO is that of a Sentinel."""
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):  # the latter in Valkey
        raise Refused("this is a Sentinel, which holds no data: use a URL redis+sentinel://host:port/service/0")


async def check_keys(connection: Connection, keys: Keys, forward: str | None = None) -> None:
    """Raise Refused if the input or output key, or `forward`, holds another type: no work is possible without them."""
    lists = [(key, "list", "input") for key in (keys.waiting, *keys.other_lists)]
    for key, kind, role in (*lists, (keys.output, "hash", "output"), (forward, "list", "forward")):
        if not key:
            continue  # topics have no output
        found = (await connection.call("TYPE", key)).decode()
        if found not in (kind, "none"):
            raise Refused(
                f"WRONGTYPE: the {role} key {key!r} holds a {found}, not a {kind}; name another key, or delete this one"
            )


def check_slots(keys: Keys) -> None:
    """Raise ConfigurationError if, in Redis Cluster, derived keys would lie in another slot than the queue."""
    if key_slot(keys.waiting.encode()) != key_slot(keys.workers.encode()):
        raise ConfigurationError(
            f"in Redis Cluster the input key {keys.waiting!r} cannot be used: its braces are not a hash tag; "
            "name it without braces, or with a tag such as {name}"
        )


def check_forward(keys: Keys, forward: str | None) -> None:
    """Raise ConfigurationError if, in Redis Cluster, results cannot be passed on in one step."""
    if forward is not None and len({key_slot(key.encode()) for key in (keys.waiting, keys.output, forward)}) > 1:
        raise ConfigurationError(
            f"in Redis Cluster results are passed on only within one slot: give the input key {keys.waiting!r}, the "
            f"output key {keys.output!r} and the list {forward!r} the same hash tag, as in {{name}}:in"
        )


def lie_apart(keys: Keys) -> bool:
    """Return True if, in Redis Cluster, the output hash lies in another slot than the queue."""
    return bool(key_slot(keys.waiting.encode()) != key_slot(keys.output.encode()))


async def check_expiry(connection: Connection, keys: Keys) -> None:
    """Raise Refused if the server cannot expire fields of a hash."""
    try:
        await connection.call("HTTL", keys.output, "FIELDS", 1, "")
    except Refused as error:
        raise Refused(
            f"results cannot expire: the server lacks HEXPIRE (Redis 7.4, Valkey 9); unset the result TTL ({error})"
        ) from None
