"""The steps of the demo."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.demo.display import Display
from redis_worker.demo.files import HOST, FileServer
from redis_worker.demo.ledger import Account, account, table
from redis_worker.demo.plan import Plan, download_count, files_to_serve, make_plan
from redis_worker.demo.queue import DemoQueue
from redis_worker.demo.workers import CONCURRENCY, LEASE, Crew, WorkerProcess
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.errors import RedisWorkerError

_PROCESSORS = ("sum", "add100", "fibonacci", "download")
_TICK = 0.05
# No step takes this long, in seconds, even on a slow machine.
_PATIENCE = 30.0

_WELL = "Every task has the expected result."


async def tell(tasks: int, display: Display) -> int:
    """Run the demo. Return 0, or 1 if a task was lost or has a wrong result. Raises RedisWorkerError."""
    async with AsyncExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        # In the server's folder, which is removed even if the demo is killed.
        folder = server.folder / "demo"
        downloads = folder / "downloads"
        downloads.mkdir(parents=True)
        connection = Connection(address_of(server.url).open(), owned=True)
        stack.push_async_callback(connection.close)
        files = await stack.enter_async_context(FileServer(before_pause=download_count(tasks) // 3))
        plan = make_plan(tasks, files.url, downloads)
        files.files = files_to_serve(plan)
        crew = stack.enter_context(Crew(server.url, folder, downloads))
        display.say(f"Redis listens on {HOST}:{server.port}, the file server on {HOST}:{files.port}")
        return await _Story(display, connection, files, plan, crew).tell()


class _Stalled(RedisWorkerError):
    """A step without progress."""

    def __init__(self, awaited: str) -> None:
        super().__init__(f"timed out waiting for {awaited}: no progress for {_PATIENCE:g} s")


class _Story:
    def __init__(self, display: Display, connection: Connection, files: FileServer, plan: Plan, crew: Crew) -> None:
        self._display = display
        self._files = files
        self._plan = plan
        self._crew = crew
        self._queues = {processor: DemoQueue(connection, processor) for processor in _PROCESSORS}
        self._settled = dict.fromkeys(_PROCESSORS, 0)
        self._moved = time.monotonic()

    async def tell(self) -> int:
        survivor, victim = await self._start_workers()
        await self._push()
        try:
            await self._kill_one(survivor, victim)
            await self._until(self._all_settled, "all tasks to be done")
        except _Stalled as stalled:
            self._display.say(str(stalled), "bad")  # the ledger shows the outcome of each task
        self._crew.stop()
        await self._until(self._crew.has_ended, "the workers to stop")
        self._display.say("all workers stopped gracefully")
        return await self._close_the_books()

    async def _start_workers(self) -> tuple[WorkerProcess, WorkerProcess]:
        """Start a worker for each queue and a second one for the downloads. Return both download workers."""
        for processor in ("sum", "add100", "fibonacci"):
            self._crew.start(processor, self._queues[processor])
        survivor, victim = (self._crew.start(f"download-{n}", self._queues["download"]) for n in (1, 2))

        async def all_work() -> bool:
            return all([await member.queue.worker_of(member.pid) for member in self._crew.members])

        await self._until(all_work, "the workers to start")
        titles = ", ".join(member.title for member in self._crew.members)
        self._display.say(f"{len(self._crew.members)} worker processes run: {titles}")
        return survivor, victim

    async def _push(self) -> None:
        for processor, tasks in self._plan.items():
            await self._queues[processor].push([task.raw for task in tasks])
        everything = [task for tasks in self._plan.values() for task in tasks]
        wrong = sum(task.fate == "failed" for task in everything)
        unreadable = sum(task.fate == "dead" for task in everything)
        self._display.say(
            f"{len(everything):,} tasks pushed; {wrong} must fail and {unreadable} are not JSON, on purpose"
        )

    async def _kill_one(self, survivor: WorkerProcess, victim: WorkerProcess) -> None:
        """Kill the victim while it holds tasks; wait until the survivor recovers them."""
        queue = victim.queue
        name = await queue.worker_of(victim.pid)
        assert name is not None

        async def is_busy() -> bool:
            return self._files.paused and await queue.held_by(name) >= CONCURRENCY

        await self._until(is_busy, f"{victim} to be busy")
        victim.kill()
        killed = time.monotonic()
        held = await queue.held_by(name)
        self._display.say(f"{victim} holds {held} tasks: kill -9 sent", "bad")
        self._files.resume()
        self._display.say(f"{survivor.title} continues alone; the dead worker's lease ends within {LEASE} s")

        await self._until(lambda: survivor.recovered(name) is not None, f"{survivor} to recover {held} tasks")
        seconds = time.monotonic() - killed
        count = survivor.recovered(name)
        news = f"{survivor.title} recovered {count} tasks of the dead worker after {seconds:.1f} s"
        self._display.say(news, "good")

    def _all_settled(self) -> bool:
        return all(self._settled[processor] >= len(tasks) for processor, tasks in self._plan.items())

    async def _close_the_books(self) -> int:
        accounts = {name: await account(queue, self._plan[name]) for name, queue in self._queues.items()}
        again, sums = self._crew.claimed_again(), sum(accounts.values(), Account())
        fault = _fault(sums, again)
        last = f"  {again} delivered again, lost {sums['lost']}. {fault or _WELL}"
        self._display.finish(table(accounts), last, "bad" if fault else "good")
        return 1 if fault else 0

    async def _until(self, reached: Callable[[], bool | Awaitable[bool]], awaited: str) -> None:
        """Show the progress until `reached` returns True. Raises _Stalled, and RedisWorkerError if a worker fails."""
        self._moved = time.monotonic()
        while not (await found if isinstance(found := reached(), Awaitable) else found):
            if time.monotonic() - self._moved > _PATIENCE:
                raise _Stalled(awaited)
            await asyncio.sleep(_TICK)
            await self._update()

    async def _update(self) -> None:
        self._crew.has_ended()
        for processor, queue in self._queues.items():
            settled = await queue.settled()
            if settled != self._settled[processor]:
                self._settled[processor], self._moved = settled, time.monotonic()
            self._display.show(processor, settled, len(self._plan[processor]))


def _fault(sums: Account, again: int) -> str:
    """Return the broken promise, or an empty text."""
    for count, text in (("lost", "tasks are lost"), ("wrong", "results or dead letters are wrong")):
        if sums[count]:
            return f"{sums[count]} {text}: this is a defect, please report it."
    if not again:
        return "But the killed worker held no task, so this proves nothing: please report it."
    return ""
