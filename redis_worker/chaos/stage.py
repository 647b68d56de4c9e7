"""The stage of a run: servers, proxies, and the worker processes, started and removed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.keys import Keys
from redis_worker.chaos.cluster import elsewhere, start_cluster
from redis_worker.chaos.driver import Driver, Story
from redis_worker.chaos.faults import KINDS, Fault, schedule
from redis_worker.chaos.modes import AtMostOnceMode, ClusterMode, CronMode, Mode, PoolMode, TopicsMode
from redis_worker.chaos.options import Options
from redis_worker.chaos.proxy import Proxy
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


async def perform(options: Options, display: Display) -> Story:
    """Run `options`. The story is incomplete if it was interrupted. Raises RedisWorkerError."""
    _check(options)
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
        if options.mode == "cluster":
            servers = await start_cluster(stack)
            url = f"redis+cluster://{','.join(f'{HOST}:{server.embedded.port}' for server in servers)}"
        else:
            servers = [await stack.enter_async_context(PrivateServer())]
            url = servers[0].url
        connection = open_connection(url)
        stack.push_async_callback(connection.close)
        # In the server's folder, which is removed even if this process is killed.
        folder = servers[0].embedded.folder / "chaos"
        folder.mkdir()
        mode = await _mode(options, servers, folder)
        faults_of = _kinds(options, mode)
        units = await _start(stack, mode, servers, url, folder)
        ports = ", ".join(str(server.embedded.port) for server in servers)
        display.say(f"private server on port {ports}; workers: {', '.join(unit.name for unit in units)}")
        driver = _driver(options, mode, servers, connection, units, faults_of, display)
        try:
            await driver.run()
        except asyncio.CancelledError:
            pass  # the story so far is told
        return driver.story


def _driver(
    options: Options,
    mode: Mode,
    servers: list[PrivateServer],
    connection: Connection,
    units: list[Unit],
    kinds: list[str],
    display: Display,
) -> Driver:
    fleets = [position for position, unit in enumerate(units) if unit.is_fleet]
    singles = [position for position, unit in enumerate(units) if not unit.is_fleet]
    faults: list[Fault] = schedule(options.seed, kinds, options.seconds, singles, fleets)
    return Driver(mode, servers, connection, units, faults, options.seconds, display)


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


async def _start(stack: AsyncExitStack, mode: Mode, servers: list[PrivateServer], url: str, folder: Path) -> list[Unit]:
    """Start the workers, each behind a proxy; those of a cluster connect to its nodes."""
    processes = stack.enter_context(Processes(folder, Path.cwd()))
    units = []
    for crew in mode.crews():
        proxy = None
        if len(servers) == 1:
            proxy = await stack.enter_async_context(Proxy(lambda: servers[0].place))
        place = url if proxy is None else f"redis://{HOST}:{proxy.port}/0"
        units.append(Unit(crew.name, processes, [*crew.arguments, "--url", place], proxy, is_fleet=crew.is_fleet))
    await asyncio.gather(*(unit.is_up() for unit in units))
    return units


def _kinds(options: Options, mode: Mode) -> list[str]:
    """Return the faults to inflict. Raises ConfigurationError if the mode does not have one of them."""
    if unknown := [name for name in options.faults if name not in mode.faults]:
        raise ConfigurationError(
            f"the mode {options.mode} has no fault {unknown[0]!r}; it has {', '.join(mode.faults)}"
        )
    return [name for name in KINDS if name in (options.faults or mode.faults)]


def _check(options: Options) -> None:
    """Raise ConfigurationError if the user's functions cannot be found: a worker would only say so in its log."""
    if options.processor is None:
        return
    if options.mode in {"topics", "cron"}:
        find_function("handler" if options.mode == "topics" else "job", options.processor)
    else:
        find_processor(options.processor)
        find_parser(options.parser)
