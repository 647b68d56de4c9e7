"""Cron jobs in Redis: who fires an instant, what runs, and what became of it. The server's clock decides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from enum import IntEnum
from itertools import count
from typing import Any, NamedTuple

from redis_worker.broker.connection.address import Address, Client, address_of
from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.damaged_keys import Complaints, call_on
from redis_worker.broker.connection.preflight import check_slots
from redis_worker.broker.keys import CRON, CronKeys, Keys, cron_stem
from redis_worker.broker.queue.lease import Lease, LeaseKeeper, worker_name
from redis_worker.vocabulary.errors import ConfigurationError, DamagedKey, Refused

_PRESUMED_LOST = 2
# So many instants are remembered as fired; what is older than all of them counts as fired.
_REMEMBERED = 1000
# A job that no process has made known for so many seconds is forgotten: 90 days.
_FORGOTTEN = 90 * 86_400
# So many instants of a job wait at most until nothing runs, but for those that are made up for.
MOST_QUEUED = 100
# How long a reply may take, in seconds: instants wait for it, and the connection may have been cut while it was idle.
_PATIENCE = 5.0
# A reply that took longer says too little about the server's clock, in seconds, unless nothing better has come lately.
_QUICK, _LATELY = 0.1, 60.0


class Verdict(IntEnum):
    """What became of a claim; see cron_claim.lua."""

    EARLY = 0
    FIRED = 1
    TAKEN = 2
    """Somebody has fired it, or it is too long ago."""
    SKIPPED = 3
    QUEUED = 4
    FULL = 5
    """Skipped, as too many are queued."""
    EMPTY = 6
    BUSY = 7


class Claim(NamedTuple):
    """The answer to a claim."""

    verdict: Verdict
    value: int
    """FIRED: the instant; EARLY: in how many ms it is due."""
    lost: list[str]
    """The workers, or the names, of runs whose process was found to be gone."""


class Run(NamedTuple):
    """A run that was claimed. Times are in ms of the server's clock."""

    lease: Lease
    instant: int
    started: int
    by_hand: bool = False


