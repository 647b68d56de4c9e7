"""What tests share: waiting, worker processes, and the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from redis_worker.broker.keys import BUNDLES, LAST, Keys, topic_list
from redis_worker.engine.counters import Counters
from redis_worker.vocabulary.service import Condition, Consuming, PartStatus

ROOT = Path(__file__).parent.parent
# Generous: a test fails by what it sees, not by how long a busy machine takes to show it.
PATIENCE = 60.0


async def wait_until(condition: Callable[[], Any], what: str = "the condition", seconds: float = PATIENCE) -> Any:
    """The first true value of `condition`, plain or async. Fails when there is none in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds:g} s for {what}"
        await asyncio.sleep(0.01)


async def rounds_until(
    condition: Callable[[], Any], what: str = "the condition", seconds: float = 2 * PATIENCE
) -> AsyncIterator[int]:
    """Yield 0, 1, 2 … until `condition`, plain or async, is true before a round. Fails when it is not in time."""
    end, number = time.monotonic() + seconds, 0
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return
        assert time.monotonic() < end, f"waited {seconds:g} s, and {number} rounds, for {what}"
        yield number
        number += 1


def ended_in_time(condition: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether `condition` becomes true in time; it is asked without an event loop."""
    end = time.monotonic() + seconds
    while not (true := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return true


class CommandProcess:
    """A real `redis-worker` process, by its arguments."""

    def __init__(
        self,
        *arguments: str,
        env: dict[str, str] | None = None,
        cwd: Path = ROOT,
        limit_files: int | None = None,
        program: str = "redis_worker",
    ) -> None:
        """`limit_files` is how many files it may have open at once, `program` the module that is run."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        limit = [] if limit_files is None else ["prlimit", f"--nofile={limit_files}"]
        self.process = subprocess.Popen(
            [*limit, sys.executable, "-W", "error", "-m", program, *arguments],
            cwd=cwd,
            env=os.environ | (env or {}),
            stderr=self._log,
            stdout=subprocess.DEVNULL,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """What it has written to standard error, so far."""
        # Read at a place of its own: the position in the file is the process's as well, and it writes there.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode()

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def said(self, text: str) -> None:
        """Wait until `text` is in its log."""
        await wait_until(lambda: text in self.log or not self.alive, f"the process to say {text!r}")
        assert text in self.log, self.log

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP, and wait until it stands still."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    async def ended(self) -> int:
        """The exit code, once it has ended."""
        await wait_until(lambda: not self.alive, f"the worker to end, which wrote\n{self.log}")
        return self.process.returncode

    def close(self) -> None:
        if self.alive:
            self.kill()
        self._log.close()


class WorkerProcess(CommandProcess):
    """A real `redis-worker run` process, or a fleet of them."""

    def __init__(self, url: str, keys: Keys, *arguments: str, processor: str = "sum", **options: Any) -> None:
        """`options` are those of CommandProcess."""
        self.url = url
        queue = ("--input", keys.waiting, "--output", keys.output)
        super().__init__("run", "--url", url, *queue, "--processor", processor, *arguments, **options)

    async def started(self) -> WorkerProcess:
        await wait_until(lambda: " -> " in self.log or not self.alive, "the worker to start")
        assert self.alive, self.log
        return self


class Several:
    """What a supervisor is to those who look at it."""

    service = "shop"

    def __init__(self, *parts: PartStatus) -> None:
        self.counters = Counters()
        self.condition: Condition = "running"
        self.statuses = list(parts)
        self.queues: list[Consuming] = []

    def consuming(self) -> list[Consuming]:
        return self.queues

    def parts(self) -> list[PartStatus]:
        return self.statuses


class Queue:
    """A queue of a test's own, pushed to and read as foreign programs do."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys

    async def push(self, *payloads: Any) -> None:
        """Push payloads: bytes as they are, anything else as JSON."""
        raws = [payload if isinstance(payload, bytes) else json.dumps(payload).encode() for payload in payloads]
        for start in range(0, len(raws), 1000):
            await self.redis.rpush(self.keys.waiting, *raws[start : start + 1000])

    async def push_tasks(self, tasks: Iterable[Any], first: int = 0) -> None:
        await self.push(*({"id": id, "task": task} for id, task in enumerate(tasks, first)))

    async def waiting(self) -> list[bytes]:
        return await self.redis.lrange(self.keys.waiting, 0, -1)

    async def result(self, id: str | int) -> dict[str, Any] | None:
        raw = await self.redis.hget(self.keys.output, str(id))
        return json.loads(raw) if raw is not None else None

    async def results(self) -> dict[str, dict[str, Any]]:
        return {key.decode(): json.loads(raw) for key, raw in (await self.redis.hgetall(self.keys.output)).items()}

    async def answered(self, count: int) -> bool:
        return bool(await self.redis.hlen(self.keys.output) >= count)

    async def dead(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in await self.redis.lrange(self.keys.dead, 0, -1)]

    async def inflight(self) -> list[bytes]:
        """What all workers hold."""
        names = [key async for key in self.redis.scan_iter(f"*{self.keys.listed('*')}", count=1000)]
        names.sort(key=lambda name: (len(name), name))  # bundles by their numbers
        return [raw for name in names for raw in await held_in(self.redis, name)]

    async def buried(self, living: int = 1) -> bool:
        """Whether all dead workers have been noticed, so that only `living` ones are registered."""
        return bool(await self.redis.zcard(self.keys.workers) <= living)

    async def ledger(self) -> Counter[str]:
        """In how many places each id is, at one moment: once in each, or something is wrong.

        An answered task that is also a dead letter counts once: both were written in one step.
        """
        keys = self.keys
        waiting, held, answered, dead, delayed = await self.redis.eval(
            _LEDGER, 4, keys.waiting, keys.output, keys.dead, keys.delayed, keys.listed("")
        )
        put_off = (raw.partition(b":")[2] for raw in delayed)
        places = Counter(str(json.loads(raw)["id"]) for raw in (*waiting, *held, *put_off))
        letters = {str(json.loads(raw)["id"]) for raw in dead}
        places.update({id.decode() for id in answered} | letters)
        return places


class Topic(Queue):
    """A topic of a test's own: a queue whose tasks are messages."""

    def __init__(self, redis: Redis, name: str) -> None:
        super().__init__(redis, Keys(topic_list(name)))
        self.name = name

    async def delayed(self) -> dict[bytes, int]:
        """What is put off, and when it is due, in ms."""
        found = await self.redis.zrange(self.keys.delayed, 0, -1, withscores=True)
        return {member.partition(b":")[2]: int(score) for member, score in found}


class DueTimes:
    """What ran before it was due, by the server's clock, and how often each ran: none early, each once."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self.runs: Counter[int] = Counter()
        self.early: list[float] = []

    async def due_in(self, delay: float) -> float:
        """The time of the server in so many seconds."""
        seconds, micros = await self._redis.time()
        return float(seconds + micros / 1e6 + delay)

    async def ran(self, number: int, due: float) -> None:
        """Note that it runs now."""
        self.runs[number] += 1
        if await self.due_in(0) < due - 1e-6:  # what a float holds of a clock
            self.early.append(due)

    def check(self, count: int) -> None:
        assert self.early == []
        assert self.runs == dict.fromkeys(range(count), 1)


def assert_each_second_once(instants: Iterable[float]) -> None:
    """The instants of a job for each second: none of them twice, and none left out. In any order."""
    found = sorted(instants)
    assert found == [found[0] + number for number in range(len(found))]


async def held_in(redis: Redis, key: str | bytes) -> list[bytes]:
    """Return the tasks in a hash or list of tasks in flight, in the order of their claim."""
    kind, key_text = await redis.type(key), key if isinstance(key, str) else key.decode()
    if kind == b"list":
        return list(filter(None, await redis.lrange(key, 0, -1)))  # what has left a bundle is blank
    if kind in (b"set", b"none") or key_text.endswith(BUNDLES):
        return []  # numbers of tasks that are in lists; or a key that ended, and may be a list by the next call
    fields = await redis.hgetall(key)
    return [fields[number] for number in sorted(fields.keys() - {LAST.encode()}, key=int)]


async def hold(redis: Redis, keys: Keys, worker: str, *raws: bytes) -> None:
    """Put tasks in flight, as if `worker` had claimed them."""
    numbered = {str(number): raw for number, raw in enumerate(raws, 1)}
    await redis.hset(keys.inflight(worker), mapping={LAST: f"{len(raws):<80}", **numbered})


# KEYS 1 waiting, 2 output, 3 dead, 4 delayed; ARGV 1 stem of the in-flight keys
_LEDGER = """
local held = {}
for _, key in ipairs(redis.call('KEYS', '*' .. ARGV[1]:gsub('[%[%]*?\\\\]', '?') .. '*')) do
  if redis.call('TYPE', key).ok == 'list' then
    for _, raw in ipairs(redis.call('LRANGE', key, 0, -1)) do
      if raw ~= '' then held[#held + 1] = raw end
    end
  elseif redis.call('TYPE', key).ok == 'hash' and not key:find(':bundles$') then
    local fields = redis.call('HGETALL', key)
    for i = 1, #fields, 2 do
      if fields[i] ~= 'last' then held[#held + 1] = fields[i + 1] end
    end
  end
end
return {
  redis.call('LRANGE', KEYS[1], 0, -1), held, redis.call('HKEYS', KEYS[2]), redis.call('LRANGE', KEYS[3], 0, -1),
  redis.call('ZRANGE', KEYS[4], 0, -1)
}
"""
