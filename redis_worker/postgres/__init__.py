"""PostgreSQL as a destination: upserts in batches, cached lookups, offsets. Optional: the extra `postgres`."""

from __future__ import annotations

from redis_worker.vocabulary.errors import ConfigurationError

try:
    import asyncpg as asyncpg
except ImportError as error:
    raise ConfigurationError(
        f"PostgreSQL needs the extra `postgres` ({error.name} is missing): pip install 'redis-worker[postgres]'"
    ) from None

from redis_worker.postgres.counters import FlushCounters
from redis_worker.postgres.errors import RowRefused
from redis_worker.postgres.lookup import Lookup
from redis_worker.postgres.offsets import OffsetStore
from redis_worker.postgres.upsert_sink import UpsertSink

__all__ = ["FlushCounters", "Lookup", "OffsetStore", "RowRefused", "UpsertSink"]
