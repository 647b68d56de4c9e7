"""Which part of a supervised process the running code belongs to."""

from __future__ import annotations

from contextvars import ContextVar

PART: ContextVar[str | None] = ContextVar("redis_worker_part", default=None)
"""The name of the part: set where a part is run, and so known to every task and thread that it starts."""