class ServerClock:
    """The server's clock, as its replies tell it; what the clock of this machine says is of no concern."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        """`elapsed` tells seconds since whenever."""
        self._elapsed = elapsed
        self._offset = 0.0
        self._heard = -float("inf")

    def asking(self) -> float:
        """To be handed to `heard` with the reply."""
        return self._elapsed()

    def heard(self, asked: float, server: int) -> None:
        """A reply to what was asked says that it is `server` ms since the epoch."""
        now = self._elapsed()
        if now - asked <= _QUICK or now - self._heard > _LATELY:
            self._offset, self._heard = server / 1000 - (asked + now) / 2, now

    def now(self) -> int:
        """Ms since the epoch; without meaning before anything was heard."""
        return int((self._elapsed() + self._offset) * 1000)


class CronStore:
    """What the cron jobs of a process share: a connection, leases and the server's clock."""

    def __init__(
        self,
        redis: str | Client | Address,
        *,
        lease: float = 15.0,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lease`: a run whose process has not been heard of for so many seconds is lost.

        `elapsed` tells seconds since whenever. A client is used and not closed. Raises ConfigurationError
        where a URL is not valid.
        """
        self.address = redis if isinstance(redis, Address) else address_of(redis)
        given = None if isinstance(redis, (str, Address)) else redis
        self.connection = Connection(given or self.address.open(), owned=given is None)
        self.keeper = LeaseKeeper(self.address, lease)
        self.clock = ServerClock(elapsed)
        self.worker = worker_name()
        self.complaints = Complaints()
        self._numbers = count(1)

    def new_run(self) -> Lease:
        """A run, or what is to be one: with a name that no other has."""
        return Lease(f"{self.worker}:{next(self._numbers)}")

    async def close(self) -> None:
        """Close what was opened. Runs that still go on are presumed lost when their leases end."""
        await self.keeper.close()
        await self.connection.close()


class JobState:
    """One job in Redis. Every call raises Disconnected or Refused, and may be repeated after Disconnected."""

    def __init__(
        self, store: CronStore, app: str, name: str, schedule: str, timezone: str, overlap: str, input: str | None
    ) -> None:
        """`input` is the list that it pushes to, if it does. Raises ConfigurationError where that cannot be."""
        if "/" in name or not name:
            raise ConfigurationError(f"the name of a cron job is not empty and has no slash, got {name!r}")
        if store.address.cluster and input is not None:
            check_slots(Keys(input))
        self._store = store
        self._said = (app, name, schedule, timezone)
        self._overlap = overlap
        self._input = input
        self._keys = CronKeys(cron_stem(app, name, input))
        self._opened = False

    async def open(self, by_hand: bool = False) -> int:
        """Make the job known; `by_hand`, without seeing to its instants.

        Returns the latest one that is dealt with, by whomever, in ms.
        """
        app, name, *_ = self._said
        asked = self._store.clock.asking()
        how = "hand" if by_hand else "again" if self._opened else "first"
        keys = [self._keys.fired, self._keys.record, self._keys.queued, self._keys.ended]
        now, last = await self._run("cron_open", keys, [*self._said, how, _FORGOTTEN])
        self._store.clock.heard(asked, now)
        try:
            # Only now: who looks takes a job that is entered and has no record for one that is to be forgotten.
            await call_on(
                self._store.connection, CRON, "hash", "HSET", f"{app}/{name}", self._keys.stem, patience=_PATIENCE
            )
        except DamagedKey as damaged:
            self._store.complaints.tell([damaged])
        except Refused:
            pass  # a user may lack the right to this key, which only `status` needs
        self._opened = self._opened or not by_hand
        return int(last)

    async def claim(self, instant: int, run: Lease, next: int, payload: bytes = b"") -> Claim:
        """Fire `instant`, after which comes `next`; of a job that pushes, by pushing `payload`."""
        return await self._claim("due", instant, run, str(next), payload)

    async def take(self, run: Lease, next: int) -> Claim:
        """Fire what is queued, if nothing runs any more, while `next` is waited for."""
        return await self._claim("queued", 0, run, str(next), b"")

    async def begin(self, run: Lease, payload: bytes = b"") -> Claim:
        """Fire now, by hand."""
        return await self._claim("hand", 0, run, "", payload)

    async def _claim(self, which: str, instant: int, run: Lease, next: str, payload: bytes) -> Claim:
        store, keys = self._store, self._keys
        names = [keys.fired, keys.running, keys.runs, keys.queued, keys.record, keys.ended]
        lease = int(store.keeper.seconds * 1000)
        arguments: list[Any] = [which, instant, run.name, lease, self._overlap, self._where, MOST_QUEUED, _REMEMBERED]
        arguments.append(next)
        if self._input is not None and which != "queued":
            names.append(self._input)
            arguments.append(payload)
        asked = store.clock.asking()
        now, verdict, value, *lost = await self._run("cron_claim", names, arguments)
        store.clock.heard(asked, now)
        return Claim(Verdict(verdict), value, [name.decode(errors="replace") for name in lost])

    async def give_up(self, last: int, until: int, number: int) -> bool:
        """Drop `number` instants up to `until`. False where `last` is not the latest one dealt with any more."""
        return bool(await self._run("cron_miss", [self._keys.fired, self._keys.record], [last, until, number]))

    async def queue(self, instants: Sequence[int]) -> int:
        """Queue those of `instants` that nobody has dealt with; how many."""
        keys = [self._keys.fired, self._keys.queued, self._keys.record]
        return int(await self._run("cron_queue", keys, [_REMEMBERED, *instants]))

    async def finish(self, run: Run, outcome: str, error: str | None, seconds: float, goes_on: bool = False) -> bool:
        """Record what became of `run`, and that it has ended, unless it `goes_on` all the same.

        Returns whether it had been presumed lost.
        """
        keys = [self._keys.running, self._keys.runs, self._keys.record, self._keys.ended]
        after = " by hand" if run.by_hand else ""
        times = (int(seconds * 1000), run.instant, run.started)
        text = (error or "").encode(errors="backslashreplace")
        ending = [run.lease.name, outcome, after, text, *times, self._where, "1" if goes_on else "0"]
        return bool(await self._run("cron_finish", keys, ending) == _PRESUMED_LOST)

    def keep(self, run: Run, on_lost: Callable[[], None]) -> None:
        """Keep the lease of `run` alive; `on_lost` is called, in this event loop, when it has been taken away."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            try:
                loop.call_soon_threadsafe(on_lost)
            except RuntimeError:
                pass  # the loop is closed

        self._store.keeper.keep([self._keys.running], run.lease, tell)

    def let_go(self, run: Run) -> None:
        """Keep its lease no longer."""
        self._store.keeper.drop(run.lease)

    @property
    def _where(self) -> str:
        """Host and process."""
        return self._store.worker.rpartition("-")[0]

    async def _run(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        return await self._store.connection.run(name, keys, arguments, patience=_PATIENCE)
