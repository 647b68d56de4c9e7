"""Ids: strings or integers, compared by their text form."""

from __future__ import annotations

import secrets

from redis_worker.vocabulary.payload import integer_text


def new_id() -> str:
    """Return a random id, unique among tasks and messages."""
    return secrets.token_hex(8)


def id_text(id: str | int) -> str:
    """Return the text form of `id`, which is the result's field. Raises TypeError for other types."""
    if isinstance(id, str):
        return id
    if isinstance(id, bool) or not isinstance(id, int):
        raise TypeError(f"an id is a string or an integer, got {type(id).__name__}")
    return integer_text(id)
