"""Results as they arrive for one caller."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection

from redis_worker.broker.client.result import Result


class Arrivals:
    """Results as they arrive for one caller, or an error. An asyncio.Queue takes four times as many calls."""

    def __init__(self) -> None:
        self._arrived: deque[Result | Exception] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._arrived)

    def put(self, arrival: Result | Exception) -> None:
        """Add an arrival."""
        self._arrived.append(arrival)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> Result | Exception:
        """Return the next arrival, waiting for it."""
        if not self._arrived:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._arrived.popleft()


def end_of(timeout: float | None) -> float | None:
    """Return the time, by the monotonic clock, when a wait of `timeout` seconds ends; None if it has no limit."""
    return None if timeout is None else time.monotonic() + timeout


def remaining(end: float | None) -> float | None:
    """Return the seconds until `end`; None if there is none."""
    return None if end is None else max(0.0, end - time.monotonic())


async def next_arrival(
    arrivals: Arrivals, end: float | None, pending: Collection[str], timeout: float | None
) -> Result:
    """Return the next result of the tasks `pending`. Raises TimeoutError, and an error that arrived."""
    try:
        # An available result counts, even with no time left.
        if end is None or arrivals:
            result = await arrivals.get()
        else:
            async with asyncio.timeout(remaining(end)):
                result = await arrivals.get()
    except TimeoutError:
        some = ", ".join(sorted(pending)[:3]) + ("…" if len(pending) > 3 else "")
        raise TimeoutError(f"no result for {len(pending)} tasks ({some}) within {timeout:g} s") from None
    if isinstance(result, Exception):
        raise result
    return result
