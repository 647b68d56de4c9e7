"""Counts of a sink's flushes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class FlushCounters:
    """Counts since the sink was made; they only grow. Sizes and seconds of flushes are sums: divide by `flushes`."""

    flushes: int = 0
    """Batches committed."""
    values: int = 0
    """Values in these batches, refused ones included."""
    written: int = 0
    """Rows inserted or updated: without duplicates inside a batch, and older versions."""
    refused: int = 0
    """Values that the database refused."""
    seconds: float = 0.0
    """Duration of these flushes."""
    retried: int = 0
    """Flushes begun again after a deadlock or a serialisation failure."""
    failed: int = 0
    """Flushes that failed and wrote nothing, most often for a lost connection."""
