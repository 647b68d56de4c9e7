"""The lists, sorted sets and in-flight hashes of a server, rebuilt from its journal, as changes of single elements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import NamedTuple

from redis_worker.broker.keys import LAST, TASKS
from redis_worker.chaos.journal import Command
from redis_worker.vocabulary.errors import RedisWorkerError

_TASKS, _LAST = TASKS.encode(), LAST.encode()


class Change(NamedTuple):
    """An element that entered a key, or left it."""

    key: bytes
    element: bytes
    """The element of a list, the member of a sorted set, the field of a hash; a task in flight."""
    entered: bool
    by: bytes
    """The command."""
    value: bytes = b""
    """The score of a member, or the value of a field."""


class Replay:
    """The state after the commands so far. It knows the commands that redis_worker sends, and refuses others."""

    def __init__(self) -> None:
        self._lists: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self._sorted: defaultdict[bytes, dict[bytes, float]] = defaultdict(dict)
        self._held: defaultdict[bytes, dict[bytes, bytes]] = defaultdict(dict)
        """The hashes of tasks in flight: number -> task."""
        self._commands: dict[bytes, Callable[..., Iterator[Change]]] = {
            b"RPUSH": self._rpush, b"LPUSH": self._lpush, b"LMOVE": self._lmove, b"LPOP": self._lpop,
            b"LTRIM": self._ltrim, b"LREM": self._lrem, b"LSET": self._lset, b"ZADD": self._zadd, b"ZREM": self._zrem,
            b"ZREMRANGEBYSCORE": self._zremrangebyscore, b"ZREMRANGEBYRANK": self._zremrangebyrank,
            b"HSET": self._hset, b"HDEL": self._hdel, b"SORT": self._sort,
            b"DEL": self._delete, b"UNLINK": self._delete,
        }  # fmt: skip

    def apply(self, command: Command) -> Iterator[Change]:
        """Yield the changes that a command makes. Raises RedisWorkerError if it changes a list in an unknown way."""
        name = command[0].upper()
        change = self._commands.get(name)
        if change is not None:
            yield from change(*command[1:])
        elif name.startswith((b"L", b"RPO", b"BL", b"BR", b"RENAME", b"FLUSH")):
            raise RedisWorkerError(f"the ledger cannot follow the command {name.decode()}")

    def members(self, key: bytes) -> dict[bytes, float]:
        """Return the members of a sorted set, with their scores."""
        return self._sorted[key]

    def elements(self, key: bytes) -> list[bytes]:
        """Return the elements of a list."""
        return self._lists[key]

    def held(self, key: bytes) -> dict[bytes, bytes]:
        """Return the tasks of a hash of tasks in flight, by number."""
        return self._held[key]

    def _rpush(self, key: bytes, *elements: bytes) -> Iterator[Change]:
        self._lists[key] += elements
        yield from (Change(key, element, True, b"RPUSH") for element in elements)

    def _lpush(self, key: bytes, *elements: bytes) -> Iterator[Change]:
        self._lists[key][:0] = reversed(elements)
        yield from (Change(key, element, True, b"LPUSH") for element in elements)

    def _lmove(self, source: bytes, target: bytes, source_end: bytes, target_end: bytes) -> Iterator[Change]:
        # Redis 7.0 writes the ends of a BLMOVE that has waited in lower case.
        element = self._lists[source].pop(0 if source_end.upper() == b"LEFT" else -1)
        self._lists[target].insert(0 if target_end.upper() == b"LEFT" else len(self._lists[target]), element)
        yield Change(source, element, False, b"LMOVE")
        yield Change(target, element, True, b"LMOVE")

    def _sort(self, source: bytes, *arguments: bytes) -> Iterator[Change]:
        # A claim of large tasks: BY nosort LIMIT first count STORE target.
        first, count, target = int(arguments[3]), int(arguments[4]), arguments[6]
        copied = self._lists[source][first : first + count]
        yield from self._cut(target, slice(None), b"SORT")
        yield from self._rpush(target, *copied)

    def _lpop(self, key: bytes, count: bytes = b"1") -> Iterator[Change]:
        return self._cut(key, slice(0, int(count)), b"LPOP")

    def _ltrim(self, key: bytes, first: bytes, last: bytes) -> Iterator[Change]:
        length = len(self._lists[key])
        start, end = (place if place >= 0 else max(0, length + place) for place in (int(first), int(last)))
        kept = range(start, min(end + 1, length)) if length + int(last) >= 0 else range(0)
        yield from self._cut(key, slice(kept.stop if kept else 0, None), b"LTRIM")
        yield from self._cut(key, slice(0, kept.start if kept else 0), b"LTRIM")

    def _lset(self, key: bytes, index: bytes, element: bytes) -> Iterator[Change]:
        # A large task whose flight has ended: its place stays, and is empty.
        yield Change(key, self._lists[key][int(index)], False, b"LSET")
        self._lists[key][int(index)] = element

    def _cut(self, key: bytes, which: slice, by: bytes) -> Iterator[Change]:
        gone = self._lists[key][which]
        del self._lists[key][which]
        yield from (Change(key, element, False, by) for element in gone if element)

    def _lrem(self, key: bytes, count: bytes, element: bytes) -> Iterator[Change]:
        found = self._lists[key]
        if int(count) > 0:
            found.remove(element)
        else:
            del found[len(found) - 1 - found[::-1].index(element)]
        yield Change(key, element, False, b"LREM")

    def _zadd(self, key: bytes, *arguments: bytes) -> Iterator[Change]:
        options = 1 if arguments[0] in {b"NX", b"XX"} else 0
        for score, member in zip(arguments[options::2], arguments[options + 1 :: 2], strict=True):
            known = member in self._sorted[key]
            if not (known and arguments[0] == b"NX"):
                self._sorted[key][member] = float(score)
            if not known:
                yield Change(key, member, True, b"ZADD", score)

    def _zrem(self, key: bytes, *members: bytes) -> Iterator[Change]:
        for member in members:
            if member in self._sorted[key]:
                score = self._sorted[key].pop(member)
                yield Change(key, member, False, b"ZREM", b"%f" % score)

    def _zremrangebyscore(self, key: bytes, _: bytes, most: bytes) -> Iterator[Change]:
        return self._zrem(key, *[member for member, score in self._sorted[key].items() if score <= float(most)])

    def _zremrangebyrank(self, key: bytes, first: bytes, last: bytes) -> Iterator[Change]:
        ranked = sorted(self._sorted[key], key=lambda member: (self._sorted[key][member], member))
        return self._zrem(key, *ranked[int(first) : int(last) + 1])

    def _hset(self, key: bytes, *pairs: bytes) -> Iterator[Change]:
        for field, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not key.endswith(_TASKS):
                yield Change(key, field, True, b"HSET", value)
            elif field != _LAST:
                yield from self._hdel(key, field)  # a number that is given twice loses a task
                self._held[key][field] = value
                yield Change(key, value, True, b"HSET")

    def _hdel(self, key: bytes, *fields: bytes) -> Iterator[Change]:
        for field in fields:
            if not key.endswith(_TASKS):
                yield Change(key, field, False, b"HDEL")
            elif field in self._held[key]:
                yield Change(key, self._held[key].pop(field), False, b"HDEL")

    def _delete(self, *keys: bytes) -> Iterator[Change]:
        for key in keys:
            yield from self._cut(key, slice(None), b"DEL")
            yield from self._zrem(key, *list(self._sorted[key]))
            yield from self._hdel(key, *list(self._held[key]))
