"""The execution of faults."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from redis_worker.broker.keys import Keys, tasks_among
from redis_worker.chaos.faults import KINDS, Fault
from redis_worker.chaos.replica import ReplicatedServer
from redis_worker.chaos.server import PrivateServer, persistent_call
from redis_worker.chaos.stage import Stage
from redis_worker.chaos.tasks import Producers
from redis_worker.chaos.units import Unit, send

# Tries to stop a worker at a moment when it holds tasks, and the pause between two, in seconds.
_TRIES = 20
_PAUSE = 0.001
# Pushes of a burst: after each of them a worker may be stopped at the right moment.
_BURSTS = 4
# Delay of each piece of data, and number of replies cut in half.
_EACH = 0.1
_REPLIES = 2
# Limit of the wait for replies to cut, in seconds.
_PATIENCE = 4.0


class Inflicted(NamedTuple):
    """A fault that took place."""

    kind: str
    begin: float
    """Time of day, in seconds since the epoch."""
    end: float
    text: str


class Attack:
    """The attack on the units and servers of a stage."""

    def __init__(
        self, stage: Stage, units: Sequence[Unit], producers: Producers, violated: Callable[[str], None]
    ) -> None:
        """`violated` is called with a sentence if a process does not end as it should."""
        self.inflicted: list[Inflicted] = []
        self._stage = stage
        self._units = units
        self._proxies = [*stage.proxies, *(unit.proxy for unit in units if unit.proxy is not None)]
        self._producers = producers
        self._violated = violated
        self._on_worker: dict[str, Callable[[Unit, Fault], Awaitable[str]]] = {
            "kill": self._kill, "kill-parent": self._kill_parent, "freeze": self._freeze, "terminate": self._terminate,
        }  # fmt: skip

    async def inflict(self, fault: Fault) -> Inflicted:
        """Carry out a fault, and return when it is over."""
        unit = self._units[fault.victim]
        begin = time.time()
        if act := self._on_worker.get(fault.kind):
            async with unit.turn:
                begin = time.time()
                text = await act(unit, fault)
        elif KINDS[fault.kind].target == "network":
            text = await self._on_network(unit, fault)
        else:
            text = await self._on_server(self._stage.servers[fault.victim % len(self._stage.servers)], fault)
        self.inflicted.append(Inflicted(fault.kind, begin, time.time(), text))
        return self.inflicted[-1]

    async def _kill(self, unit: Unit, fault: Fault) -> str:
        pid = self._pid(unit, fault)
        held = await self._catch(pid)
        if unit.is_fleet:
            send(pid, signal.SIGKILL)  # its parent starts another one
        else:
            unit.process.kill()
            unit.start()
        return f"SIGKILL of {unit.name}{held}"

    async def _kill_parent(self, unit: Unit, fault: Fault) -> str:  # noqa: ARG002 - all have the same parameters
        await self._producers.burst()
        self._note(await unit.kill_parent())
        unit.start()
        return f"SIGKILL of the parent of {unit.name}"

    async def _freeze(self, unit: Unit, fault: Fault) -> str:
        pid = self._pid(unit, fault)
        try:
            held = await self._catch(pid)
            await asyncio.sleep(fault.seconds)
        finally:
            send(pid, signal.SIGCONT)
        return f"SIGSTOP of {unit.name} for {fault.seconds:.1f} s{held}"

    async def _terminate(self, unit: Unit, fault: Fault) -> str:  # noqa: ARG002
        await self._producers.burst()
        self._note(await unit.stop())
        unit.start()
        return f"SIGTERM of {unit.name}"

    async def _on_network(self, unit: Unit, fault: Fault) -> str:
        proxy = unit.proxy
        assert proxy is not None
        harm: asyncio.Future[int | None]
        match fault.kind:
            case "cut":
                await self._producers.burst()
                return f"{proxy.cut()} connections of {unit.name} cut"
            case "stall":
                harm = asyncio.ensure_future(proxy.stall(fault.seconds))
                text = f"connections of {unit.name} stand still for {fault.seconds:.1f} s"
            case "delay":
                harm = asyncio.ensure_future(proxy.delay(fault.seconds, _EACH))
                text = f"data of {unit.name} delayed by {_EACH:g} s for {fault.seconds:.1f} s"
            case _:
                harm = asyncio.ensure_future(proxy.halve(_REPLIES, _PATIENCE))
                text = ""
        await self._producers.burst()
        result = await harm
        return text if result is None else f"{result} replies to {unit.name} cut in half"

    async def _on_server(self, server: PrivateServer, fault: Fault) -> str:
        await self._producers.burst()
        match fault.kind:
            case "restart":
                await server.restart(signal.SIGTERM)
                return "server stopped and started again"
            case "crash":
                await server.restart(signal.SIGKILL)
                return "server killed and started again"
            case "client-kill":
                count = int(await server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
                return f"CLIENT KILL of {count} connections"
            case "client-pause":
                await server.call("CLIENT", "PAUSE", int(fault.seconds * 1000))
                await asyncio.sleep(fault.seconds)
                return f"CLIENT PAUSE for {fault.seconds:.1f} s"
            case "failover":
                assert isinstance(server, ReplicatedServer)
                await server.fail_over(fault.seconds, self._cut_all)
                return f"failover to the replica, and back after {fault.seconds:.1f} s"
            case "full":
                await server.be_full(fault.seconds)
                return f"server full for {fault.seconds:.1f} s"
            case _:
                await server.call("SCRIPT", "FLUSH")
                return "SCRIPT FLUSH"

    def _pid(self, unit: Unit, fault: Fault) -> int:
        """Return a process that works; of a fleet that is starting, its parent."""
        pids = unit.workers() or [unit.process.pid]
        return pids[int(fault.at * 1000) % len(pids)]

    async def _catch(self, pid: int) -> str:
        """Push a burst and stop a worker, if possible while it holds tasks. Return their number, as a text."""
        names = await self._registered(pid)
        for number in range(_BURSTS if names else 0):
            async with asyncio.TaskGroup() as group:
                burst = group.create_task(self._producers.burst(1 / _BURSTS))
                tries = 0
                while tries < _TRIES or not burst.done():
                    tries += 1
                    send(pid, signal.SIGSTOP)
                    held = await self._held(names)
                    if held > (0 if number == _BURSTS - 1 else 1):  # one alone is seldom worth it
                        return f", which held {held} task{'s' * (held > 1)}"
                    send(pid, signal.SIGCONT)
                    await asyncio.sleep(_PAUSE)
        if not names:
            await self._producers.burst()
        send(pid, signal.SIGSTOP)
        return ""

    async def _held(self, names: Sequence[tuple[Keys, str]]) -> int:
        sizes = [await persistent_call(self._stage.connection, "HLEN", keys.inflight(name)) for keys, name in names]
        return sum(map(tasks_among, map(int, sizes)))

    async def _registered(self, pid: int) -> list[tuple[Keys, str]]:
        """Return the queues of a process and its names there, as soon as it works on one."""
        end = time.monotonic() + _PATIENCE
        while queues := self._stage.mode.held_in:
            found = []
            for keys in queues:
                names = await persistent_call(self._stage.connection, "ZRANGE", keys.workers, 0, -1)
                found += [(keys, name) for name in map(bytes.decode, names) if name.split("-")[-2] == str(pid)]
            if found or time.monotonic() > end:
                return found
            await asyncio.sleep(_PAUSE)
        return []

    def _cut_all(self) -> None:
        """Cut all connections by proxies, which lead to the old master."""
        for proxy in self._proxies:
            proxy.cut()

    def _note(self, sentence: str | None) -> None:
        if sentence is not None:
            self._violated(sentence)
