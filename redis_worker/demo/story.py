"""The steps of the demo: real workers, one of them killed, and the ledgers of chaos, which follow each task."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TypeAlias

from redis_worker.broker.keys import Keys, tasks_among
from redis_worker.chaos.display import Display, open_display
from redis_worker.chaos.ledger import Promise, TaskLedger
from redis_worker.chaos.processes import Processes, WorkerProcess
from redis_worker.chaos.server import PrivateServer
from redis_worker.demo.files import HOST, FileServer
from redis_worker.demo.plan import Plan, Planned, download_count, files_to_serve, make_plan
from redis_worker.vocabulary.errors import RedisWorkerError

_CONCURRENCY = 4
# The shortest lease: another worker soon recovers a dead worker's tasks.
_LEASE = 2
_BATCH = 500
_TICK = 0.05
# No step takes this long, in seconds, even on a slow machine.
_PATIENCE = 30.0

_WELL = "Every task has the expected result."

Account: TypeAlias = Counter[str]
"""Outcome counts of a queue's tasks.

`succeeded`, `failed` (as planned) and `dead` (unreadable, found in the dead letters) are as expected. `wrong` are
unexpected or incorrect results and dead letters, `lost` are tasks with neither a result nor a dead letter.
"""

_COLUMNS = {
    "pushed": "pushed",
    "succeeded": "succeeded",
    "failed": "failed as expected",
    "dead": "dead letters",
    "wrong": "wrong",
    "lost": "lost",
}


def run_demo(tasks: int) -> int:
    """Run the demo with at least 100 tasks. Return 0, or 1 if a task was lost or has a wrong result.

    Raises RedisWorkerError.
    """
    with open_display() as display:
        return asyncio.run(_tell(tasks, display))


async def _tell(tasks: int, display: Display) -> int:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(PrivateServer())
        # In the server's folder, which is removed even if the demo is killed.
        folder = server.embedded.folder / "demo"
        downloads = folder / "downloads"  # where the processor of a worker in `folder` stores files
        downloads.mkdir(parents=True)
        files = stack.enter_context(FileServer(before_pause=download_count(tasks) // 3))
        plan = make_plan(tasks, files.url, downloads)
        files.files = files_to_serve(plan)
        processes = stack.enter_context(Processes(folder))
        display.say(f"Redis listens on {HOST}:{server.embedded.port}, the file server on {HOST}:{files.server_port}")
        return await _Story(display, server, files, plan, processes).run()


def open_ledger(keys: Keys, plan: Sequence[Planned]) -> TaskLedger:
    """Return the ledger of a queue, which expects the tasks of its plan."""
    ledger = TaskLedger([keys], Promise())
    for task in plan:
        if task.fate == "dead":
            ledger.expect(task.id, task.raw, "dead")
        else:
            ledger.expect(task.id, task.raw, "answered", task.is_answered_by)
    return ledger


def account(ledger: TaskLedger, plan: Sequence[Planned]) -> Account:
    """Close the ledger, and count the tasks of the plan by their outcomes."""
    ledger.close()
    offenders = {violation.id for violation in ledger.violations}
    lost = ledger.unsettled()
    found: Account = Counter(task.fate for task in plan if task.id not in offenders)
    found.update(pushed=len(plan), wrong=len(ledger.violations) - lost, lost=lost)
    return found


class _Stalled(RedisWorkerError):
    """A step without progress."""

    def __init__(self, awaited: str) -> None:
        super().__init__(f"timed out waiting for {awaited}: no progress for {_PATIENCE:g} s")


class _Story:
    def __init__(
        self, display: Display, server: PrivateServer, files: FileServer, plan: Plan, workers: Processes
    ) -> None:
        self._display = display
        self._server = server
        self._call = server.connection.call
        self._files = files
        self._plan = plan
        self._workers = workers
        self._keys = {processor: Keys(f"demo:{processor}:input", f"demo:{processor}:output") for processor in plan}
        self._ledgers = {processor: open_ledger(self._keys[processor], tasks) for processor, tasks in plan.items()}
        self._moved = time.monotonic()

    async def run(self) -> int:
        survivor, victim = await self._start_workers()
        await self._push()
        try:
            await self._kill_one(survivor, victim)
            await self._until(self._all_settled, "all tasks to be done")
        except _Stalled as stalled:
            self._display.say(str(stalled), "bad")  # the ledger shows the outcome of each task
        for worker in self._workers.started:
            worker.stop()
        await self._until(self._all_ended, "the workers to stop")
        self._display.say("all workers stopped gracefully")
        return self._close_the_books()

    async def _start_workers(self) -> list[WorkerProcess]:
        """Start a worker for each queue and a second one for the downloads. Return both download workers."""
        titles = {"sum": "sum", "add100": "add100", "fibonacci": "fibonacci"}
        titles |= {"download-1": "download", "download-2": "download"}
        workers = {self._start(title, processor): processor for title, processor in titles.items()}

        async def all_work() -> bool:
            return all([await self._name(worker, processor) for worker, processor in workers.items()])

        await self._until(all_work, "the workers to start")
        self._display.say(f"{len(workers)} worker processes run: {', '.join(titles)}")
        return [worker for worker, processor in workers.items() if processor == "download"]

    def _start(self, title: str, processor: str) -> WorkerProcess:
        keys = self._keys[processor]
        arguments = [
            *("run", "--url", self._server.url, "--input", keys.waiting, "--output", keys.output),
            *("--processor", processor, "--concurrency", str(_CONCURRENCY), "--lease", str(_LEASE)),
            *("--log-format", "json"),
        ]
        return self._workers.start(title, arguments)

    async def _name(self, worker: WorkerProcess, processor: str) -> str | None:
        """Return the name of a worker on its queue; None if it does not work yet."""
        names = await self._call("ZRANGE", self._keys[processor].workers, 0, -1)
        return next((name for name in map(bytes.decode, names) if name.split("-")[-2] == str(worker.pid)), None)

    async def _push(self) -> None:
        for processor, tasks in self._plan.items():
            for first in range(0, len(tasks), _BATCH):
                raws = [task.raw for task in tasks[first : first + _BATCH]]
                await self._call("RPUSH", self._keys[processor].waiting, *raws)
        fates = Counter(task.fate for tasks in self._plan.values() for task in tasks)
        self._display.say(
            f"{fates.total():,} tasks pushed; {fates['failed']} must fail and {fates['dead']} are not JSON, on purpose"
        )

    async def _kill_one(self, survivor: WorkerProcess, victim: WorkerProcess) -> None:
        """Kill the victim while it holds tasks; wait until the survivor recovers them."""
        name = await self._name(victim, "download")
        assert name is not None

        async def held() -> int:
            return tasks_among(await self._call("HLEN", self._keys["download"].inflight(name)))

        async def is_busy() -> bool:
            return self._files.paused and await held() >= _CONCURRENCY

        async def is_recovered() -> bool:
            return not await held()

        await self._until(is_busy, f"{victim} to be busy")
        victim.kill()
        killed, count = time.monotonic(), await held()
        self._display.say(f"{victim} holds {count} tasks: kill -9 sent", "bad")
        self._files.resumed.set()
        self._display.say(f"{survivor.title} continues alone; the dead worker's lease ends within {_LEASE} s")
        await self._until(is_recovered, f"{survivor} to recover {count} tasks")
        seconds = time.monotonic() - killed
        news = f"{survivor.title} recovered {count} tasks of the dead worker after {seconds:.1f} s"
        self._display.say(news, "good")

    def _all_settled(self) -> bool:
        return self._settled() >= sum(map(len, self._plan.values()))

    def _all_ended(self) -> bool:
        """Return True if all workers have ended. Raises RedisWorkerError if one ended unexpectedly."""
        ended = [worker.has_ended() for worker in self._workers.started]  # no short circuit: each call may raise
        return all(ended)

    def _close_the_books(self) -> int:
        self._update()
        accounts = {processor: account(ledger, self._plan[processor]) for processor, ledger in self._ledgers.items()}
        again, sums = sum(ledger.again for ledger in self._ledgers.values()), sum(accounts.values(), Account())
        fault = _fault(sums, again)
        last = f"  {again} delivered again, lost {sums['lost']}. {fault or _WELL}"
        self._display.finish(_table({**accounts, "total": sums}), last, "bad" if fault else "good")
        return 1 if fault else 0

    async def _until(self, reached: Callable[[], bool | Awaitable[bool]], awaited: str) -> None:
        """Show the progress until `reached` returns True. Raises _Stalled, and RedisWorkerError if a worker fails."""
        self._moved = time.monotonic()
        while not (await found if isinstance(found := reached(), Awaitable) else found):
            if time.monotonic() - self._moved > _PATIENCE:
                raise _Stalled(awaited)
            await asyncio.sleep(_TICK)
            self._update()

    def _update(self) -> None:
        self._all_ended()
        before = self._settled()
        for transaction in self._server.journal.transactions():
            for ledger in self._ledgers.values():
                ledger.observe(transaction, time.time())
        if self._settled() != before:
            self._moved = time.monotonic()
        for processor, ledger in self._ledgers.items():
            self._display.show(processor, ledger.settled, len(self._plan[processor]))

    def _settled(self) -> int:
        return sum(ledger.settled for ledger in self._ledgers.values())


def _table(accounts: dict[str, Account]) -> list[str]:
    """Return the accounts as lines of text, with headings."""
    lines = [" " * 11 + "".join(f"{name:>{len(name) + 2}}" for name in _COLUMNS.values())]
    for name, row in accounts.items():
        cells = "".join(f"{row[count]:>{len(column) + 2},}" for count, column in _COLUMNS.items())
        lines.append(f"  {name:<9}{cells}")
    return lines


def _fault(sums: Account, again: int) -> str:
    """Return the broken promise, or an empty text."""
    for count, text in (("lost", "tasks are lost"), ("wrong", "results or dead letters are wrong")):
        if sums[count]:
            return f"{sums[count]} {text}: this is a defect, please report it."
    if not again:
        return "But the killed worker held no task, so this proves nothing: please report it."
    return ""
