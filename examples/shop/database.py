"""The orders of the shop, in SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Lock

_TABLES = """
CREATE TABLE IF NOT EXISTS orders (id TEXT PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (id TEXT PRIMARY KEY);
"""


class Database:
    """A connection for all threads of a process. Each change may be repeated: the second one changes nothing."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
        self._connection.executescript(_TABLES)
        self._lock = Lock()

    def add_order(self, id: str, customer: str, cents: int) -> None:
        """Add an order."""
        self._change("INSERT OR IGNORE INTO orders VALUES (?, ?, ?)", id, customer, cents)

    def add_receipt(self, id: str) -> None:
        """Note that the receipt of an order is sent."""
        self._change("INSERT OR IGNORE INTO receipts VALUES (?)", id)

    def totals(self) -> tuple[int, int, int]:
        """Return the numbers of orders, cents and receipts."""
        query = "SELECT COUNT(*), COALESCE(SUM(cents), 0), (SELECT COUNT(*) FROM receipts) FROM orders"
        with self._lock, closing(self._connection.execute(query)) as rows:
            orders, cents, receipts = rows.fetchone()
        return orders, cents, receipts

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _change(self, statement: str, *values: str | int) -> None:
        with self._lock:
            self._connection.execute(statement, values).close()
