"""The stage of a run: servers, proxies, and the worker processes, started and removed."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.chaos.cluster import elsewhere, start_cluster
from redis_worker.chaos.driver import Driver, Story
from redis_worker.chaos.faults import KINDS, schedule
from redis_worker.chaos.foreign import AnnouncedLedger, AnnouncementObserver, ForeignServer
from redis_worker.chaos.modes import AtMostOnceMode, ClusterMode, CronMode, Mode, PoolMode, TopicsMode, marks_of
from redis_worker.chaos.observers import JournalObserver, Observer
from redis_worker.chaos.options import Options
from redis_worker.chaos.proxy import Proxy
from redis_worker.chaos.replica import ReplicatedServer
from redis_worker.chaos.server import PrivateServer, open_connection
from redis_worker.chaos.units import Unit
from redis_worker.demo.display import Display
from redis_worker.demo.processes import Processes
from redis_worker.embedded import HOST
from redis_worker.registry import find_function, find_parser, find_processor
from redis_worker.signals import stop_signals
from redis_worker.vocabulary.errors import ConfigurationError

_STEM = "chaos"
_QUEUE = Keys(f"{_STEM}:input", f"{_STEM}:output")


class _Stage(NamedTuple):
    """A server or a cluster, and what is to work there."""

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


async def perform(options: Options, display: Display) -> Story:
    """Run `options`. The story is incomplete if it was interrupted. Raises RedisWorkerError."""
    _check(options)
    if options.replica and (options.url is not None or options.mode == "cluster"):
        raise ConfigurationError("--replica is for a private server that is no cluster")
    performance = asyncio.create_task(_perform(options, display))

    def stop() -> None:
        performance.cancel()

    with stop_signals(stop, stop):
        try:
            return await performance
        except asyncio.CancelledError:
            return Story()


async def _perform(options: Options, display: Display) -> Story:
    async with AsyncExitStack() as stack:
        stage = await (_private if options.url is None else _foreign)(options, stack)
        kinds = _kinds(options, stage, display)
        units = []
        for crew in stage.mode.crews():
            proxy = None if stage.place is None else await stack.enter_async_context(Proxy(stage.place))
            url = stage.url(None if proxy is None else proxy.port)
            units.append(Unit(crew.name, stage.processes, crew.arguments, url, proxy, is_fleet=crew.is_fleet))
        await asyncio.gather(*(unit.is_up() for unit in units))
        display.say(f"{stage.title}; workers: {', '.join(unit.name for unit in units)}")
        fleets = [position for position, unit in enumerate(units) if unit.is_fleet]
        singles = [position for position, unit in enumerate(units) if not unit.is_fleet]
        faults = schedule(options.seed, kinds, options.seconds, singles, fleets)
        proxies = [*stage.proxies, *(unit.proxy for unit in units if unit.proxy is not None)]
        driver = Driver(
            stage.mode,
            stage.servers,
            stage.connection,
            stage.observer,
            units,
            proxies,
            faults,
            options.seconds,
            display,
        )
        try:
            await driver.run()
        except asyncio.CancelledError:
            pass  # the story so far is told
        return driver.story


async def _private(options: Options, stack: AsyncExitStack) -> _Stage:
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
    return _Stage(
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


async def _foreign(options: Options, stack: AsyncExitStack) -> _Stage:
    """Use the user's server, with keys of a name that nobody has."""
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
    return _Stage(
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


def _kinds(options: Options, stage: _Stage, display: Display) -> list[str]:
    """Return the faults to inflict. Raises ConfigurationError if one is not to be had."""
    possible = (*stage.mode.faults, *(["failover"] if options.replica else []))
    if unknown := [name for name in options.faults if name not in possible]:
        if unknown[0] == "failover":
            raise ConfigurationError("the fault 'failover' needs --replica")
        raise ConfigurationError(f"the mode {options.mode} has no fault {unknown[0]!r}; it has {', '.join(possible)}")
    wanted = [name for name in KINDS if name in (options.faults or possible)]
    left_out = {name for name in wanted if KINDS[name].target == "server"} if not stage.servers else set()
    if options.url is not None and stage.place is None:
        left_out |= {name for name in wanted if KINDS[name].target == "network"}
    if left_out:
        names = ", ".join(name for name in wanted if name in left_out)
        if not set(wanted) - left_out:
            raise ConfigurationError(f"these faults need a private server: {names}; leave out --url")
        display.say(f"left out, because the server is not private: {names}")
    return [name for name in wanted if name not in left_out]


def _check(options: Options) -> None:
    """Raise ConfigurationError if the user's functions cannot be found: a worker would only say so in its log."""
    if options.processor is None:
        return
    if options.mode in {"topics", "cron"}:
        find_function("handler" if options.mode == "topics" else "job", options.processor)
    else:
        find_processor(options.processor)
        find_parser(options.parser)
