"""A connection to Redis: calls with a liveness check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.client_connections import (
    RETRY_INTERVAL,
    abort_connections,
    connections_of,
    most_connections,
    with_connection,
)
from redis_worker.broker.connection.error_translation import UnknownScript, translated
from redis_worker.broker.connection.forks import close_silently, watch_forks
from redis_worker.broker.connection.kept_connections import KeptConnections
from redis_worker.broker.connection.packing import execute, execute_together, is_plain
from redis_worker.broker.connection.turns import Turns
from redis_worker.broker.scripts import script
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused

T = TypeVar("T")

# Seconds without a reply to an ordinary call after which the server counts as gone.
PATIENCE = 15.0
# Most concurrent calls; more wait for a turn, because redis-py's pool raises when it is exhausted.
_MAX_CONCURRENT = 32
# Seconds left to calls under way when another connection finds the server silent.
_HURRIED_PATIENCE = 2.0
# Seconds a call may take to end after its connection is cut.
_CUT_PATIENCE = 1.0


class Connection:
    """A client, ours or the caller's, with the methods that call it."""

    def __init__(
        self,
        client: Client,
        owned: bool,
        lasting: bool = False,
        beside: Connection | None = None,
        checked: bool = False,
    ) -> None:
        """`lasting`: for a caller that makes many calls, and retries failed ones unless they are `checked`.

        `checked`: what ended while idle is replaced before anything is sent, as it is without `lasting`.
        `beside`: a connection to the same server; its calls get less time once a call here gets no reply.
        """
        self.client = client
        self._kept: KeptConnections | None = None
        at_once = min(_MAX_CONCURRENT, most_connections(client) or _MAX_CONCURRENT)
        if lasting and owned and isinstance(client, Redis) and is_plain(client):
            self._kept = KeptConnections(client, self._on_timeout, at_once, checked)
        self._owned = owned
        self._beside = beside
        self._turns = Turns(at_once)
        self._abandoned: set[asyncio.Future[Any]] = set()
        """Calls that have not ended and that no caller awaits any more."""
        self._unusable: str | None = None
        """Reason it can no longer be used: another process owns its sockets, or its event loop is closed."""
        self._closed = False
        watch_forks(self)

    async def call(self, *command: Any, patience: float = PATIENCE) -> Any:
        """Return the reply to one command, never decoded. Raises Disconnected or Refused.

        The call is never cancelled, even if its caller is: a cancelled blocking pop loses the reply, and with
        a socket timeout on Python < 3.12 the cancellation itself. Without a reply within `patience` seconds all
        connections are cut, which ends this call and the others with an error. Time spent waiting for a turn
        does not count.
        """
        if self._kept is not None:
            [reply] = await self._exchange(self._kept, (command,), patience)
            if isinstance(reply, Exception):
                raise reply
            return reply
        return await self._watched(lambda: execute(self.client, *command), patience)

    async def _exchange(self, kept: KeptConnections, commands: Sequence[Sequence[Any]], patience: float) -> list[Any]:
        if self._closed or self._unusable is not None:
            self._check_usable()
        try:
            replies = await kept.exchange(commands, patience)
        except Exception as error:
            raise translated(error) from error
        for position, reply in enumerate(replies):
            if isinstance(reply, Exception):
                replies[position] = translated(reply)
        return replies

    async def run(
        self, name: str, keys: Iterable[str], arguments: Iterable[Any], patience: float = PATIENCE, last: bool = False
    ) -> Any:
        """Return the reply of the script `name`. Raises Disconnected or Refused.

        `last`: after the server has notified others of what the script does, if possible. It sends the replies of one
        turn first to the client whose first reply of the turn came last. So this one gets a reply to a PING before,
        and a program that waits for a notification wakes first.
        """
        lua = script(name)
        keys = list(keys)
        command = ("EVALSHA", lua.digest, len(keys), *keys, *arguments)
        try:
            if not last or self._kept is None:
                return await self.call(*command, patience=patience)
            _, reply = await self.together(("PING",), command, patience=patience)
            if isinstance(reply, Exception):
                raise reply
            return reply
        except UnknownScript:
            return await self.call("EVAL", lua.source, len(keys), *keys, *arguments, patience=patience)

    async def together(self, *commands: tuple[Any, ...], patience: float, ordered: bool = True) -> list[Any]:
        """Send several commands at once and return their replies; an error reply as an exception.

        In Redis Cluster they are sent one after the other, unless they need not be executed in order.
        """
        if self._kept is not None:
            return await self._exchange(self._kept, commands, patience)
        if isinstance(self.client, RedisCluster):  # RedisCluster pipelines do not keep the order
            if not ordered:
                calls = (self._reply(*command, patience=patience) for command in commands)
                return await asyncio.gather(*calls, return_exceptions=True)
            return [await self._reply(*command, patience=patience) for command in commands]
        client = self.client
        replies = await self._watched(lambda: execute_together(client, commands), patience)
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _reply(self, *command: Any, patience: float) -> Any:
        try:
            return await self.call(*command, patience=patience)
        except (Refused, UnknownScript) as error:
            return error

    async def ping(self, patience: float) -> None:
        """Return once the server answers and can work. Raises Disconnected or Refused."""
        if not isinstance(self.client, RedisCluster):
            await self.call("PING", patience=patience)
            return
        # PING would go to every node, and a cluster works without a replica. A cluster being
        # created answers, but does not work yet.
        reply = await self._at_one_node("CLUSTER INFO", patience=patience)
        if isinstance(reply, dict) and reply.get("cluster_state") == "fail":
            raise Disconnected("the cluster state is fail")

    async def info(self, section: str = "server") -> dict[str, Any]:
        """Return the server's INFO `section`; "default" for most sections."""
        if isinstance(self.client, RedisCluster):
            return dict(await self._at_one_node("INFO", section, patience=PATIENCE))
        return dict(await self.at_one_server("INFO", section))

    async def at_one_server(self, *command: str) -> Any:
        """Return the server's reply as redis-py parses it; in a cluster, the reply of any one node.

        A command of two words is one argument, as in "CONFIG GET". Raises Disconnected or Refused.
        """
        client: Any = self.client
        options: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            # Even with "any node", redis-py looks for keys in a command for which it has no policy.
            options["target_nodes"] = client.get_default_node() or RedisCluster.DEFAULT_NODE
        return await self._watched(lambda: client.execute_command(*command, **options), PATIENCE)

    async def _at_one_node(self, *command: str, patience: float) -> Any:
        client: Any = self.client
        node = RedisCluster.DEFAULT_NODE
        return await self._watched(lambda: client.execute_command(*command, target_nodes=node), patience)

    async def _watched(self, send: Callable[[], Awaitable[T]], patience: float) -> T:
        self._check_usable()
        if self._turns.free:
            self._turns.free -= 1
        else:
            await self._turns.wait()
        call = asyncio.create_task(with_connection(send, patience - RETRY_INTERVAL))
        call.add_done_callback(lambda _: self._turns.give_back())
        try:
            done, _ = await asyncio.wait({call}, timeout=patience)
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        if not done:
            self._turns.fail(lambda: Disconnected("the server does not answer"))
            if self._beside is not None:
                self._beside.hurry(_HURRIED_PATIENCE)
            await self.cut()
            try:
                done, _ = await asyncio.wait({call}, timeout=_CUT_PATIENCE)
            finally:
                if not done:
                    self._abandon(call)
                    call.cancel()
        if not done:
            raise Disconnected(f"no reply from the server within {patience:g} s")
        try:
            return call.result()
        except Exception as error:
            raise translated(error) from error

    def _abandon(self, call: asyncio.Future[Any]) -> None:
        self._abandoned.add(call)
        call.add_done_callback(self._forget)

    def _forget(self, call: asyncio.Future[Any]) -> None:
        self._abandoned.discard(call)
        if not call.cancelled():
            call.exception()

    async def cut(self) -> None:
        """Abort the connections of a client of ours, so that its calls end; leave a caller's client alone.

        They are aborted, not closed: closing waits until all data is sent, and with TLS for a close_notify,
        and a hanging server accepts neither.
        """
        if not self._owned:
            return
        abort_connections(self.client)
        for connection in connections_of(self.client):
            try:
                await connection.disconnect(nowait=True)
            except (exceptions.RedisError, OSError):
                pass

    def hurry(self, seconds: float) -> None:
        """Limit the remaining time of calls on kept connections to `seconds`."""
        if self._kept is not None:
            self._kept.hurry(seconds)

    def _on_timeout(self) -> None:
        """Limit or end the other calls, here and beside, after one got no reply."""
        if self._beside is not None:
            self._beside.hurry(_HURRIED_PATIENCE)
        abort_connections(self.client)

    def forked(self) -> None:
        """See Inheritable. A connection that was never opened may be used by parent and child."""
        if connections_of(self.client):
            self.leave(forked=True)

    def leave(self, *, forked: bool) -> None:
        """Close the sockets of a client of ours, without sending anything and without its event loop."""
        self._unusable = "the parent of this process" if forked else "a closed event loop"
        if self._owned:
            for connection in connections_of(self.client):
                close_silently(connection, forked=forked)
            if isinstance(self.client, RedisCluster):
                self.client._initialize = True  # avoids the warning about an unclosed client

    def _check_usable(self) -> None:
        if self._closed:  # a repeated call would open connections that are never closed
            raise Disconnected("the connection was closed")
        if self._unusable is not None:
            raise ConfigurationError(
                f"the connection to Redis belongs to {self._unusable}: open a new one here, from a URL or a new client"
            )

    async def close(self) -> None:
        """Close a client of ours and end abandoned calls; leave a caller's client open."""
        if self._unusable is not None:
            return
        self._closed = self._owned
        await self.cut()
        if self._abandoned:
            if self._owned:
                for call in self._abandoned:
                    call.cancel()  # it may be connecting, and would then continue
            await asyncio.wait(self._abandoned, timeout=_CUT_PATIENCE)
            for call in self._abandoned:
                call.cancel()
        if not self._owned:
            return
        if self._kept is not None:
            self._kept.close()
        try:
            await self.client.aclose()
            if not isinstance(self.client, RedisCluster):
                pool = self.client.connection_pool
                if isinstance(pool, SentinelConnectionPool):
                    await pool.sentinel_manager.aclose()
        except (exceptions.RedisError, OSError):
            pass
        # An aborted transport closes its socket in the next iteration of the loop.
        await asyncio.sleep(0)
