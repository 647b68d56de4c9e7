"""The part of a supervised process that the running code belongs to."""

from __future__ import annotations

from contextvars import ContextVar

PART: ContextVar[str | None] = ContextVar("redis_worker_part", default=None)
"""The name of the part: set when a part starts, and inherited by its asyncio tasks and threads."""
