"""Broadcasting events to channels, which WebSocket clients subscribe to at `/ws` of any process."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client
from redis_worker.broker.keys import EVENTS
from redis_worker.vocabulary.channel import check_channel
from redis_worker.vocabulary.payload import dumps

KEPT: Final = 10_000
"""The default number of events that Redis keeps for clients that reconnect."""
MOST_BYTES: Final = 64 * 1024
"""The maximum size of an event's data, as JSON."""
_BATCH = 500


class Broadcaster(Access):
    """A sender of events to channels; `redis` is a URL, or a client that is used and not closed.

        async with Broadcaster("redis://localhost") as broadcaster:
            await broadcaster.send("device.42", {"temperature": 21.5})

    An event reaches the clients that are subscribed to its channel, at any process of the fleet, and those that
    reconnect before `keep` later events were sent. It is no task: without a client it is forgotten.
    One broadcaster serves any number of event loops and the children of a fork, as TaskClient does.
    """

    def __init__(self, redis: str | Client | Address, *, keep: int = KEPT) -> None:
        """`keep` is the number of events, about, that Redis keeps. Raises ConfigurationError."""
        super().__init__(redis)
        self._keep = keep

    async def send(self, channel: str, data: Any) -> str:
        """Send `data`, any JSON value, to `channel`. Returns the event's id.

        Raises ValueError for what is no JSON or larger than 64 KiB, ConfigurationError for a channel's name that is
        not valid, Disconnected if Redis cannot be reached and Refused if it rejects the call.
        """
        return (await self.send_many([(channel, data)]))[0]

    async def send_many(self, events: Iterable[tuple[str, Any]]) -> list[str]:
        """Send many events, pairs of channel and data, in few calls. Returns their ids. Raises as `send` does."""
        ids: list[str] = []
        arguments = (argument for channel, data in events for argument in (check_channel(channel), written(data)))
        while batch := list(islice(arguments, 2 * _BATCH)):
            ids += [id.decode() for id in await self._connection.run("broadcast", [EVENTS], [self._keep, *batch])]
        return ids


def written(data: Any) -> bytes:
    """Return the data of an event as JSON. Raises ValueError if it is no JSON, or too large."""
    text = dumps(data)
    if len(text) > MOST_BYTES:
        raise ValueError(f"the data of an event is at most {MOST_BYTES} bytes of JSON, not {len(text)}")
    return text
