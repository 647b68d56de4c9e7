"""Runs of hypothesis state machines against a server, with a clock that jumps.

MODEL_EXAMPLES is the number of sequences of steps, MODEL_SEED their seed (1). A failure prints its seed, and all steps.
MODEL_SHRINK=1 looks for a shorter sequence that fails; this takes minutes, so it needs `--timeout=0`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from redis_worker.broker import scripts
from redis_worker.embedded import EmbeddedServer
from redis_worker.vocabulary.logger import library_logger
from tests.clock import with_clock_in_a_key
from tests.faults import Late

STEPS = 50


class AllRules:
    """All rules are enabled."""

    def is_enabled(self, name: str) -> bool:
        return True


class ServerMachine(RuleBasedStateMachine):
    """A machine that talks to a server, without an event loop of its own."""

    redis: ClassVar[Redis]
    loop: ClassVar[asyncio.AbstractEventLoop]
    expires_fields: ClassVar[bool]
    """True if the server has HEXPIRE."""

    def __init__(self) -> None:
        super().__init__()
        self.late: Late = []
        # By default each sequence leaves out some rules at random: too few sequences would have all that a fault needs.
        self._rules_strategy.enabled_rules_strategy = st.just(AllRules())

    def run(self, operation: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(operation)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def late_call_arrives(self, data: st.DataObject) -> None:
        """Let the server execute a call whose caller was disconnected."""
        call, effect = self.late.pop(data.draw(st.integers(0, len(self.late) - 1)))
        self.run(call())
        effect()


def run_machine(
    machine: type[ServerMachine], server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, examples: int
) -> None:
    """Run `machine` in `examples` sequences of 50 steps, or as many as MODEL_EXAMPLES says."""
    timed = with_clock_in_a_key(list(scripts._SCRIPTS))
    monkeypatch.setattr(scripts, "_SCRIPTS", timed)
    monkeypatch.setattr(library_logger(), "disabled", True)
    number = int(os.environ.get("MODEL_SEED", "1"))
    print(f"MODEL_SEED={number}")
    with asyncio.Runner() as runner:
        machine.loop = runner.get_loop()
        machine.redis = Redis.from_url(server.url)
        try:
            runner.run(_prepare(machine, [timed[name].source for name in timed]))
            run_state_machine_as_test(
                seed(number)(machine),
                settings=settings(
                    max_examples=int(os.environ.get("MODEL_EXAMPLES", examples)),
                    stateful_step_count=STEPS,
                    phases=(Phase.generate, *((Phase.shrink,) if os.environ.get("MODEL_SHRINK") else ())),
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(machine.redis.flushall())
            runner.run(machine.redis.aclose())


async def _prepare(machine: type[ServerMachine], sources: list[str]) -> None:
    await machine.redis.flushall()
    for source in sources:
        await machine.redis.script_load(source)
    try:
        await machine.redis.execute_command("HEXPIRE", "none", 1, "FIELDS", 1, "field")
        machine.expires_fields = True
    except ResponseError:
        machine.expires_fields = False
