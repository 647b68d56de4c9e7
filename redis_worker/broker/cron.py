"""Cron jobs in Redis: claims of instants, runs and their outcomes, timed by the server's clock."""

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
from redis_worker.engine.reconnect import OutageLog, Reconnect
from redis_worker.vocabulary.errors import ConfigurationError, DamagedKey, Refused

_PRESUMED_LOST = 2
# Number of instants remembered as fired; older ones count as fired.
_REMEMBERED = 1000
# Seconds after which a job that no process registers is forgotten: 90 days.
_FORGOTTEN = 90 * 86_400
# Most instants of a job that may be queued, not counting catch-up.
MOST_QUEUED = 100
# Seconds after which a request for a run by hand is forgotten.
_ASKED_FOR = 60
# Longest wait for a reply, in seconds: instants depend on it, and an idle connection may have been cut.
_PATIENCE = 5.0
# Longest pause between tries while Redis is away, in seconds: an instant can be fired up to a minute late.
_LONGEST_PAUSE = 10.0
# A slower reply, in seconds, is too inexact for the clock, unless the last good one is older than `_STALE` seconds.
_QUICK, _STALE = 0.1, 60.0


class Verdict(IntEnum):
    """Result of a claim; see cron_claim.lua."""

    EARLY = 0
    FIRED = 1
    TAKEN = 2
    """Already fired by another process, or too long ago."""
    SKIPPED = 3
    QUEUED = 4
    FULL = 5
    """Skipped, because too many instants are queued."""
    EMPTY = 6
    BUSY = 7


class Claim(NamedTuple):
    """Reply to a claim."""

    verdict: Verdict
    value: int
    """FIRED: the instant; EARLY: ms until it is due."""
    lost: list[str]
    """Workers, or names, of runs with a dead process."""


class Run(NamedTuple):
    """A claimed run. Times are in ms of the server's clock."""

    lease: Lease
    instant: int
    started: int
    by_hand: bool = False


async def ask_for_run(address: Address, app: str, name: str) -> bool:
    """Ask the processes that schedule a job to run it now, by hand. Returns False if no process has registered it.

    The request is forgotten after a minute. Raises Disconnected or Refused.
    """
    connection = Connection(address.open(), owned=True)
    try:
        stem = await connection.call("HGET", CRON, f"{app}/{name}")
        if stem is None:
            return False
        await connection.call("SET", CronKeys(stem.decode(errors="replace")).asked, 1, "EX", _ASKED_FOR)
        return True
    finally:
        await connection.close()


class ServerClock:
    """The server's clock, estimated from its replies; the wall clock of this machine is ignored."""

    def __init__(self, elapsed: Callable[[], float]) -> None:
        """`elapsed` returns seconds since an arbitrary start."""
        self._elapsed = elapsed
        self._offset = 0.0
        self._received_at = -float("inf")

    def sent_at(self) -> float:
        """Return the send time of a request, to be passed to `received` with the reply."""
        return self._elapsed()

    def received(self, sent: float, server: int) -> None:
        """Process the reply to a request sent at `sent`: the server's time was `server`, in ms since the epoch."""
        now = self._elapsed()
        if now - sent <= _QUICK or now - self._received_at > _STALE:
            self._offset, self._received_at = server / 1000 - (sent + now) / 2, now

    def now(self) -> int:
        """Return ms since the epoch; meaningless before the first reply."""
        return int((self._elapsed() + self._offset) * 1000)


