"""The hub: passes the events of Redis, read once for all, to the clients that are subscribed to their channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from redis_worker.broker.client.event_feed import PAGE, START, Event, EventFeed, is_after
from redis_worker.broker.connection.address import Address
from redis_worker.http.push.audiences import Audience, Audiences, Channels
from redis_worker.http.push.backlog import Frame
from redis_worker.http.push.client import Client
from redis_worker.vocabulary.channel import OWN
from redis_worker.vocabulary.errors import Disconnected, Refused
from redis_worker.vocabulary.logger import library_logger

logger = library_logger("redis_worker.push")

MOST_CLIENTS: Final = 250
"""The maximum of clients of one process."""
MOST_BYTES: Final = 1024 * 1024
"""The maximum of bytes that wait for one client."""
# Longest wait for events, and shortest interval of two readings, in seconds: events that come meanwhile share a frame.
_BLOCK, _GATHER = 1.0, 0.02
# Pause after a failure, in seconds.
_PAUSE = 1.0
# Events, and bytes, of one frame.
_MOST_EVENTS, _LARGEST = 500, 128 * 1024
# Bytes that are distributed before clients get a turn.
_SLICE = 256 * 1024
_INCOMPLETE = b'{"replayed":0,"complete":false}'


@dataclass(slots=True)
class PushCounts:
    """Counts since the start of the process."""

    connected: int = 0
    events: int = 0
    """Events passed to clients; an event for two clients counts twice."""
    lost: int = 0
    """Events that slow clients have lost."""
    cut: int = 0
    """Slow clients cut off."""


class Hub:
    """The clients of a server. It reads from Redis while there are any."""

    def __init__(self, address: Address, most_clients: int = MOST_CLIENTS, most_bytes: int = MOST_BYTES) -> None:
        self.counts = PushCounts()
        self.clients: set[Client] = set()
        self.most_bytes = most_bytes
        self._most_clients = most_clients
        self._address = address
        self._feed: EventFeed | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._position = START
        """The id of the last event that was passed on."""
        self._positioned = asyncio.Event()
        self._audiences = Audiences()

    @property
    def is_full(self) -> bool:
        """True if there is no place for one more client."""
        return len(self.clients) >= self._most_clients

    def join(self, client: Client) -> None:
        """Add a client, without channels."""
        self.clients.add(client)
        self.counts.connected += 1
        if self._feeding is None:
            self._feed = self._feed or EventFeed(self._address)
            self._feeding = asyncio.create_task(self._pass_on(self._feed))

    async def leave(self, client: Client) -> None:
        """Remove a client. The last one ends the reading."""
        self._audiences.place(client, frozenset())
        self.clients.discard(client)
        if not self.clients:
            await self._stop()

    async def subscribe(self, client: Client, channels: frozenset[str], after: str | None) -> str:
        """Add `channels` to those of `client`; with `after`, the events since that id come first.

        Waits until Redis has been reached, unless this server fills all of them. Returns the id of the last event
        before the subscription.
        """
        if not all(channel.startswith(OWN) for channel in channels):
            await self._positioned.wait()
        before = client.channels
        self._audiences.place(client, before | channels)
        if after is not None and not channels <= before:
            client.replay(self._replay(Channels(channels), Channels(before), after, self._position))
        return self._position

    def unsubscribe(self, client: Client, channels: frozenset[str]) -> None:
        """Remove `channels` from those of `client`."""
        self._audiences.place(client, client.channels - channels)

    def is_watched(self, channel: str) -> bool:
        """Return True if a client is subscribed to `channel`."""
        return self._audiences.is_watched(channel)

    def show(self, channel: str, data: bytes) -> None:
        """Pass an event of this server, JSON, to the clients of `channel`; it has no id and is not replayed."""
        assert channel.startswith(OWN), channel
        self._distribute([Event("", channel, b'{"channel":%b,"data":%b}' % (orjson.dumps(channel), data))])

    async def close(self) -> None:
        """End the reading and close the connection."""
        await self._stop()

    async def _stop(self) -> None:
        feeding, feed, self._feeding, self._feed = self._feeding, self._feed, None, None
        self._positioned.clear()
        if feeding is not None:
            feeding.cancel()
            await asyncio.wait({feeding})
        if feed is not None:
            await feed.close()

    async def _pass_on(self, feed: EventFeed) -> None:
        """Read and distribute events until cancelled, and none twice; a lost connection delays them."""
        failure = ""
        while True:
            try:
                if not self._positioned.is_set():
                    self._position = await feed.last()
                    self._positioned.set()
                before = self._position
                self._position, events = await feed.after(before, _BLOCK)
                if feed.is_behind and is_after(await feed.first(), before):
                    self._tell_of_gap()
            except (Disconnected, Refused) as error:
                if str(error) != failure:
                    logger.warning("events for WebSocket clients cannot be read: %s", error)
                failure = str(error)
                await asyncio.sleep(_PAUSE)
                continue
            except Exception:
                logger.exception("an event for WebSocket clients cannot be read")
                await asyncio.sleep(_PAUSE)
                continue
            failure = ""
            if events:
                for some in _slices(events):
                    self._distribute(some)
                    await asyncio.sleep(0)  # clients that read are written to
                if not feed.is_behind:
                    await asyncio.sleep(_GATHER)

    def _tell_of_gap(self) -> None:
        """Notify all clients that events may be missing: Redis kept too few of them for a reader that was late."""
        logger.warning("events for WebSocket clients came faster than they were read, and some were missed")
        for client in [*self.clients]:
            self._offer(client, Frame(_INCOMPLETE, 0))

    def _distribute(self, events: Iterable[Event]) -> None:
        touched: set[Audience] = set()
        for event in events:
            for audience in self._audiences.of(event.channel):
                audience.events.append(event.json)
                touched.add(audience)
        for audience in touched:
            parts, audience.events = audience.events, []
            for frame in _frames(parts):
                for client in [*audience.clients]:
                    self._offer(client, frame)

    def _offer(self, client: Client, frame: Frame) -> None:
        self.counts.events += frame.events
        if lost := client.offer(frame):
            if client.slow == "cut":
                self.counts.cut += 1
                self._audiences.place(client, frozenset())
            else:
                self.counts.lost += lost

    async def _replay(
        self, channels: Channels, before: Channels, after: str, until: str
    ) -> AsyncGenerator[bytes, None]:
        """Yield frames with the events of `channels` after `after` up to `until`, and then how many there were.

        Those of the channels that the client had `before` are left out.
        """
        count, complete = 0, True
        try:
            feed = self._feed
            if feed is not None and is_after(until, after):
                complete = not is_after(await feed.first(), after)
                cursor = after
                while cursor != until:
                    cursor, events = await feed.between(cursor, until, PAGE)
                    new = [each.json for each in events if each.channel in channels and each.channel not in before]
                    for frame in _frames(new):
                        count += frame.events
                        yield frame.text
        except (Disconnected, Refused):
            complete = False
        yield orjson.dumps({"replayed": count, "complete": complete})


def _slices(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Yield the `events` that others than this server sent, some 256 KiB at once."""
    some, size = list[Event](), 0
    for event in events:
        if event.channel.startswith(OWN):
            continue
        some.append(event)
        size += len(event.json)
        if size >= _SLICE:
            yield some
            some, size = [], 0
    yield some


def _frames(events: list[bytes]) -> Iterable[Frame]:
    """Return frames with the JSON of `events`, of some 128 KiB or 500 events at most."""
    start, size = 0, 0
    for at, event in enumerate(events):
        size += len(event)
        if size >= _LARGEST or at - start >= _MOST_EVENTS - 1 or at == len(events) - 1:
            yield Frame(b'{"events":[%b]}' % b",".join(events[start : at + 1]), at + 1 - start)
            start, size = at + 1, 0
