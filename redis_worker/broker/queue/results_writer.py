"""Results written without acknowledging a claim: at most once, and for an output in another slot of Redis Cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.task import Outcome


async def write_results(connection: Connection, keys: Keys, outcomes: Sequence[Outcome], lifetimes: str) -> None:
    """Write and announce the results of `outcomes`, without acknowledging tasks."""
    arguments: list[Any] = [keys.channel, lifetimes]
    for outcome in outcomes:
        if outcome.id is not None and outcome.result is not None:
            arguments += (outcome.id, outcome.result)
    if len(arguments) > 2:
        await connection.run("write", [keys.output], arguments)
