"""Actions of the page: each changes something in Redis, and returns a sentence."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis_worker.broker.client.delayed_tasks import DelayedTasks
from redis_worker.broker.connection.address import Address
from redis_worker.broker.cron import ask_for_run
from redis_worker.broker.operator.control import QueueControl
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.http.dashboard.payloads import chosen

Asked = Mapping[str, Any]
"""The members of a request."""


async def pause(fleet: Address, asked: Asked) -> str:
    """Pause the queue."""
    async with QueueControl(fleet, _queue(asked)) as control:
        return f"{_queue(asked)} is paused" + ("" if await control.pause() else " already")


async def resume(fleet: Address, asked: Asked) -> str:
    """Resume the queue."""
    async with QueueControl(fleet, _queue(asked)) as control:
        return f"{_queue(asked)} is resumed" if await control.resume() else f"{_queue(asked)} was not paused"


async def purge(fleet: Address, asked: Asked) -> str:
    """Delete the waiting tasks of the queue."""
    async with QueueControl(fleet, _queue(asked)) as control:
        return f"{_tasks(await control.purge())} of {_queue(asked)} deleted"


async def requeue(fleet: Address, asked: Asked) -> str:
    """Put the tasks of chosen dead letters back on the queue."""
    async with DeadLetters(fleet, _queue(asked)) as letters:
        # Oldest first, as they were taken.
        found = [letter async for letter in chosen(letters, asked)][::-1]
        done = await letters.requeue(found)
    cut = sum(letter.cut for letter in found)
    left = f"; {cut} letters hold only the beginning of their task, and stay" if cut else ""
    return f"{_tasks(done)} put back on {_queue(asked)}{left}"


async def bury(fleet: Address, asked: Asked) -> str:
    """Delete chosen dead letters."""
    async with DeadLetters(fleet, _queue(asked)) as letters:
        done = await letters.purge([letter async for letter in chosen(letters, asked)])
    return f"{done} dead letter{'s' * (done != 1)} of {_queue(asked)} deleted"


async def cancel(fleet: Address, asked: Asked) -> str:
    """Cancel chosen delayed tasks."""
    async with DelayedTasks(fleet, _queue(asked)) as tasks:
        done = await tasks.here.drop([task for task in await tasks.here.all() if task.key in _keys(asked)])
    return f"{_tasks(done)} cancelled"


async def run(fleet: Address, asked: Asked) -> str:
    """Move chosen delayed tasks to the queue now."""
    async with DelayedTasks(fleet, _queue(asked)) as tasks:
        done = await tasks.here.run([task for task in await tasks.here.all() if task.key in _keys(asked)])
    return f"{_tasks(done)} due now"


async def fire(fleet: Address, asked: Asked) -> str:
    """Ask for a run of a cron job; a process that schedules it runs it within seconds."""
    app, name = _text(asked, "app"), _text(asked, "name")
    if not await ask_for_run(fleet, app, name):
        return f"no process has registered the cron job {name!r}"
    return f"{name} runs within some 5 s, if a process schedules it and no other run is in progress"


ACTIONS: Mapping[str, Callable[[Address, Asked], Awaitable[str]]] = {
    action.__name__: action for action in (pause, resume, purge, requeue, bury, cancel, run, fire)
}
"""By name."""


def _text(asked: Asked, name: str) -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"the request needs `{name}`, a text")
    return value


def _queue(asked: Asked) -> str:
    return _text(asked, "queue")


def _keys(asked: Asked) -> frozenset[str]:
    keys = asked.get("keys")
    if not isinstance(keys, list) or not keys:
        raise ValueError("the request needs `keys`, a list")
    return frozenset(map(str, keys))


def _tasks(count: int) -> str:
    return f"{count} task{'s' * (count != 1)}"
