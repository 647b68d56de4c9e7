"""Handlers of Kafka parts, for the tests that name them in files."""

from __future__ import annotations

from typing import Any

NAMES = ("id", "value")


async def to_row(message: Any) -> dict[str, Any]:
    """Return the message's data, a row already."""
    row: dict[str, Any] = message.data
    if "poison" in row:
        raise ValueError("poison")
    return row
