"""Encoding of commands and reading of replies, for calls with thousands of arguments.

redis-py's asyncio client encodes each argument in Python, which would cost more than all other work on a
task; hiredis does it in C. Replies are never decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.client import NEVER_DECODE
from redis.exceptions import RedisError, ResponseError

from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.freshness import refresh, refresh_idle


async def execute(client: Client, *command: Any) -> Any:
    """Return the reply to one command. Raises redis-py's exceptions."""
    if not is_plain(client):
        if isinstance(client, RedisCluster):
            await refresh_idle(client)
        return await client.execute_command(*command, **{NEVER_DECODE: True})
    [reply] = await _exchange(client, [command])
    if isinstance(reply, RedisError):
        raise reply
    return reply


async def execute_together(client: Redis, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Send several commands at once and return their replies; an error reply as an exception."""
    if is_plain(client):
        return await _exchange(client, commands)
    pipeline = client.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return list(await pipeline.execute(raise_on_error=False))


def is_plain(client: Client) -> bool:
    """Return True if each call can take a standard redis-py connection from the client's pool."""
    if not isinstance(client, Redis) or client.single_connection_client:
        return False
    connection_class = client.connection_pool.connection_class
    return connection_class.__module__.startswith("redis.") and issubclass(connection_class, AbstractConnection)


async def _exchange(client: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    pool = client.connection_pool
    connection = await pool.get_connection()
    try:
        await refresh(connection)
        return await _ask(connection, commands)
    finally:
        await pool.release(connection)


async def _ask(connection: Any, commands: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the replies to `commands` on a connection, which is closed unless all have arrived."""
    replies: list[Any] = []
    try:
        await connection.send_packed_command([pack_command(tuple(command)) for command in commands])
        for _ in commands:
            try:
                replies.append(await connection.read_response(disable_decoding=True))
            except ResponseError as error:
                replies.append(error)
    finally:
        if len(replies) < len(commands):
            # Later data would be taken for replies to other commands.
            await connection.disconnect(nowait=True)
    return replies
