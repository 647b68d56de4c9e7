"""The names of channels for events."""

from __future__ import annotations

from typing import Final, TypeGuard

from redis_worker.vocabulary.errors import ConfigurationError

MOST_CHARACTERS: Final = 200
"""The maximum length of a channel's name."""
OWN: Final = "redis_worker."
"""The beginning of the names of channels that a server fills itself: nobody can send to them."""


def check_channel(name: object) -> str:
    """Return `name`. Raises ConfigurationError if nobody can send to a channel of this name."""
    if is_channel(name) and not name.startswith(OWN):
        return name
    raise ConfigurationError(
        f"{name!r} is not a valid channel: a channel is a text of 1 to {MOST_CHARACTERS} characters, and does not "
        f"begin with {OWN}"
    )


def is_channel(name: object) -> TypeGuard[str]:
    """Return True if clients can subscribe to `name`."""
    return isinstance(name, str) and 0 < len(name) <= MOST_CHARACTERS and name.isprintable()
