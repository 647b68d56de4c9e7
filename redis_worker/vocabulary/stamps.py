"""The creation time of a task or message, as its producer wrote it."""

from __future__ import annotations

import math

from redis_worker.vocabulary.payload import loads

# `emit_ts` of a task, `published_at` of a message.
_MEMBERS = ("emit_ts", "published_at")


def made_at(raw: bytes) -> float | None:
    """Return the creation time, in seconds since the epoch; None if `raw` holds no valid one."""
    if b'"emit_ts"' not in raw and b'"published_at"' not in raw:
        return None
    try:
        payload = loads(raw)
        value = next(payload[member] for member in _MEMBERS if member in payload)
        # A boolean is an int and no time; 0 and less is a clock that was never set.
        seconds = float(value) if type(value) in (int, float) else 0.0
    except (ValueError, TypeError, OverflowError, StopIteration):
        return None
    return seconds if 0.0 < seconds < math.inf else None
