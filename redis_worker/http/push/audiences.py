"""Audiences: clients with the same channels, found by the channel of an event."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from redis_worker.http.push.client import Client
from redis_worker.vocabulary.channel import OWN

# Channels whose audiences are remembered.
_MOST_REMEMBERED = 10_000


@dataclass(eq=False, slots=True)
class Audience:
    """The clients with the same channels: each frame is made once for all of them."""

    channels: frozenset[str]
    clients: set[Client] = field(default_factory=set)
    events: list[bytes] = field(default_factory=list)


class Audiences:
    """All audiences of a hub."""

    def __init__(self) -> None:
        self._all: dict[frozenset[str], Audience] = {}
        self._by_channel: defaultdict[str, set[Audience]] = defaultdict(set)
        self._remembered: dict[str, tuple[Audience, ...]] = {}

    def place(self, client: Client, channels: frozenset[str]) -> None:
        """Move `client` from the audience of its channels to that of `channels`."""
        self._remembered.clear()
        if (audience := self._all.get(client.channels)) is not None:
            audience.clients.discard(client)
            if not audience.clients:
                del self._all[client.channels]
                for channel in audience.channels:
                    self._by_channel[channel].discard(audience)
                    if not self._by_channel[channel]:
                        del self._by_channel[channel]
        client.channels = channels
        if channels:
            if (audience := self._all.get(channels)) is None:
                audience = self._all[channels] = Audience(channels)
                for channel in channels:
                    self._by_channel[channel].add(audience)
            audience.clients.add(client)

    def is_watched(self, channel: str) -> bool:
        """Return True if a client is subscribed to `channel` by its name."""
        return channel in self._by_channel

    def of(self, channel: str) -> tuple[Audience, ...]:
        """Return the audiences of an event in `channel`, each once. The hot path."""
        found = self._remembered.get(channel)
        if found is None:
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            names = [name for name in self._by_channel if channel in Channels([name])]
            found = tuple({audience for name in names for audience in self._by_channel[name]})
            self._remembered[channel] = found
        return found


class Channels:
    """The channels that names stand for: those themselves, and where one ends with *, all that begin so.

    A server's own channels are only found by their names.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._beginnings = tuple(name[:-1] for name in self._names if name.endswith("*"))

    def __contains__(self, channel: str) -> bool:
        return channel in self._names or (channel.startswith(self._beginnings) and not channel.startswith(OWN))
