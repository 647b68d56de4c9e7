"""Faults of single calls, for an operation of the product and the same operation of a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

from hypothesis import strategies as st

from redis_worker.broker import scripts
from redis_worker.broker.connection.address import Client
from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.vocabulary.errors import Disconnected

Late: TypeAlias = list[tuple[Callable[[], Awaitable[Any]], Callable[[], Any]]]
"""Calls that the server has still to execute, each with its effect on the model."""


class Fault(NamedTuple):
    """Disconnection at one call of an operation, counted from 1; at 0, never."""

    at: int = 0
    kind: Literal["not sent", "reply lost", "late"] = "not sent"
    """Late: the caller is disconnected, and the server executes the call some time afterwards."""


NONE = Fault()
STALL = 600.0
"""Seconds that a machine may stand still without a call being given up: faults are those of `Fault` only."""
FAULTS = st.one_of(
    *[st.just(NONE)] * 4,
    st.builds(Fault, st.sampled_from([1, 1, 1, 2, 2, 3, 4, 5]), st.sampled_from(["not sent", "reply lost", "late"])),
)


class Line(Connection):
    """A connection with a fault. It sends one call after the other, so that each may be the last one."""

    def __init__(self, client: Client, late: Late) -> None:
        super().__init__(client, owned=False)
        self._late = late
        self._fault = NONE
        self.calls: list[str] = []
        """Names of the scripts and commands of this operation, up to the fault."""

    def expect(self, fault: Fault) -> None:
        """Begin an operation with `fault`."""
        self._fault, self.calls = fault, []

    async def call(self, *command: Any, patience: float = PATIENCE) -> Any:
        if command[0] == "TYPE":
            return await super().call(*command, patience=STALL)
        self.calls.append(_name(command))
        if len(self.calls) != self._fault.at:
            return await super().call(*command, patience=STALL)
        if self._fault.kind == "reply lost":
            await super().call(*command, patience=STALL)
        elif self._fault.kind == "late":
            self._late.append((partial(super().call, *command, patience=STALL), lambda: None))
        raise Disconnected(f"{self._fault.kind} at call {self._fault.at}")

    async def together(self, *commands: tuple[Any, ...], patience: float, ordered: bool = True) -> list[Any]:
        return [await self.call(*command) for command in commands]


def play(steps: Generator[Any, Any, Any], fault: Fault, late: Late) -> tuple[Any, list[str]]:
    """Play an operation of a model with `fault`. Returns its result, or Disconnected, and the names of its calls."""
    calls: list[str] = []
    try:
        call = next(steps)
        while True:
            calls.append(call.name)
            if len(calls) != fault.at:
                call = steps.send(call.effect())
                continue
            if fault.kind == "reply lost":
                call.effect()
            elif fault.kind == "late":
                late[-1] = (late[-1][0], call.effect)
            call = steps.throw(Disconnected(fault.kind))
    except StopIteration as stop:
        return stop.value, calls
    except Disconnected:
        return Disconnected, calls


def _name(command: tuple[Any, ...]) -> str:
    names = {script.digest: name for name, script in scripts._SCRIPTS.items()}
    return names[command[1]] if command[0] == "EVALSHA" else command[0]
