"""A script that is run for each of many queues or cron jobs, in few round trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.connection.error_translation import UnknownScript
from redis_worker.broker.scripts import script
from redis_worker.vocabulary.errors import Refused

Call: TypeAlias = tuple[list[str], list[Any]]
"""The keys and the arguments of one run."""

# Runs per round trip.
_PAGE = 200


async def run_each(connection: Connection, name: str, calls: Sequence[Call]) -> list[Any]:
    """Return the reply of the script `name`, or its refusal, for each of `calls`. Raises Disconnected."""
    digest, replies = script(name).digest, list[Any]()
    for start in range(0, len(calls), _PAGE):
        first, *others = calls[start : start + _PAGE]
        replies.append(await _run(connection, name, first))  # which loads the script
        if others:
            commands = [("EVALSHA", digest, len(keys), *keys, *arguments) for keys, arguments in others]
            for call, reply in zip(others, await connection.together(*commands, patience=PATIENCE), strict=True):
                # In a cluster, another node may own the keys.
                unknown = isinstance(reply, UnknownScript)
                replies.append(await _run(connection, name, call) if unknown else reply)
    return replies


async def _run(connection: Connection, name: str, call: Call) -> Any:
    try:
        return await connection.run(name, *call)
    except Refused as error:
        return error
