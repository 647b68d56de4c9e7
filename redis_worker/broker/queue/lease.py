"""The lease: a worker's identity in Redis, and the native thread that renews it.

The thread has a separate event loop and connection, so that neither a busy event loop nor a busy connection
pool can cost the worker its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import Connection
from redis_worker.vocabulary.errors import Disconnected, Refused

# Length of a lease at rest, in seconds; it is renewed after half of that.
REST = 3600.0

_RESTS = 2


class Lease:
    """One registration of a worker in Redis; the receipt of all tasks claimed under it."""

    def __init__(self, name: str, earlier: Lease | None = None) -> None:
        self.name = name
        self._earlier = earlier
        self.claims = 0
        """Claims so far."""
        self.idle = False
        """True while no claim is under way, and the reply of none is missing: the lease may rest (see renew.lua)."""
        self.lost = False
        """True once Redis has replied that the worker was presumed dead: other workers have its tasks."""
        self.unanswered = 0
        """Claims without a reply so far, or ever: they may still move a task."""
        self.unsure = False
        """True once a settlement or release got no reply: the server may have executed it, or may still do so."""

    def stir(self) -> None:
        """Note that a claim follows: the lease does not rest."""
        self.idle = False
        self.claims += 1  # afterwards: a thread that sees this number and an idle lease finds the claim answered

    def rest_on(self) -> None:
        """Note that this claim got nothing: a lease that rested before it still does."""
        self.claims -= 1

    def lose(self) -> None:
        """Mark this lease as lost, and those that it continues under another name."""
        self.lost = True
        if self._earlier is not None:
            self._earlier.lose()


def worker_name() -> str:
    """Return a unique name that an operator can read: host, process, and a random part."""
    return f"{process_label()}-{secrets.token_hex(3)}"


def process_label() -> str:
    """Return host and process, with which all names begin that this process gives itself or its workers."""
    host = "".join(c if c.isalnum() or c in "-." else "-" for c in socket.gethostname())
    return f"{host}-{os.getpid()}"


@dataclass(slots=True)
class _Entry:
    keys: Sequence[str]
    on_lost: Callable[[], None]
    claims: int = -1
    """Claims under the lease when it was laid to rest, and the time of its next renewal."""
    renew_at: float = 0.0


class LeaseKeeper:
    """A thread that renews leases every third of their length: all leases of one pool, or of many topics."""

    def __init__(self, address: Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._kept: dict[Lease, _Entry] = {}
        self._ended = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="redis-worker-lease", daemon=True)

    @property
    def seconds(self) -> float:
        """Length of a lease, in seconds."""
        return self._seconds

    def keep(self, keys: Sequence[str], lease: Lease, on_lost: Callable[[], None]) -> None:
        """Renew `lease`, a member of the first of `keys` (see renew.lua).

        `on_lost` is called, in the thread, if it is taken away.
        """
        self._kept = {**self._kept, lease: _Entry(keys, on_lost)}  # a new dict: the thread may be iterating the old one
        if self._thread.ident is None:
            self._thread.start()

    def drop(self, lease: Lease) -> None:
        """Stop renewing `lease`."""
        self._kept = {kept: entry for kept, entry in self._kept.items() if kept is not lease}

    async def close(self) -> None:
        """Stop renewing, and wait up to a second for the thread to end."""
        self._ended.set()
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._interrupt)
            except RuntimeError:
                pass  # the thread has ended already
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, 1.0)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner, contextlib.suppress(CancelledError):
            runner.run(self._run())

    def _interrupt(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()  # it sleeps, or waits for a server that may hang

    async def _run(self) -> None:
        self._keeping = asyncio.current_task()
        # In this order: a `close` after this line interrupts us, an earlier one is noticed below.
        self._loop = asyncio.get_running_loop()
        connection = Connection(self._address.open(), owned=True)
        try:
            while not self._ended.is_set():
                delay = self._seconds / 3
                try:
                    for lease in self._kept:
                        await self._renew(connection, lease)
                except Disconnected:
                    delay = min(1.0, self._seconds / 10)
                await asyncio.sleep(delay)
        finally:
            self._keeping = None  # closing must not be interrupted
            await connection.close()

    async def _renew(self, connection: Connection, lease: Lease) -> None:
        kept = self._kept.get(lease)
        if kept is None or lease.lost or self._ended.is_set():
            return
        claims, idle = lease.claims, lease.idle  # in this order, see `stir`
        if idle and claims == kept.claims and monotonic() < kept.renew_at:
            return  # it rests
        kept.claims = -1
        try:
            state = await renew_lease(connection, kept.keys, lease, self._seconds, REST if idle else None)
        except Refused:
            return  # the pool gets the same refusal and reports it
        if state == _RESTS:
            kept.claims, kept.renew_at = claims, monotonic() + REST / 2
        # If the pool has given up the lease meanwhile, nothing was taken away.
        if not state and lease in self._kept and not self._ended.is_set():
            lease.lose()
            kept.on_lost()


async def renew_lease(
    connection: Connection, keys: Sequence[str], lease: Lease, seconds: float, rest: float | None = None
) -> int:
    """Renew `lease`; for `rest` seconds if it holds no task. Returns 0 if it was taken away, 2 if it rests, else 1.

    A vanished entry is restored.
    """
    arguments = [lease.name, *(int(length * 1000) for length in (seconds, rest) if length is not None)]
    state: int = await connection.run("renew", keys, arguments, patience=max(1.0, seconds / 3))
    return state
