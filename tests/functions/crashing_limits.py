"""Lives of functions under limits, whose worker is killed at one of its calls, for test_limit_crashes.py."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from redis_worker import Handle, Reject, Retry, TaskQueue
from redis_worker.functions.function import Call
from redis_worker.ports import Observer
from redis_worker.vocabulary.rate import Rate
from redis_worker.vocabulary.task import Outcome
from tests.crashes import serve

RETRIED, REJECTED, NOT_RUN = 1, 2, 6
"""Numbers of tasks that do not simply succeed: the last one never runs, since the one before it has failed."""
FILLER = 100
"""The number of tasks that run until they are let go."""
PRIORITIES = ("high", "default", "low")


@dataclass(frozen=True)
class Life:
    """The function of a life, and what its tasks are."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    """The limits that it declares."""
    keys: str = ""
    """The keys of the tasks, in turn."""
    priorities: Sequence[str] = ()
    """The priorities of the tasks, in turn."""
    slots: int = 4
    """The concurrency of the workers."""
    count: int = 5
    """How many tasks are submitted."""
    ended: int = 5
    """How many of them are settled by workers."""

    @property
    def rate(self) -> Rate | None:
        """The rate, if it has one."""
        return Rate.of("rate", self.limits["rate"]) if "rate" in self.limits else None

    @property
    def most(self) -> int:
        """The most tasks that may run at a time, for each key if there are keys; 0 without limits."""
        whole = self.limits.get("concurrency") or (self.rate.most if self.rate else 0)
        return min(filter(None, (self.limits.get("per_key", 0), whole)), default=0)

    def key_of(self, number: int) -> str:
        """Return the key of a task."""
        return self.keys[number % len(self.keys)]

    def priority_of(self, number: int) -> str:
        """Return the priority of a task."""
        return self.priorities[number % len(self.priorities)]


LIVES = {
    "concurrency": Life({"concurrency": 2}),
    "key": Life({"per_key": 1}, keys="aab"),
    "order": Life({"per_key": 1, "in_order": True}, keys="aab"),
    "rate": Life({"rate": "2/100ms"}),
    "flow": Life(count=7, ended=6),
    "priorities": Life(priorities=("low", "default", "high"), slots=1),
    "all": Life(
        {"rate": "3/50ms", "concurrency": 1, "per_key": 1, "in_order": True}, keys="ab", priorities=("low", "high")
    ),
}


class Work:
    """A queue with one function, which notes its runs in a file: a word, the number, the time and the process."""

    def __init__(self, name: str, url: str, queue: str, folder: str) -> None:
        """`queue` begins the names of the keys."""
        self.life = life = LIVES[name]
        self.log = Path(folder) / queue
        self.log.touch()
        self.filling = 0
        """How many of the fillers run."""
        self._go = asyncio.Event()
        priorities = PRIORITIES if life.priorities else None
        self.tasks = TaskQueue(
            url, f"{queue}:in", results=f"{queue}:out", priorities=priorities, result_ttl=None, error_ttl=None
        )

        @self.tasks.task(retries=2, **life.limits)
        async def step(number: int, before: int | None = 0) -> int:
            self.note("begin", number)
            await asyncio.sleep(0)
            try:
                if number == FILLER:
                    self.filling += 1
                    await self._go.wait()
                elif number == REJECTED:
                    raise Reject("not wanted")
                elif number == RETRIED and "failed" not in self.log.read_text():
                    self.note("failed", number)
                    raise Retry(delay=timedelta(milliseconds=10))
            finally:
                self.note("end", number)
            return number

        self.step = step

    def note(self, word: str, number: int) -> None:
        """Append a line to the log, in one write: a kill leaves no part of it."""
        with self.log.open("ab", buffering=0) as log:
            log.write(f"{word} {number} {time.monotonic()} {os.getpid()}\n".encode())

    async def submit(self) -> list[Handle[int]]:
        """Submit the tasks; their numbers are their positions."""
        if self.life != LIVES["flow"]:
            return await self.tasks.submit_many([self._call(number) for number in range(self.life.count)])
        first, retried, rejected = await self.tasks.submit_many([self._call(number) for number in range(3)])
        return [
            *(first, retried, rejected),
            await self.step.submit(3, before=first.as_input),
            await self.step.options(after=[first, retried]).submit(4),
            await self.step.options(on_failure="run").submit(5, before=rejected.as_input),
            await self.step.submit(NOT_RUN, before=rejected.as_input),
        ]

    async def fill(self, key: str) -> list[Handle[int]]:
        """Submit as many tasks as may begin at once, with this key if they have keys."""
        self.filling = 0
        self._go.clear()
        return await self.tasks.submit_many([self._call(FILLER, key)] * self.life.most)

    def empty(self) -> None:
        """Let the fillers end."""
        self._go.set()

    def _call(self, number: int, key: str = "") -> Call[int]:
        """Return the call of a task, with its key and its priority."""
        options = dict[str, Any]()
        if self.life.keys:
            options["key"] = key or self.life.key_of(number)
        if self.life.priorities:
            options["priority"] = self.life.priority_of(number)
        return self.step.options(**options).call(number)


class Watch(Observer):
    """An observer that counts the tasks that have ended."""

    def __init__(self, count: int) -> None:
        self.done = asyncio.Event()
        self._left = count

    def settled(self, outcomes: Sequence[Outcome]) -> None:
        self._left -= sum(outcome.again is None for outcome in outcomes)
        if self._left <= 0:
            self.done.set()


async def live(name: str, url: str, queue: str, folder: str) -> None:
    """Work until all tasks have ended."""
    work = Work(name, url, queue, folder)
    watch = Watch(work.life.ended)
    async with work.tasks.worker(work.life.slots, observers=[watch], lease=60):
        await watch.done.wait()
    await work.tasks.close()


def main() -> None:
    serve(live)
