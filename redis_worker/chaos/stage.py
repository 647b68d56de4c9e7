"""The stage of a run: a server or a cluster, its workers' mode, and the observer that records a run in the ledger."""

from __future__ import annotations

import secrets
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.chaos.cluster import elsewhere, start_cluster
from redis_worker.chaos.foreign import AnnouncedLedger, AnnouncementObserver, ForeignServer
from redis_worker.chaos.ledger import Ledger
from redis_worker.chaos.modes import AtMostOnceMode, ClusterMode, CronMode, Mode, PoolMode, TopicsMode, marks_of
from redis_worker.chaos.options import Options
from redis_worker.chaos.processes import Processes
from redis_worker.chaos.proxy import Proxy
from redis_worker.chaos.replica import ReplicatedServer
from redis_worker.chaos.server import PrivateServer, open_connection
from redis_worker.embedded import HOST
from redis_worker.vocabulary.errors import ConfigurationError

_STEM = "chaos"
_QUEUE = Keys(f"{_STEM}:input", f"{_STEM}:output")


class Observer(Protocol):
    """The follower of a server, which reports to a ledger."""

    async def observe(self) -> None:
        """Report the changes since the last call."""

    async def finish(self) -> None:
        """Report the final state; no worker runs any more."""


class JournalObserver:
    """An observer that reads the journals of private servers: it misses nothing."""

    def __init__(self, servers: list[PrivateServer], ledger: Ledger) -> None:
        self._ledger = ledger
        self._servers = servers

    async def observe(self) -> None:
        """See Observer."""
        for server in self._servers:
            for transaction in server.journal.transactions():
                self._ledger.observe(transaction, time.time())

    finish = observe


class Stage(NamedTuple):
    """A server or a cluster, with the mode and the processes of its workers."""

    title: str
    servers: list[PrivateServer]
    """Those that faults may concern: none of the user's."""
    connection: Connection
    proxies: list[Proxy]
    """Those that the connection passes."""
    place: Callable[[], tuple[str, int]] | None
    """Host and port for proxies; None if workers connect to the server itself."""
    url: Callable[[int | None], str]
    """URL for workers, by way of a proxy on a port."""
    mode: Mode
    observer: Observer
    processes: Processes


async def set_up(options: Options, stack: AsyncExitStack) -> Stage:
    """Return the stage of a run; `stack` removes it. Raises RedisWorkerError."""
    if options.replica and (options.url is not None or options.mode == "cluster"):
        raise ConfigurationError("--replica is for a private server that is no cluster")
    return await (_private if options.url is None else _foreign)(options, stack)


async def _private(options: Options, stack: AsyncExitStack) -> Stage:
    """Start a private server, or a private cluster."""
    if options.mode == "cluster":
        servers = await start_cluster(stack)
        url = f"redis+cluster://{','.join(f'{HOST}:{server.embedded.port}' for server in servers)}"
    else:
        server = ReplicatedServer() if options.replica else PrivateServer()
        servers = [await stack.enter_async_context(server)]
        url = servers[0].url
    proxy = await stack.enter_async_context(Proxy(lambda: servers[0].place)) if options.replica else None
    connection = open_connection(url if proxy is None else f"redis://{HOST}:{proxy.port}/0")
    stack.push_async_callback(connection.close)
    # In the server's folder, which is removed even if this process is killed.
    folder = servers[0].embedded.folder / "chaos"
    folder.mkdir()
    mode = await _mode(options, servers, folder)
    return Stage(
        f"private server on port {', '.join(str(server.embedded.port) for server in servers)}",
        servers,
        connection,
        [] if proxy is None else [proxy],
        (lambda: servers[0].place) if len(servers) == 1 else None,
        lambda port: url if port is None else f"redis://{HOST}:{port}/0",
        mode,
        JournalObserver(servers, mode.ledger),
        stack.enter_context(Processes(folder, Path.cwd())),
    )


async def _foreign(options: Options, stack: AsyncExitStack) -> Stage:
    """Use the user's server, with keys of an unused name."""
    assert options.url is not None
    if options.mode != "pool":
        raise ConfigurationError(f"the mode {options.mode} needs a private server: leave out --url")
    stem = f"{_STEM}:{secrets.token_hex(4)}"
    keys = Keys(f"{stem}:input", f"{stem}:output")
    server = await stack.enter_async_context(ForeignServer(options.url, keys, marks_of(keys)))
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redis-worker-chaos-")))
    processes = stack.enter_context(Processes(folder, Path.cwd()))
    ledger = AnnouncedLedger(keys, lambda: _claimed_again(processes))
    observer = await stack.enter_async_context(AnnouncementObserver(server, keys, ledger))
    place = server.place
    return Stage(
        f"keys {stem}:…",
        [],
        server.connection,
        [],
        None if place is None else lambda: place,
        lambda port: server.url if port is None else server.through(port),
        PoolMode(options, keys, ledger),
        observer,
        processes,
    )


def _claimed_again(processes: Processes) -> int:
    return sum(line["count"] for process in processes.started for line in process.lines("claimed "))


async def _mode(options: Options, servers: list[PrivateServer], folder: Path) -> Mode:
    match options.mode:
        case "topics":
            return TopicsMode(options, _STEM, folder)
        case "cron":
            return CronMode(options, _STEM, folder)
        case "at-most-once":
            return AtMostOnceMode(options, _QUEUE)
        case "cluster":
            return ClusterMode(options, Keys(_QUEUE.waiting, await elsewhere(servers[0], _QUEUE.waiting)))
    return PoolMode(options, _QUEUE)