class CronStore:
    """Resources shared by the cron jobs of a process: connection, leases, the server's clock, waiting for Redis."""

    def __init__(
        self,
        redis: str | Client | Address,
        *,
        lease: float = 15.0,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lease`: seconds without a renewal after which a run is presumed lost.

        `elapsed` returns seconds since an arbitrary start. A client passed in is used and not closed. Raises
        ConfigurationError if a URL is not valid.
        """
        self.address = redis if isinstance(redis, Address) else address_of(redis)
        given = None if isinstance(redis, (str, Address)) else redis
        self.connection = Connection(given or self.address.open(), owned=given is None)
        self.keeper = LeaseKeeper(self.address, lease)
        self.clock = ServerClock(elapsed)
        self.worker = worker_name()
        self.complaints = Complaints()
        self.reconnect = Reconnect(OutageLog(), longest=_LONGEST_PAUSE, damaged_too=True)
        self._numbers = count(1)

    def new_run(self) -> Lease:
        """Return the lease of a new run, with a unique name."""
        return Lease(f"{self.worker}:{next(self._numbers)}")

    async def close(self) -> None:
        """Close the connections opened here. Runs still going on are presumed lost when their leases end."""
        await self.keeper.close()
        await self.connection.close()


class JobState:
    """State of one job in Redis. Every call raises Disconnected or Refused, and may be repeated after Disconnected."""

    def __init__(
        self, store: CronStore, app: str, name: str, schedule: str, timezone: str, overlap: str, input: str | None
    ) -> None:
        """`input`: the list the job pushes to, if any. Raises ConfigurationError if name or list cannot be used."""
        if "/" in name or not name:
            raise ConfigurationError(f"a cron job's name must not be empty or contain a slash, got {name!r}")
        if store.address.cluster and input is not None:
            check_slots(Keys(input))
        self._store = store
        self._identity = (app, name, schedule, timezone)
        self._overlap = overlap
        self._input = input
        self._keys = CronKeys(cron_stem(app, name, input))
        self._opened = False

    async def open(self, by_hand: bool = False) -> int:
        """Register the job; with `by_hand`, without taking over its schedule.

        Returns the latest instant already dealt with, by any process, in ms.
        """
        app, name, *_ = self._identity
        sent = self._store.clock.sent_at()
        how = "hand" if by_hand else "again" if self._opened else "first"
        keys = [self._keys.fired, self._keys.record, self._keys.queued, self._keys.ended]
        keys += [self._keys.running, self._keys.runs]
        now, last = await self._run("cron_open", keys, [*self._identity, how, _FORGOTTEN])
        self._store.clock.received(sent, now)
        try:
            # Last: readers treat a registered job without a record as one to forget.
            await call_on(
                self._store.connection, CRON, "hash", "HSET", f"{app}/{name}", self._keys.stem, patience=_PATIENCE
            )
        except DamagedKey as damaged:
            self._store.complaints.log([damaged])
        except Refused:
            pass  # the user may lack permission for this key, which only `status` needs
        self._opened = self._opened or not by_hand
        return int(last)

    async def claim(self, instant: int, run: Lease, next: int, payload: bytes = b"") -> Claim:
        """Fire `instant`, followed by `next`; a job that pushes appends `payload`."""
        return await self._claim("due", instant, run, str(next), payload)

    async def take(self, run: Lease, next: int) -> Claim:
        """Fire the first queued instant if nothing is running, while waiting for `next`."""
        return await self._claim("queued", 0, run, str(next), b"")

    async def begin(self, run: Lease, payload: bytes = b"") -> Claim:
        """Fire now, by hand."""
        return await self._claim("hand", 0, run, "", payload)

    async def _claim(self, kind: str, instant: int, run: Lease, next: str, payload: bytes) -> Claim:
        store, keys = self._store, self._keys
        names = [keys.fired, keys.running, keys.runs, keys.queued, keys.record, keys.ended]
        lease = int(store.keeper.seconds * 1000)
        arguments: list[Any] = [kind, instant, run.name, lease, self._overlap, self._where, MOST_QUEUED, _REMEMBERED]
        arguments.append(next)
        if self._input is not None and kind != "queued":
            names.append(self._input)
            arguments.append(payload)
        sent = store.clock.sent_at()
        now, verdict, value, *lost = await self._run("cron_claim", names, arguments)
        store.clock.received(sent, now)
        return Claim(Verdict(verdict), value, [name.decode(errors="replace") for name in lost])

    async def give_up(self, last: int, until: int, number: int) -> bool:
        """Drop `number` instants up to `until`. Returns False if `last` is no longer the latest instant dealt with."""
        return bool(await self._run("cron_miss", [self._keys.fired, self._keys.record], [last, until, number]))

    async def queue(self, instants: Sequence[int]) -> int:
        """Queue those of `instants` that have not been dealt with. Returns their number."""
        keys = [self._keys.fired, self._keys.queued, self._keys.record]
        return int(await self._run("cron_queue", keys, [_REMEMBERED, *instants]))

    async def finish(self, run: Run, outcome: str, error: str | None, seconds: float, goes_on: bool = False) -> bool:
        """Record the outcome of `run` and its end; with `goes_on` the run keeps its lease.

        Returns True if the run had been presumed lost.
        """
        keys = [self._keys.running, self._keys.runs, self._keys.record, self._keys.ended]
        after = " by hand" if run.by_hand else ""
        times = (int(seconds * 1000), run.instant, run.started)
        text = (error or "").encode(errors="backslashreplace")
        ending = [run.lease.name, outcome, after, text, *times, self._where, "1" if goes_on else "0"]
        return bool(await self._run("cron_finish", keys, ending) == _PRESUMED_LOST)

    async def is_asked(self) -> bool:
        """Return True, once, if somebody has asked for a run by hand."""
        return await self._store.connection.call("GETDEL", self._keys.asked, patience=_PATIENCE) is not None

    def keep(self, run: Run, on_lost: Callable[[], None]) -> None:
        """Keep the lease of `run` alive; call `on_lost` in this event loop if it is taken away."""
        loop = asyncio.get_running_loop()

        def notify() -> None:
            try:
                loop.call_soon_threadsafe(on_lost)
            except RuntimeError:
                pass  # the loop is closed

        self._store.keeper.keep([self._keys.running], run.lease, notify)

    def let_go(self, run: Run) -> None:
        """Stop renewing the lease of `run`."""
        self._store.keeper.drop(run.lease)

    @property
    def _where(self) -> str:
        """Host and process."""
        return self._store.worker.rpartition("-")[0]

    async def _run(self, name: str, keys: list[str], arguments: list[Any]) -> Any:
        return await self._store.connection.run(name, keys, arguments, patience=_PATIENCE)
