"""One connection to Redis: calls with a liveness check."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.error_translation import UnknownScript, translated
from redis_worker.broker.connection.forks import let_go, watch_forks
from redis_worker.broker.connection.kept_connections import Line
from redis_worker.broker.connection.packing import execute, execute_together, is_plain
from redis_worker.broker.connection.turns import Turns
from redis_worker.broker.scripts import script
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, Refused

T = TypeVar("T")

# A server that has not answered an ordinary call in this time is taken for gone, in seconds.
PATIENCE = 15.0
# So many calls go on at once; more wait their turn, for a pool of redis-py's that has no connection left fails.
_AT_ONCE = 32
# How often to ask again for a connection of a client's pool that others use up, in seconds.
_ASK_AGAIN = 0.02
# What a call gets that is under way when another connection finds the server silent, in seconds.
_DOUBT = 2.0
# How long a call may take to end once its connection is cut, in seconds.
_LAST_BREATH = 1.0


class Connection:
    """A client, ours or the caller's, and how it is called."""

    def __init__(self, client: Client, owned: bool, lasting: bool = False, beside: Connection | None = None) -> None:
        """`lasting`: for a caller that makes call after call, and tries again those that fail.

        `beside` is a connection to the same server: its calls are hurried when a call here gets no reply.
        """
        self.client = client
        self._line: Line | None = None
        at_once = min(_AT_ONCE, _most_connections(client))
        if lasting and owned and isinstance(client, Redis) and is_plain(client):
            self._line = Line(client, self._break, at_once)
        self._owned = owned
        self._beside = beside
        self._turns = Turns(at_once)
        self._abandoned: set[asyncio.Future[Any]] = set()
        """Calls that nobody waits for any more, and that have not ended."""
        self._left: str | None = None
        """Why it may not be used any more: its sockets are another process's, or its event loop is closed."""
        watch_forks(self)

    async def call(self, *command: Any, patience: float = PATIENCE) -> Any:
        """The reply to one command, never decoded. Raises Disconnected or Refused.

        The call is never cancelled, even when its caller is: a cancelled blocking pop loses the
        reply, and with a socket timeout on Python < 3.12 the cancellation itself. When no reply
        comes within `patience` seconds all connections are cut, which ends this call and the others with
        an error. A call waits for its turn before that, as long as the calls before it take.
        """
        if self._line is not None:
            [reply] = await self._on_line(self._line, (command,), patience)
            if isinstance(reply, Exception):
                raise reply
            return reply
        return await self._watched(lambda: execute(self.client, *command), patience)

    async def _on_line(self, line: Line, commands: Sequence[Sequence[Any]], patience: float) -> list[Any]:
        self._check_left()
        try:
            replies = await line.exchange(commands, patience)
        except Exception as error:
            raise translated(error) from error
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

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
            return [await self._reply(*command, patience=patience) for command in commands]
        if self._line is not None:
            return await self._on_line(self._line, commands, patience)
        client = self.client
        replies = await self._watched(lambda: execute_together(client, commands), patience)
        return [translated(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _reply(self, *command: Any, patience: float) -> Any:
        try:
            return await self.call(*command, patience=patience)
        except (Refused, UnknownScript) as error:
            return error

    async def ping(self, patience: float) -> None:
        """Returns when the server answers and can work. Raises Disconnected or Refused."""
        if not isinstance(self.client, RedisCluster):
            await self.call("PING", patience=patience)
            return
        # PING would go to every node, and a cluster that has lost a replica works. One that is being
        # put together answers, but does not work yet.
        reply = await self._at_one_node("CLUSTER INFO", patience=patience)
        if isinstance(reply, dict) and reply.get("cluster_state") == "fail":
            raise Disconnected("the state of the cluster is fail")

    async def info(self, section: str = "server") -> dict[str, Any]:
        """What the server says of itself; `section` as of INFO, "default" for most of it."""
        if isinstance(self.client, RedisCluster):
            return dict(await self._at_one_node("INFO", section, patience=PATIENCE))
        return dict(await self.at_one_server("INFO", section))

    async def at_one_server(self, *command: str) -> Any:
        """The reply of the server, in a cluster of any one node, as redis-py reads it.

        A command of two words is one argument, as in "CONFIG GET". Raises Disconnected or Refused.
        """
        client: Any = self.client
        options: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            # Told "any node", redis-py looks for keys in a command all the same, where it has no policy for it.
            options["target_nodes"] = client.get_default_node() or RedisCluster.DEFAULT_NODE
        return await self._watched(lambda: client.execute_command(*command, **options), PATIENCE)

    async def _at_one_node(self, *command: str, patience: float) -> Any:
        client: Any = self.client
        node = RedisCluster.DEFAULT_NODE
        return await self._watched(lambda: client.execute_command(*command, target_nodes=node), patience)

    async def _watched(self, send: Callable[[], Awaitable[T]], patience: float) -> T:
        self._check_left()
        if self._turns.free:
            self._turns.free -= 1
        else:
            await self._turns.wait()
        call = asyncio.create_task(_with_connection(send, patience - _ASK_AGAIN))
        call.add_done_callback(lambda _: self._turns.give_back())
        try:
            done, _ = await asyncio.wait({call}, timeout=patience)
        except asyncio.CancelledError:
            self._abandon(call)
            raise
        if not done:
            self._turns.fail(lambda: Disconnected("the server does not answer"))
            if self._beside is not None:
                self._beside.hurry(_DOUBT)
            await self.cut()
            try:
                done, _ = await asyncio.wait({call}, timeout=_LAST_BREATH)
            finally:
                if not done:
                    self._abandon(call)
                    call.cancel()
        if not done:
            raise Disconnected(f"the server has not answered for {patience:g} s")
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
        """Drop the connections of a client of ours, so that its calls end; a caller's client is left alone.

        They are torn, not closed: closing waits for what is still to be sent, and with TLS for a
        farewell, and a server that hangs takes neither.
        """
        if not self._owned:
            return
        self._tear()
        for connection in _connections(self.client):
            try:
                await connection.disconnect(nowait=True)
            except (exceptions.RedisError, OSError):
                pass

    def hurry(self, seconds: float) -> None:
        """Give the calls under way on kept connections so many seconds more at the most."""
        if self._line is not None:
            self._line.hurry(seconds)

    def _break(self) -> None:
        """See to the other calls, here and beside, when one has had no reply."""
        if self._beside is not None:
            self._beside.hurry(_DOUBT)
        self._tear()

    def _tear(self) -> None:
        for connection in _connections(self.client):
            transport = getattr(connection._writer, "transport", None)  # fakeredis has none
            if transport is not None:
                transport.abort()

    def forked(self) -> None:
        """See Inheritable. A connection that was never opened may be used by parent and child."""
        if _connections(self.client):
            self.leave(forked=True)

    def leave(self, *, forked: bool) -> None:
        """Let go of the sockets of a client of ours, without a word on them and without its event loop."""
        self._left = "the parent of this process" if forked else "an event loop that is closed"
        if self._owned:
            for connection in _connections(self.client):
                let_go(connection, forked=forked)
            if isinstance(self.client, RedisCluster):
                self.client._initialize = True  # or it complains, when it is collected, that it was not closed

    def _check_left(self) -> None:
        if self._left is not None:
            raise ConfigurationError(
                f"the connection to Redis was opened in {self._left}: open another one here, by a URL or a new client"
            )

    async def close(self) -> None:
        """Close a client of ours; a caller's client is left open. What was called and given up ends here."""
        if self._left is not None:
            return
        await self.cut()
        if self._abandoned:
            if self._owned:
                for call in self._abandoned:
                    call.cancel()  # it may be connecting just now, and would then go on
            await asyncio.wait(self._abandoned, timeout=_LAST_BREATH)
            for call in self._abandoned:
                call.cancel()
        if not self._owned:
            return
        if self._line is not None:
            self._line.close()
        try:
            await self.client.aclose()
            if not isinstance(self.client, RedisCluster):
                pool = self.client.connection_pool
                if isinstance(pool, SentinelConnectionPool):
                    await pool.sentinel_manager.aclose()
        except (exceptions.RedisError, OSError):
            pass
        # A transport that was torn closes its socket in the next turn of the loop.
        await asyncio.sleep(0)


async def _with_connection(send: Callable[[], Awaitable[T]], patience: float) -> T:
    """Do what `send` does, once the client has a connection for it: others may use up those of a caller's client.

    Raises Disconnected where none has come free after `patience` seconds.
    """
    end = asyncio.get_running_loop().time() + patience
    while True:
        try:
            return await send()
        except exceptions.ConnectionError as error:
            if not _is_used_up(error):
                raise
        await asyncio.sleep(_ASK_AGAIN)
        if asyncio.get_running_loop().time() >= end:
            raise Disconnected("all connections of the client are in use by others: raise its max_connections")


def _is_used_up(error: exceptions.ConnectionError) -> bool:
    """Whether redis-py's pool has no connection left, so that nothing was sent."""
    return isinstance(error, exceptions.MaxConnectionsError) or str(error) == "No connection available."


def _most_connections(client: Client) -> int:
    options: Any = client.connection_kwargs if isinstance(client, RedisCluster) else vars(client.connection_pool)
    return int(options.get("max_connections") or _AT_ONCE)


def _connections(client: Client) -> list[Any]:
    """All connections of a client, idle and in use; redis-py has no public way to ask.

    Of a cluster those of every node are listed, because a client that has lost one node does not
    close the others: it takes itself for one that is not open.
    """
    if isinstance(client, RedisCluster):
        manager = client.nodes_manager
        nodes = {id(node): node for node in (*manager.nodes_cache.values(), *manager.startup_nodes.values())}
        return [connection for node in nodes.values() for connection in node._connections]
    pools = [client.connection_pool]
    if isinstance(client.connection_pool, SentinelConnectionPool):
        pools += [sentinel.connection_pool for sentinel in client.connection_pool.sentinel_manager.sentinels]
    return [connection for pool in pools for connection in (*pool._available_connections, *pool._in_use_connections)]
