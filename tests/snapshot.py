"""All keys of a queue, in the terms of the model."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from redis.asyncio import Redis

from redis_worker.broker.keys import BUNDLES, LAST, TASKS, Keys, bundled
from tests.clock import CLOCK
from tests.model import Letter

_SNAPSHOT = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, value = redis.call('TYPE', key).ok, nil
  if kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'set' then value = redis.call('SMEMBERS', key)
  elseif kind == 'hash' then value = redis.call('HGETALL', key)
  else value = {redis.call('GET', key)} end
  found[#found + 1] = {key, kind, value, redis.call('PTTL', key)}
end
return found
"""


async def all_keys(redis: Redis) -> tuple[dict[str, Any], dict[str, int]]:
    """Return the content of all keys but the clock, as lists, dictionaries or bytes, and their PTTL."""
    found: dict[str, Any] = {}
    expiries = {}
    for name, kind, value, expiry in await redis.eval(_SNAPSHOT, 0):
        if (key := name.decode()) == CLOCK:
            continue
        expiries[key] = expiry
        pairs = list(zip(value[::2], value[1::2], strict=False))
        if kind == b"list":
            found[key] = value
        elif kind == b"set":
            found[key] = set(value)
        elif kind == b"zset":
            found[key] = {member: float(score) for member, score in pairs}
        else:
            found[key] = dict(pairs) if kind == b"hash" else value[0]
    return found, expiries


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return what differs, by key: as found, and as expected."""
    keys = found.keys() | expected.keys()
    return {key: (found.get(key), expected.get(key)) for key in keys if found.get(key) != expected.get(key)}


async def queue_keys(redis: Redis, keys: Keys, raws: Iterable[bytes]) -> tuple[dict[str, Any], dict[str, int]]:
    """Return all keys as `Server.snapshot` does, for tasks `raws`, and their PTTL."""
    found, expiries = await all_keys(redis)
    for key in [key for key in found if key.endswith(BUNDLES)]:
        held = found[key.removesuffix(BUNDLES) + TASKS]
        for first, marks in found.pop(key).items():
            bundle = dict(enumerate(found.pop(f"{key}:{first.decode()}"), int(first)))
            held |= {b"%d" % number: bundle.pop(number) for number in bundled(int(first), marks)}
            assert not any(bundle.values()), "the memory of a task ends with it"
    special = {
        keys.dead: lambda letters: [_letter(letter) for letter in letters],
        keys.delayed: lambda members: [(due, member.partition(b":")[2]) for member, due in members.items()],
        keys.attempts: lambda fields: _counts(fields, raws),
        keys.presence: lambda fields: {name.decode() for name in fields},
        keys.begun: lambda fields: {id.decode(): _holder(holder) for id, holder in fields.items()},
        keys.paused: bool,
        keys.dropped: int,
    }
    for key, value in found.items():
        if key in special:
            found[key] = special[key](value)
        elif key.endswith(TASKS):
            found[key] = {LAST if name.decode() == LAST else int(name): raw for name, raw in value.items()}
            found[key][LAST] = int(found[key][LAST])
        elif isinstance(value, dict):
            found[key] = {member.decode(): content for member, content in value.items()}
    return found, expiries


def _letter(stored: bytes) -> Letter:
    fields = json.loads(stored)
    fields.pop("trace", None)
    assert fields.keys() == {"raw", "id", "reason", "attempts", "at", "worker"}
    return Letter(fields["raw"].encode(), fields["id"], fields["reason"], fields["attempts"], fields["worker"])


def _counts(fields: dict[bytes, bytes], raws: Iterable[bytes]) -> dict[str, Counter[bytes]]:
    tasks = {hashlib.sha1(raw).hexdigest(): raw for raw in raws}
    counts: dict[str, Counter[bytes]] = {"d": Counter(), "r": Counter()}
    for name, number in fields.items():
        counts[name[:1].decode()][tasks[name[1:].decode()]] = int(number)
    return counts


def _holder(text: bytes) -> tuple[str, int]:
    worker, _, number = text.partition(b"\n")
    return worker.decode(), int(number)
