"""A private server with a replica, which takes over and hands back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Self

from redis_worker.chaos.server import PrivateServer
from redis_worker.embedded import HOST
from redis_worker.vocabulary.errors import RedisWorkerError

# Limit of one failover by the server, and of all that belongs to it, in seconds.
_TRY, _PATIENCE = 3.0, 60.0
_TICK = 0.02


class ReplicatedServer(PrivateServer):
    """A server with a replica; its journal includes the writes of the replica as a master, because it follows these."""

    def __init__(self) -> None:
        super().__init__()
        self._replica = PrivateServer()
        self._master: PrivateServer = self

    @property
    def place(self) -> tuple[str, int]:
        """Host and port of the current master."""
        return HOST, self._master.embedded.port

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            await self._replica.__aenter__()
            await self._replica.call("REPLICAOF", HOST, self.embedded.port)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if hasattr(self._replica, "connection"):
            await self._replica.__aexit__()
        await super().__aexit__()

    async def fail_over(self, seconds: float, moved: Callable[[], None]) -> None:
        """Make the replica the master for so long; call `moved` after each change. Raises RedisWorkerError."""
        async with self._turn:  # no restart meanwhile: a replica that restarts copies a state, without its history
            await self._hand_over(self, self._replica)
            moved()
            try:
                await asyncio.sleep(seconds)
            finally:
                await self._hand_over(self._replica, self)
                moved()

    async def _hand_over(self, master: PrivateServer, replica: PrivateServer) -> None:
        end = time.monotonic() + _PATIENCE
        asked = -_TRY
        while "role:master" not in await _replication(replica):
            if time.monotonic() > end:
                raise RedisWorkerError(f"no failover within {_PATIENCE:g} s")
            if "state=online" in await _replication(master) and time.monotonic() - asked > 2 * _TRY:
                asked = time.monotonic()
                await master.call("FAILOVER", "TO", HOST, replica.embedded.port, "TIMEOUT", int(_TRY * 1000))
            await asyncio.sleep(_TICK)
        self._master = replica


async def _replication(server: PrivateServer) -> str:
    text: bytes = await server.call("INFO", "replication")
    return text.decode()
