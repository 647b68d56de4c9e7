"""Ids: strings or integers, compared by their text form."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from redis_worker.vocabulary.long_integers import integer_text

# Bytes of a random id, and ids drawn by one call of the system.
_BYTES, _DRAWN = 8, 500


def new_id() -> str:
    """Return a random id, unique among tasks and messages."""
    return secrets.token_hex(_BYTES)


def new_ids() -> Iterator[str]:
    """Yield random ids without end: for many, a call of the system each would cost as much as their JSON."""
    length = 2 * _BYTES
    while True:
        drawn = secrets.token_hex(_BYTES * _DRAWN)
        yield from [drawn[at : at + length] for at in range(0, len(drawn), length)]


def id_text(id: str | int) -> str:
    """Return the text form of `id`, which is the result's field. Raises TypeError for other types."""
    if isinstance(id, str):
        return id
    if isinstance(id, bool) or not isinstance(id, int):
        raise TypeError(f"an id is a string or an integer, got {type(id).__name__}")
    return integer_text(id)
