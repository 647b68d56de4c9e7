"""The units at work: a worker process each, or a fleet of them, behind a proxy of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence

from redis_worker.chaos.processes import Processes
from redis_worker.chaos.proxy import Proxy
from redis_worker.vocabulary.errors import RedisWorkerError

# Limit of any end of a process, in seconds: beyond the shutdown timeout, on a busy machine.
_PATIENCE = 60.0
_TICK = 0.02


class Unit:
    """One command that works, started again whenever it ends."""

    def __init__(
        self,
        name: str,
        processes: Processes,
        arguments: Sequence[str],
        url: str,
        proxy: Proxy | None,
        *,
        is_fleet: bool = False,
    ) -> None:
        """`url` is the server, by way of `proxy` if there is one."""
        self.name = name
        self.is_fleet = is_fleet
        self.proxy = proxy
        self.turn = asyncio.Lock()
        """Held by a fault that concerns its processes: one at a time."""
        self._processes = processes
        self._arguments = arguments
        self._url = url
        self._runs = 0
        self.start()

    def start(self) -> None:
        """Start it, for the first time or again."""
        self._runs += 1
        # In the environment, because everybody can read arguments, and the URL may hold a password.
        urls = {"REDIS_WORKER_URL": self._url, "REDIS_WORKER_SERVE_URL": self._url}
        self.process = self._processes.start(f"{self.name}-{self._runs}", self._arguments, **urls)

    async def is_up(self) -> None:
        """Return when it listens to signals. Raises RedisWorkerError if it ends before."""
        # The parent of a fleet logs one line before; all others have come so far when they log.
        await _until(lambda: self.process.has_ended() or self.process.logged() > self.is_fleet)

    def workers(self) -> list[int]:
        """Return the ids of the processes that work: the children of a fleet, or the process itself."""
        return _children(self.process.pid) if self.is_fleet else [self.process.pid]

    def fault(self) -> str | None:
        """Return a sentence if the process has ended by itself, and start it again."""
        try:
            self.process.has_ended()
        except RedisWorkerError as error:
            self.start()
            return str(error)
        return None

    async def stop(self) -> str | None:
        """Stop it gracefully. Return a sentence if that fails."""
        try:
            await self.is_up()  # one that is starting does not listen yet
            self.process.stop()
            if await _until(self.process.has_ended):
                return None
        except RedisWorkerError as error:
            return str(error)
        self.process.kill_all()
        return f"{self.process} did not end within {_PATIENCE:g} s of SIGTERM"

    async def kill_parent(self) -> str | None:
        """Kill the first process of the unit alone. Return a sentence if those that it started do not end."""
        process = self.process
        process.kill()
        if await _until(process.group_has_ended):
            return None
        process.kill_all()
        return f"processes of {process} live on {_PATIENCE:g} s after the SIGKILL of their parent"


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


async def _until(reached: Callable[[], bool]) -> bool:
    end = asyncio.get_running_loop().time() + _PATIENCE
    while not reached():
        if asyncio.get_running_loop().time() > end:
            return False
        await asyncio.sleep(_TICK)
    return True


def _children(pid: int) -> list[int]:
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607
    pairs = (map(int, line.split()) for line in shown.stdout.splitlines())
    return [child for child, parent in pairs if parent == pid]
