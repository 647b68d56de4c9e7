"""The registration of a worker with a queue: its name in the registries, under a lease that other workers watch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import damaged_keys
from redis_worker.broker.keys import Keys
from redis_worker.broker.queue.lease import Lease, LeaseKeeper, renew_lease, worker_name
from redis_worker.broker.queue.settlement import COUNTS_MS
from redis_worker.ports import Observer
from redis_worker.vocabulary.errors import DamagedKey, Disconnected

# Longest time for giving up a lease, in seconds: a stop waits for it, and the server may hang.
_END_PATIENCE = 2.0
# Time for which the keys of a retired worker are checked: a late BLMOVE may sit in a socket until
# TCP gives up, after some 15 minutes.
RETIRED_MS = 3_600_000


class Registration:
    """A worker's name and lease; a lost lease is followed by another one, under another name."""

    def __init__(
        self,
        connection: Connection,
        keys: Keys,
        keeper: LeaseKeeper,
        observer: Observer,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        """`lost` is called when the lease was taken away, and the next claim has to take another one."""
        self.lease = Lease(worker_name())
        """The current lease; tasks claimed under an earlier one are lost."""
        self._connection = connection
        self._keys = keys
        self._registries = [keys.workers, keys.retired, keys.claimants]
        self._keeper = keeper
        self._observer = observer
        self._lost = lost
        self._begun = False

    async def begin(self) -> None:
        """Register under the current lease, and have it renewed. Raises Disconnected or Refused."""
        lease, milliseconds = self.lease, int(self._keeper.seconds * 1000)
        await self._connection.run("register", [self._keys.workers, self._keys.claimants], [lease.name, milliseconds])
        self._keep(lease)
        self._begun = True

    def _keep(self, lease: Lease) -> None:
        loop = asyncio.get_running_loop()

        def notify() -> None:
            """Forward the loss from the keeper's thread to the event loop."""
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._report_lost, lease)

        keys, name = self._keys, lease.name
        held = [keys.inflight(name), keys.arrived(name), keys.bundles(name)]
        self._keeper.keep([*self._registries, *held], lease, notify)

    def _report_lost(self, lease: Lease) -> None:
        self._observer.lease_lost(lease.name)
        self._lost()

    async def replace(self) -> None:
        """Give up a lost lease, and take another one, under a new name, which is still to `begin`."""
        await self._retire()
        self.lease = Lease(worker_name())

    async def rename(self) -> list[DamagedKey]:
        """Continue the lease under a new name, with all tasks, if a key of the present one holds another type.

        Returns what is damaged: nothing if the name stays. Raises Disconnected or Refused.
        """
        old, new, keys = self.lease, Lease(worker_name(), self.lease), self._keys
        types = {keys.inflight(old.name): "hash", keys.arrived(old.name): "list", keys.bundles(old.name): "hash"}
        damages = await damaged_keys(self._connection, types)
        if damages:
            names = [*self._registries, keys.inflight(old.name), keys.inflight(new.name), keys.presence]
            names += [keys.bundles(old.name), keys.bundles(new.name)]
            arguments = [old.name, new.name, int(self._keeper.seconds * 1000), RETIRED_MS]
            self._keeper.drop(old)
            try:
                is_renamed = await self._connection.run("rename", names, arguments)
            except BaseException:
                self._keep(old)  # until the next attempt
                raise
            if is_renamed:
                self.lease = new
                self._keep(new)
            else:
                self._lose(old)
        return damages

    async def end(self) -> None:
        """Return all tasks in flight, uncharged, and give up the lease. Raises Disconnected or Refused."""
        if not self._begun:
            return
        try:
            async with asyncio.timeout(_END_PATIENCE):
                if self.lease.unanswered:
                    # The connection of that claim is closed. Before it notices, the server would give it the tasks that
                    # are returned here; it notices before it executes a call that is sent after the reply to this one.
                    await self._connection.call("EXISTS", self._keys.waiting)
                await self._retire()
        except DamagedKey as error:
            self._observer.damaged(error)
        except TimeoutError:
            raise Disconnected("the server does not answer") from None  # it may still execute the script later

    async def check(self) -> None:
        """Renew the lease after a claim has not found it; mark it as lost if it was taken away."""
        lease = self.lease
        renewed = await renew_lease(self._connection, self._registries, lease, self._keeper.seconds)
        if not renewed:
            self._lose(lease)

    def _lose(self, lease: Lease) -> None:
        if not lease.lost:
            lease.lose()
            self._report_lost(lease)

    async def _retire(self) -> None:
        """Return the tasks in flight; if a late reply may move more, have other workers watch for it."""
        lease = self.lease
        self._keeper.drop(lease)
        retired_ms = RETIRED_MS if lease.unanswered else 0
        lease.unsure = True  # without a reply the tasks may have been returned, now or later
        await reclaim(self._connection, self._keys, lease.name, force=True, retired_ms=retired_ms)


async def reclaim(
    connection: Connection, keys: Keys, worker: str, force: bool = False, retired_ms: int = RETIRED_MS
) -> int:
    """Return the tasks of `worker` to the queue. Returns their number, or -1 if it has a lease and `force` is off."""
    count: int = await connection.run(
        "reclaim",
        [
            *(keys.workers, keys.retired, keys.inflight(worker), keys.waiting, keys.attempts),
            *(keys.arrived(worker), keys.presence, keys.claimants, keys.listed(worker), keys.large(worker)),
            keys.bundles(worker),
        ],
        [worker, retired_ms, COUNTS_MS, int(force)],
    )
    return count
