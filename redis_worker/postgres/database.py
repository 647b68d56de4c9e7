"""A database: one connection for each event loop, made when it is needed and again after its loss."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

import asyncpg

from redis_worker.broker.client.per_loop import PerLoop
from redis_worker.broker.connection.forks import close_silently
from redis_worker.engine.reconnect import OutageLog, Reconnect
from redis_worker.postgres.errors import Conflict, translated
from redis_worker.vocabulary.checks import check_seconds
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError

T = TypeVar("T")

# A host, or a folder of sockets, and a port. The text may be half a password.
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(:[0-9]{0,5})?")

# A host that dies in a transaction holds its locks no longer than this.
_SESSION = "set idle_in_transaction_session_timeout = '60s'; set tcp_keepalives_idle = 30; \
set tcp_keepalives_interval = 10; set tcp_keepalives_count = 3"
# Returns when the backend is gone, or after 5 s.
_TERMINATE = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = any($1)"


def shown(dsn: str) -> str:
    """Return the host, port and database of a DSN, without user and password. Raises ConfigurationError."""
    try:
        parts = urlsplit(dsn)
        hosts = parts.netloc.rpartition("@")[2] or parse_qs(parts.query).get("host", ["localhost"])[0]
    except ValueError:
        parts = None
    if (
        parts is None
        or parts.scheme not in ("postgresql", "postgres")
        or "@" in parts.path + parts.query + parts.fragment
        or not all(map(_HOST.fullmatch, hosts.split(",")))
    ):
        raise ConfigurationError(
            "the DSN of PostgreSQL must be postgresql://user:password@host:port/database; characters such as "
            "/ ? # [ @ : in a user name or password must be percent-encoded (/ is %2F)"
        )
    return f"{hosts}{parts.path}"


class Session:
    """The connection of one event loop; its users take turns."""

    def __init__(self, dsn: str, place: str, timeout: float) -> None:
        self._dsn = dsn
        self.place = place
        self._timeout = timeout
        self._turn = asyncio.Lock()
        self._connection: Any = None
        self._name = ""
        self._lost: list[str] = []
        """Names of connections that were cut: their backends may still run a statement."""
        self.reconnect = Reconnect(OutageLog("PostgreSQL"))

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Any]:
        """Yield the connection of asyncpg, in no transaction. Errors that leave the block are translated.

        It is cut if its state is unknown: after a loss, a time limit or a cancellation.
        """
        async with self._turn:
            try:
                if self._connection is None or self._connection.is_closed():
                    await self._connect()
                yield self._connection
            except Exception as error:
                better = translated(error, self.place)
                away = isinstance(better, Disconnected) and not isinstance(better, Conflict)
                if away or not isinstance(better, RedisWorkerError):
                    self._cut()
                if better is error:
                    raise
                raise better from error
            except BaseException:
                # A cancelled statement may be in any state.
                self._cut()
                raise

    async def close(self) -> None:
        """Close the connection in its event loop; the next use makes a new one."""
        async with self._turn:
            connection, self._connection = self._connection, None
            if connection is not None and not connection.is_closed():
                try:
                    await connection.close(timeout=1)
                except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    connection.terminate()

    def leave(self, *, forked: bool) -> None:
        """See Closable."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        # Of a closed loop, or of the parent: nothing is sent, and no loop is involved.
        close_silently(SimpleNamespace(_writer=SimpleNamespace(transport=connection._transport)), forked=forked)
        connection._aborted = True

    def _cut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._lost.append(self._name)
            connection.terminate()

    async def _connect(self) -> None:
        self._name = f"redis_worker {secrets.token_hex(6)}"
        try:
            connection = await asyncpg.connect(
                self._dsn,
                timeout=min(10.0, self._timeout),
                command_timeout=self._timeout,
                server_settings={"application_name": self._name},
            )
        except ValueError:  # its text may quote a secret
            raise ConfigurationError(
                f"the DSN of PostgreSQL at {self.place} has an invalid option after the `?`"
            ) from None
        try:
            await connection.execute(_SESSION)
            if self._lost:
                # A statement of a lost connection must not be carried out after its own repetition and what follows.
                await connection.fetch(_TERMINATE, self._lost)
                self._lost.clear()
        except BaseException:
            connection.terminate()
            raise
        self._connection = connection


class Database:
    """A PostgreSQL database, for any event loop, thread and process: each loop has a connection of its own."""

    def __init__(self, dsn: str, timeout: Duration = 60) -> None:
        """`timeout` limits each statement. Raises ConfigurationError."""
        self.place = shown(dsn)
        seconds = check_seconds("timeout", timeout, above=0)
        self._sessions = PerLoop(lambda: Session(dsn, self.place, seconds))

    @property
    def session(self) -> Session:
        """The session of the running event loop."""
        return self._sessions.get()

    async def patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Return the result of `operation`, retried until it no longer raises Disconnected; the outage is logged."""
        return await self.session.reconnect.call(operation)

    async def close(self) -> None:
        """Close all connections."""
        await self._sessions.close()
