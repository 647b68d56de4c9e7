"""Real kills at chosen calls, many of them: a process that has imported everything forks a worker for each one.

The points of a life are: before it sends a settlement or asks a gate, and after the server has executed a call, while
the reply is not used yet. Only calls with an effect on tasks, leases or limits count, so that a life has about the same
points each time. The process of a life ends by itself, with exit code 0, when all tasks have ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Self

from redis_worker.broker import scripts
from redis_worker.broker.connection.connection import PATIENCE, Connection
from tests.support import ROOT

_BEFORE = ("settle", "gate")
_AFTER = ("begin", "settle", "release", "register", "reclaim", "gate")


class Forks:
    """The process that forks workers; use it with `async with`."""

    def __init__(self, module: str) -> None:
        """`module` has a function `main`, which calls `serve`."""
        self._program = f"from {module} import main; main()"
        self._one_at_a_time = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", self._program),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.stdin.close()
        await asyncio.wait_for(self._process.wait(), 60)

    async def life(self, point: int, *arguments: object) -> int:
        """Run a worker that is to die at `point`; return its exit code."""
        async with self._one_at_a_time:
            self._process.stdin.write(f"{' '.join(map(str, (point, *arguments)))}\n".encode())
            code = int(await asyncio.wait_for(self._process.stdout.readline(), 60))
        assert code in (0, -signal.SIGKILL)
        return code


def serve(live: Callable[..., Coroutine[Any, Any, None]]) -> None:
    """Run the lives that standard input asks for, each in a fork of its own, and print their exit codes."""
    for line in sys.stdin:
        point, *arguments = line.split()
        if (fork := os.fork()) == 0:
            die_at(int(point))
            asyncio.run(live(*arguments))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)


def die_at(point: int) -> None:
    """Kill this process at `point` of its calls."""
    names = {script.digest: name for name, script in scripts._SCRIPTS.items()}
    call = Connection.call
    points = 0

    def reach() -> None:
        nonlocal points
        points += 1
        if points == point:
            os.kill(os.getpid(), signal.SIGKILL)

    async def counted(self: Connection, *command: Any, patience: float = PATIENCE) -> Any:
        name = names.get(command[1], "") if command[0] == "EVALSHA" else command[0]
        if name in _BEFORE:
            reach()
        reply = await call(self, *command, patience=patience)
        if _has_effect(name, reply):
            reach()
        return reply

    async def one_by_one(
        self: Connection, *commands: tuple[Any, ...], patience: float, ordered: bool = True
    ) -> list[Any]:
        return [await self._reply(*command, patience=patience) for command in commands]

    Connection.call = counted  # type: ignore[method-assign]
    Connection.together = one_by_one  # type: ignore[method-assign]


def _has_effect(name: str, reply: Any) -> bool:
    if name == "claim":
        return isinstance(reply[0], list) or bool(reply[1])
    if name == "promote":
        return bool(reply[0])
    return name in _AFTER or (name == "BLMOVE" and reply is not None)
