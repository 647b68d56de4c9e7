"""The stock, the orders and the mails of the shop, in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, cents INTEGER NOT NULL, number INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS orders (
    id TEXT PRIMARY KEY, item TEXT NOT NULL, number INTEGER NOT NULL, cents INTEGER NOT NULL, state TEXT NOT NULL,
    day TEXT NOT NULL DEFAULT CURRENT_DATE
);
CREATE TABLE IF NOT EXISTS mails (id TEXT PRIMARY KEY, address TEXT NOT NULL, text TEXT NOT NULL);
INSERT OR IGNORE INTO stock VALUES ('ink', 990, 20), ('paper', 450, 100), ('pen', 120, 500);
"""


class OutOfStock(Exception):
    """There are not enough items."""


class Database:
    """A connection for all threads of a process.

    A task runs again if its worker was killed. So each change names its order, and a second one changes nothing.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.executescript(_SCHEMA)
        self._lock = Lock()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def reserve(self, order: str, item: str, number: int) -> int:
        """Take items out of stock for an order; return their price in cents. Raises OutOfStock."""
        with self._transaction() as run:
            if reserved := run("SELECT cents FROM orders WHERE id = ?", (order,)).fetchone():
                return int(reserved[0])
            query = "UPDATE stock SET number = number - ? WHERE item = ? AND number >= ? RETURNING cents"
            if not (taken := run(query, (number, item, number)).fetchall()):
                raise OutOfStock(f"there are not {number} of {item} in stock")
            cents = number * int(taken[0][0])
            run("INSERT INTO orders VALUES (?, ?, ?, ?, 'reserved', CURRENT_DATE)", (order, item, number, cents))
            return cents

    def release(self, order: str) -> None:
        """Put the items of a reserved order back into stock."""
        with self._transaction() as run:
            query = "UPDATE orders SET state = 'released' WHERE id = ? AND state = 'reserved' RETURNING number, item"
            for row in run(query, (order,)).fetchall():
                run("UPDATE stock SET number = number + ? WHERE item = ?", row)

    def charged(self, order: str) -> None:
        """Note that an order is paid."""
        with self._transaction() as run:
            run("UPDATE orders SET state = 'charged' WHERE id = ? AND state = 'reserved'", (order,))

    def mailed(self, order: str, address: str, text: str) -> None:
        """Note that the mail about an order is sent."""
        with self._transaction() as run:
            run("INSERT OR IGNORE INTO mails VALUES (?, ?, ?)", (order, address, text))

    def stock(self) -> dict[str, int]:
        """Return the number of each item."""
        return dict(self._rows("SELECT item, number FROM stock ORDER BY item"))

    def turnover(self, day: str) -> tuple[int, int]:
        """Return the number of paid orders of a day (`2026-12-31`), and their cents."""
        query = "SELECT COUNT(*), COALESCE(SUM(cents), 0) FROM orders WHERE day = ? AND state = 'charged'"
        ((orders, cents),) = self._rows(query, day)
        return orders, cents

    def _rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[Callable[..., sqlite3.Cursor]]:
        with self._lock, self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield self._connection.execute
