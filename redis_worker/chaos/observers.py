"""Observers: what tells the ledger about a run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from redis_worker.chaos.ledger import Ledger
from redis_worker.chaos.server import PrivateServer


class Observer(Protocol):
    """What follows a server for a ledger."""

    async def observe(self) -> None:
        """Tell the ledger what is new."""

    async def finish(self) -> None:
        """Tell it what only the end shows; nothing works any more."""


class JournalObserver:
    """An observer that reads the journals of private servers: it misses nothing."""

    def __init__(self, servers: Sequence[PrivateServer], ledger: Ledger) -> None:
        self._ledger = ledger
        self._servers = servers

    async def observe(self) -> None:
        """See Observer."""
        for server in self._servers:
            for transaction in server.journal.transactions():
                self._ledger.observe(transaction, time.time())

    async def finish(self) -> None:
        """See Observer."""
        await self.observe()
