"""Reading of events: as they arrive, and those between two ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from redis_worker.broker.connection.address import Address
from redis_worker.broker.connection.connection import PATIENCE, Connection
from redis_worker.broker.keys import EVENTS

START = "0-0"
"""The id before every event."""
PAGE: Final = 500
"""Most events of one reply, at first: an event may have 64 KiB."""
# Most events, and bytes, about, of one reply to a reader that is behind.
_MOST_EVENTS, _MOST_BYTES = 10_000, 16 * 1024 * 1024


class Event(NamedTuple):
    """An event, ready to be sent to clients."""

    id: str
    channel: str
    json: bytes
    """The JSON object with `id`, `channel` and `data`."""


class EventFeed:
    """A reader of all events; its connection opens at the first call. Every call raises Disconnected or Refused."""

    def __init__(self, address: Address) -> None:
        self._connection = Connection(address.open(), owned=True)
        self._most = PAGE
        self.is_behind = False
        """True if the last reply of `after` was as long as it may be: there are more."""

    async def last(self) -> str:
        """Return the id of the last event; START if there is none."""
        found = await self._connection.call("XREVRANGE", EVENTS, "+", "-", "COUNT", 1)
        return found[0][0].decode() if found else START

    async def first(self) -> str:
        """Return the id of the first event that is still kept; START if there is none."""
        found = await self._connection.call("XRANGE", EVENTS, "-", "+", "COUNT", 1)
        return found[0][0].decode() if found else START

    async def after(self, id: str, seconds: float) -> tuple[str, list[Event]]:
        """Wait up to `seconds` for events after `id`. Returns the id of the last one, or `id`, and the events."""
        ms = int(seconds * 1000)
        command = ("XREAD", "COUNT", self._most, "BLOCK", ms, "STREAMS", EVENTS, id)
        reply = await self._connection.call(*command, patience=seconds + PATIENCE)
        self.is_behind = False
        if not reply:
            return id, []
        # A dictionary in RESP3, pairs in RESP2.
        [entries] = reply.values() if isinstance(reply, dict) else [found for _, found in reply]
        self.is_behind = len(entries) >= self._most
        last, events = _events(entries, id)
        # Reading less often costs less; a busy machine makes each reading late.
        size = sum(len(event.json) for event in events) // max(1, len(events)) + 1
        self._most = max(PAGE, min(_MOST_EVENTS, _MOST_BYTES // size)) if self.is_behind else PAGE
        return last, events

    async def between(self, after: str, until: str, limit: int) -> tuple[str, list[Event]]:
        """Return up to `limit` events after `after` up to `until`, as `after` does; the id is `until` at the end."""
        entries = await self._connection.call("XRANGE", EVENTS, f"({after}", until, "COUNT", limit)
        last, events = _events(entries, until)
        return last if len(entries) == limit else until, events

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()


def is_after(id: str, other: str) -> bool:
    """Return True if the event `id` came after `other`."""
    return _numbers(id) > _numbers(other)


def _numbers(id: str) -> tuple[int, int]:
    ms, _, number = id.partition("-")
    return int(ms), int(number)


def _events(entries: Sequence[Sequence[Any]], id: str) -> tuple[str, list[Event]]:
    events = [event for event in map(_event, entries) if event is not None]
    return entries[-1][0].decode() if entries else id, events


def _event(entry: Sequence[Any]) -> Event | None:
    """Return the event of a stream's entry; None if another program wrote something else."""
    raw, fields = entry
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        id, channel, data = raw.decode(), fields[b"channel"].decode(), fields[b"data"]
        orjson.loads(data)  # it is copied into the JSON of the frame
    except (KeyError, ValueError):
        return None
    return Event(id, channel, b'{"id":"%b","channel":%b,"data":%b}' % (raw, orjson.dumps(channel), data))
