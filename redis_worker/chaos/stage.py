"""The stage of a run: servers, proxies, and the worker processes, started and removed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from redis_worker.chaos.driver import Driver, Story
from redis_worker.chaos.faults import KINDS, schedule
from redis_worker.chaos.modes import AtMostOnceMode, CronMode, Mode, PoolMode, TopicsMode
from redis_worker.chaos.options import Options
from redis_worker.chaos.proxy import Proxy
from redis_worker.chaos.server import PrivateServer
from redis_worker.chaos.units import Unit
from redis_worker.demo.display import Display
from redis_worker.demo.processes import Processes
from redis_worker.registry import find_function, find_parser, find_processor
from redis_worker.signals import stop_signals
from redis_worker.vocabulary.errors import ConfigurationError

_STEM = "chaos"


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
        server = await stack.enter_async_context(PrivateServer())
        # In the server's folder, which is removed even if this process is killed.
        folder = server.embedded.folder / "chaos"
        folder.mkdir()
        mode = _mode(options, folder)
        processes = stack.enter_context(Processes(folder, Path.cwd()))
        units = []
        for crew in mode.crews():
            proxy = await stack.enter_async_context(Proxy(lambda: server.place))
            arguments = [*crew.arguments, "--url", f"redis://127.0.0.1:{proxy.port}/0"]
            units.append(Unit(crew.name, processes, arguments, proxy, is_fleet=crew.is_fleet))
        await asyncio.gather(*(unit.is_up() for unit in units))
        names = ", ".join(unit.name for unit in units)
        display.say(f"a private server listens on port {server.embedded.port}; workers: {names}")
        fleets = [position for position, unit in enumerate(units) if unit.is_fleet]
        singles = [position for position, unit in enumerate(units) if not unit.is_fleet]
        faults = schedule(options.seed, _kinds(options, mode), options.seconds, singles, fleets)
        driver = Driver(mode, [server], units, faults, options.seconds, display)
        try:
            await driver.run()
        except asyncio.CancelledError:
            pass  # the story so far is told
        return driver.story


def _mode(options: Options, folder: Path) -> Mode:
    match options.mode:
        case "pool":
            return PoolMode(options, _STEM)
        case "at-most-once":
            return AtMostOnceMode(options, _STEM)
        case "topics":
            return TopicsMode(options, _STEM, folder)
        case "cron":
            return CronMode(options, _STEM, folder)
    raise ConfigurationError(f"the mode {options.mode} is not known")


def _kinds(options: Options, mode: Mode) -> list[str]:
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
