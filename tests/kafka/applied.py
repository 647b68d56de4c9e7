"""A handler and a sink that count how often each message is applied: the table's trigger adds, an upsert cannot."""

from __future__ import annotations

import os
from typing import Any

from redis_worker import KafkaMessage
from redis_worker.postgres import UpsertSink

SCHEMA = (
    """create table applied (partition integer, message bigint, times integer not null,
       primary key (partition, message))""",
    """create function count_again() returns trigger language plpgsql as
       $$ begin new.times := old.times + 1; return new; end $$""",
    "create trigger count_again before update on applied for each row execute function count_again()",
)


async def coordinates(messages: list[KafkaMessage]) -> list[dict[str, Any]]:
    """Return a row for each message."""
    return [{"partition": message.partition, "message": message.offset, "times": 1} for message in messages]


def raw(value: bytes) -> bytes:
    """Take any value: poison is applied too."""
    return value


def sink() -> UpsertSink:
    """Return the sink; offsets are committed with the rows."""
    return UpsertSink(
        os.environ["POSTGRES_DSN"],
        "applied",
        key=["partition", "message"],
        stores_offsets=True,
        flush_after=0.2,
    )
