"""The tasks of a run, and their producers."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.chaos.server import persistent_call

# Pushes a batch once, even if the call is repeated because its reply was lost; with a delay, as schedule.lua does.
# KEYS 1 batches pushed, 2 the list, or the sorted set of delayed tasks
# ARGV 1 name of the batch, 2 delay in ms (0: none), 3 channel of delayed tasks, then the tasks
_PUSH = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 0 end
if ARGV[2] == '0' then
  for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
  return #ARGV - 3
end
local time = redis.call('TIME')
local due = time[1] * 1000 + math.ceil(time[2] / 1000) + ARGV[2]
for i = 4, #ARGV do redis.call('ZADD', KEYS[2], due, ARGV[1] .. '-' .. i .. ':' .. ARGV[i]) end
redis.call('PUBLISH', ARGV[3], '')
return #ARGV - 3
"""

_BATCH = 200
# Part of the tasks that is pushed at an even pace. The others come in bursts: a fault needs work to destroy.
_EVEN = 0.5
_TICK = 0.1


class Place(NamedTuple):
    """A key that a producer pushes to."""

    key: str
    marks: str
    """Key of the names of pushed batches, in the same slot."""
    delay: float = 0.0
    """Seconds until the tasks are due; then `key` is the sorted set of delayed tasks."""
    wake: str = ""
    """Channel to announce delayed tasks on."""


class Push(NamedTuple):
    """Tasks to be pushed together."""

    place: Place
    raws: Sequence[bytes]


class Producers:
    """A producer of tasks: it pushes half of them evenly over the run, half in bursts."""

    def __init__(
        self, connection: Connection, total: int, seconds: float, bursts: int, make: Callable[[int, int], list[Push]]
    ) -> None:
        """`make` returns the tasks of the numbers from the first one up to the second, exclusive."""
        self.total = total
        self.pushed = 0
        """Tasks that the server has confirmed."""
        self._connection = connection
        self._seconds = seconds
        self._make = make
        self._next = 0
        self._batches = 0
        self._even = int(total * _EVEN) if bursts else total
        self._burst = (total - self._even) // max(1, bursts)

    async def run(self) -> None:
        """Push the even part at its pace."""
        clock = asyncio.get_running_loop().time
        start, done = clock(), 0
        while done < self._even:
            await asyncio.sleep(_TICK)
            due = min(self._even, int(self._even * (clock() - start) / self._seconds) + 1)
            await self.push(due - done)
            done = due

    async def finish(self) -> None:
        """Push all tasks that are left."""
        while await self.push(_BATCH * 10):
            pass

    async def burst(self, part: float = 1.0) -> None:
        """Push the tasks that belong to one fault, or a part of them."""
        await self.push(math.ceil(self._burst * part))

    async def push(self, count: int) -> int:
        """Push the next `count` tasks, or those left. Return their number."""
        first, last = self._next, min(self.total, self._next + count)
        self._next = last  # others push while this one waits
        for push in self._make(first, last):
            for start in range(0, len(push.raws), _BATCH):
                await self._push(push.place, push.raws[start : start + _BATCH])
        return last - first

    async def _push(self, place: Place, raws: Sequence[bytes]) -> None:
        self._batches += 1
        arguments = (f"{self._batches:08}", int(place.delay * 1000), place.wake, *raws)
        await persistent_call(self._connection, "EVAL", _PUSH, 2, place.marks, place.key, *arguments)
        self.pushed += len(raws)


def chances(seed: int, number: int) -> random.Random:
    """Return the source of chance for a task: it depends on nothing but the seed and its number."""
    return random.Random(f"{seed}:{number}")
