"""One connection to Redis: calls with a liveness check, redis-py's errors in the house's words."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from redis_worker.broker.address import Client
from redis_worker.broker.scripts import script
from redis_worker.broker.wire import execute, execute_together
from redis_worker.vocabulary.errors import Disconnected, RedisWorkerError, Refused

T = TypeVar("T")

# A server that has not answered an ordinary call in this time is taken for gone, in seconds.
PATIENCE = 15.0

# Replies by which a server says "not now": it loads, fails over, is full, or cannot write.
_PASSING = (
    "LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "TRYAGAIN", "OOM", "MISCONF", "NOREPLICAS",
    "UNBLOCKED", "BUSY", "UNKILLABLE",
)  # fmt: skip


class Connection:
    """A client, ours or the caller's, and how it is called."""

    def __init__(self, client: Client, owned: bool) -> None:
        self.client = client
        self._owned = owned

    async def call(self, *command: Any, patience: float = PATIENCE) -> Any:
        """The reply to one command, never decoded. Raises Disconnected or Refused.

        The call is never cancelled, even when its caller is: a cancelled blocking pop loses the
        reply, and with a socket timeout on Python < 3.12 the cancellation itself. When no reply
        comes within `patience` seconds the connection is cut, which ends the call with an error.
        """
        return await self._watched(execute(self.client, *command), patience)

    async def run(self, name: str, keys: Iterable[str], arguments: Iterable[Any], patience: float = PATIENCE) -> Any:
        """The reply of the script `name`. Raises Disconnected or Refused."""
        lua = script(name)
        keys = list(keys)
        try:
            return await self.call("EVALSHA", lua.digest, len(keys), *keys, *arguments, patience=patience)
        except UnknownScript:
            return await self.call("EVAL", lua.source, len(keys), *keys, *arguments, patience=patience)

    async def together(self, *commands: tuple[Any, ...], patience: float) -> list[Any]:
        """The replies to several commands sent at once, an error reply as the exception it stands for."""
        if isinstance(self.client, RedisCluster):  # which gives up the order of a pipeline
            return [await self.call(*command, patience=patience) for command in commands]
        replies = await self._watched(execute_together(self.client, commands), patience)
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def info(self) -> dict[str, Any]:
        """What the server says of itself (INFO server)."""
        options: dict[str, Any] = {}
        if isinstance(self.client, RedisCluster):
            options["target_nodes"] = RedisCluster.DEFAULT_NODE
        info: dict[str, Any] = await self._watched(self.client.execute_command("INFO", "server", **options), PATIENCE)
        return info

    async def _watched(self, reply: Awaitable[T], patience: float) -> T:
        call = asyncio.ensure_future(reply)
        try:
            done, _ = await asyncio.wait({call}, timeout=patience)
        except asyncio.CancelledError:
            call.add_done_callback(_forget)
            raise
        if not done:
            await self.cut()
            if not (await asyncio.wait({call}, timeout=1.0))[0]:
                call.cancel()
                raise Disconnected(f"the server has not answered for {patience:g} s")
        try:
            return call.result()
        except Exception as error:
            raise translated(error) from error

    async def cut(self) -> None:
        """Drop the connections of a client of ours, so that its calls end; a caller's client is left alone."""
        if not self._owned:
            return
        try:
            if isinstance(self.client, RedisCluster):
                await asyncio.gather(*(node.disconnect() for node in self.client.get_nodes()))
            else:
                await self.client.connection_pool.disconnect()
        except (exceptions.RedisError, OSError):
            pass

    async def close(self) -> None:
        """Close a client of ours; a caller's client is left open."""
        if not self._owned:
            return
        try:
            await self.client.aclose()
            pool = getattr(self.client, "connection_pool", None)
            if isinstance(pool, SentinelConnectionPool):
                await pool.sentinel_manager.aclose()
        except (exceptions.RedisError, OSError):
            pass


class UnknownScript(RedisWorkerError):
    """The server does not know the script, or has forgotten it in a restart."""


def translated(error: Exception) -> Exception:
    """`error` as Disconnected (trying again may help), Refused (it will not), or as it is (a defect)."""
    text = str(error) or type(error).__name__
    if isinstance(error, exceptions.NoScriptError):
        return UnknownScript(text)
    if isinstance(error, (exceptions.AuthenticationError, exceptions.AuthenticationWrongNumberOfArgsError)):
        return Refused(f"Redis refuses the login: {text}; check the user name and password")
    if isinstance(error, (exceptions.NoPermissionError, exceptions.AuthorizationError)):
        return Refused(f"Redis refuses the command: {text}; grant the user the right to it")
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return Refused(f"the server's certificate is not accepted: {text}")
    if isinstance(error, exceptions.ResponseError) and not isinstance(error, exceptions.ClusterError):
        # Some classes of redis-py take the code off the text: ask for both.
        if _is_passing(error, text):
            return Disconnected(text)
        return Refused(_refusal(text))
    if isinstance(error, (exceptions.RedisError, OSError, EOFError, asyncio.TimeoutError)):
        return Disconnected(text)
    return error


def _is_passing(error: Exception, text: str) -> bool:
    passing = (
        exceptions.ReadOnlyError, exceptions.TryAgainError, exceptions.OutOfMemoryError,
        exceptions.MovedError, exceptions.AskError,
    )  # fmt: skip
    return isinstance(error, passing) or any(code in text[:40] for code in _PASSING)


def _refusal(text: str) -> str:
    if "WRONGTYPE" in text:
        detail = text.partition("WRONGTYPE")[2].strip()
        return f"a key holds another type than it should: {detail}"
    if "NOAUTH" in text or "WRONGPASS" in text or "invalid password" in text:
        return f"Redis refuses the login: {text}; check the user name and password"
    return f"Redis refuses: {text}"


def _forget(call: asyncio.Future[Any]) -> None:
    if not call.cancelled():
        call.exception()
