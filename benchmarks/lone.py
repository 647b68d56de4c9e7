"""A probe: the cost of one lone task and of one lone message, as JSON: python benchmarks/lone.py URL.

`PYTHONPATH` names the checkout to measure; only public names of it are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from statistics import median_low
from typing import Any

from redis import Redis

from redis_worker import Message, TopicWorker, WorkerPool

_SAMPLES = 7
# Seconds before a push, so that the worker waits, and after it, until all its work is done.
_PAUSE, _WINDOW = (0.02, 0.04), 0.08


class Meter:
    """Counters of the Python frames that the main thread enters, and of the commands that others send to the server."""

    def __init__(self, url: str) -> None:
        self.pusher: Any = Redis.from_url(url, protocol=2)
        self._port = str(self.pusher.client_info()["addr"]).rpartition(":")[2]
        monitoring: Any = Redis.from_url(url, protocol=2)
        self._monitor = monitoring.monitor()
        self._frames = 0
        self._commands: list[str] = []

    async def cost(self, worker: AbstractAsyncContextManager[Any], push: Callable[[int], Any]) -> dict[str, int]:
        """Return the median cost of a push to an idle `worker`; its periodic work is outside most samples."""
        with self._monitor:
            async with worker:
                threading.Thread(target=self._listen, daemon=True).start()
                await asyncio.sleep(0.5)
                sys.setprofile(self._count)
                try:
                    samples = await asyncio.to_thread(lambda: [self._sample(push, n) for n in range(_SAMPLES)])
                finally:
                    sys.setprofile(None)
        frames, commands, claims = map(median_low, zip(*samples, strict=True))
        return {"frames": frames, "commands": commands, "claims": claims}

    def _sample(self, push: Callable[[int], Any], number: int) -> tuple[int, int, int]:
        time.sleep(random.uniform(*_PAUSE))
        frames, seen = self._frames, len(self._commands)
        push(number)
        time.sleep(_WINDOW)
        sent = self._commands[seen:]
        claims = sum(":paused" in command for command in sent)  # a key of no other script
        return self._frames - frames, len(sent), claims

    def _count(self, _frame: Any, event: str, _argument: Any) -> None:
        self._frames += event == "call"

    def _listen(self) -> None:
        with contextlib.suppress(Exception):  # the end of the connection
            for command in self._monitor.listen():
                if command["client_type"] != "lua" and command["client_port"] != self._port:
                    self._commands.append(command["command"])


async def lone_task(url: str) -> dict[str, int]:
    """Return the cost of a task for an inline processor."""
    meter = Meter(url)
    pool = WorkerPool(url, "lone:in", "lone:out", "list", "sum")
    return await meter.cost(pool, lambda n: meter.pusher.rpush("lone:in", f'{{"id":{n},"task":[1,2]}}'))


async def lone_message(url: str) -> dict[str, int]:
    """Return the cost of a message for a coroutine."""
    meter = Meter(url)
    worker = TopicWorker(url)

    @worker.handler("lone")
    async def handle(message: Message) -> None:
        pass

    return await meter.cost(worker, lambda n: meter.pusher.rpush("mq:lone", f'{{"id":{n},"data":1}}'))


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import uvloop

        uvloop.install()
    address = sys.argv[1]
    print(json.dumps({"task": asyncio.run(lone_task(address)), "message": asyncio.run(lone_message(address))}))
