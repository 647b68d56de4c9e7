"""The lease: what a worker is known by, and the native thread that keeps it alive.

The thread has an event loop and a connection of its own, so that neither a busy event loop nor a
busy connection pool can cost the worker its lease.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Callable

from redis_worker.broker.address import Address
from redis_worker.broker.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.errors import Disconnected, Refused


class Lease:
    """One life of a worker in the eyes of the others; the receipt of all that it claims."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = False
        """True once Redis has said that the worker was presumed dead: its tasks went to others."""
        self.unanswered = 0
        """Claims whose reply has not come, or never came: they may still move a task."""


def worker_name() -> str:
    """A name no other worker has, and that an operator can read: host, process, and a random part."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class LeaseKeeper:
    """Renews a lease every third of its length, in a thread."""

    def __init__(self, address: Address, keys: Keys, seconds: float) -> None:
        self._address = address
        self._keys = keys
        self._seconds = seconds
        self._lease: Lease | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._thread = threading.Thread(target=self._main, name="redis-worker-lease", daemon=True)

    def start(self, lease: Lease, on_lost: Callable[[], None]) -> None:
        """Keep `lease` alive; `on_lost` is called, in the thread, when it has been taken away."""
        self._lease, self._on_lost = lease, on_lost
        self._thread.start()

    def keep(self, lease: Lease) -> None:
        """Keep `lease` from now on: the worker goes on under a new name."""
        self._lease = lease

    def stop(self) -> None:
        """Renew no more. Returns at once; the thread ends by itself."""
        self._ended.set()
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._wake.set)
            except RuntimeError:
                pass  # the thread has ended already

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, for so many seconds at most."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        # In this order: who stops after the first line wakes us, who stopped before it is seen below.
        self._loop = asyncio.get_running_loop()
        connection = Connection(self._address.open(), owned=True)
        try:
            while not self._ended.is_set():
                delay = self._seconds / 3
                try:
                    await self._renew(connection)
                except Disconnected:
                    delay = min(1.0, self._seconds / 10)
                except Refused:
                    pass  # the pool meets the same refusal, and says so
                try:
                    await asyncio.wait_for(self._wake.wait(), delay)
                except TimeoutError:
                    continue
        finally:
            await connection.close()

    async def _renew(self, connection: Connection) -> None:
        lease = self._lease
        if lease is None or lease.lost:
            return
        milliseconds = int(self._seconds * 1000)
        reply = await connection.run(
            "renew", [self._keys.workers], [lease.name, milliseconds], patience=max(1.0, self._seconds / 3)
        )
        # When the pool has ended meanwhile, it is the pool that gave the lease up.
        if reply == 0 and lease is self._lease and not self._ended.is_set():
            lease.lost = True
            self._on_lost()
