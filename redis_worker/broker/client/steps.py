"""Steps of flows: tasks that are parked in Redis until others are answered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from redis_worker.broker.connection.connection import Connection
from redis_worker.broker.connection.preflight import lie_apart
from redis_worker.broker.keys import Keys
from redis_worker.vocabulary.errors import ConfigurationError

# Most arguments of one call.
_MOST = 10_000


class Step(NamedTuple):
    """A task that waits for others."""

    id: str
    payload: bytes
    after: Sequence[str]
    """The ids of the others."""
    runs: bool
    """True if it runs although one of them has failed."""
    unique: tuple[str, int] | None
    """For a unique step, the digest of its call and the ms for which that is unique, see admit.lua."""
    order: str = ""
    """The digest of the key whose tasks run one after the other; the step is unique then. Empty without one."""

    @property
    def arguments(self) -> list[Any]:
        """The arguments of park.lua for this step."""
        how = "run" if self.runs else "fail"
        unique = ("", "", 0) if self.unique is None else ("1", *self.unique)
        return [self.id, *unique, how, self.payload, self.order, len(self.after), *self.after]


async def park(
    connection: Connection, keys: Keys, steps: Sequence[Step], nonce: str, ttl: int, priority: str
) -> list[str]:
    """Submit `steps`. Returns for each its id, or that of the task that is there.

    `nonce` marks inputs in their payloads (see park.lua); the answers of steps that fail at once expire after `ttl`
    seconds (0: never).
    """
    own = [keys.list_with(priority), keys.unique, keys.output, keys.flow]
    ids: list[str] = []
    for arguments in _batches(steps):
        ids += [id.decode() for id in await connection.run("park", own, [keys.channel, ttl, nonce, *arguments])]
    return ids


def check_flows(keys: Keys) -> None:
    """Raise ConfigurationError if, in Redis Cluster, no script can see the queue and its results."""
    if lie_apart(keys):
        raise ConfigurationError(
            f"in Redis Cluster a task can wait for others only if the results lie in the slot of the queue: name the "
            f"queue {keys.waiting!r} with a hash tag, as {{name}}"
        )


def _batches(steps: Sequence[Step]) -> Iterator[list[Any]]:
    arguments: list[Any] = []
    for step in steps:
        if arguments and len(arguments) + len(step.after) > _MOST:
            yield arguments
            arguments = []
        arguments += step.arguments
    if arguments:
        yield arguments
