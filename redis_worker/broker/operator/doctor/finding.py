"""What a check has found: good, a warning or a fault, and what to do about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from shlex import quote
from typing import Literal, NamedTuple, TypeAlias

from redis_worker.vocabulary.errors import Refused

Level: TypeAlias = Literal["good", "warning", "fault"]


class Finding(NamedTuple):
    """What one check has found."""

    level: Level
    """A fault loses tasks or keeps them from being done; a warning may come to that."""
    subject: str
    """What was looked at, such as "eviction" or "queue fib:input: order"."""
    what: str
    remedy: str = ""
    """What to do about it; empty where nothing is wrong."""


def good(subject: str, what: str) -> Finding:
    """Nothing to be done."""
    return Finding("good", subject, what)


def warning(subject: str, what: str, remedy: str) -> Finding:
    """Something that may come to be a fault."""
    return Finding("warning", subject, what, remedy)


def fault(subject: str, what: str, remedy: str) -> Finding:
    """Something that loses tasks, or keeps them from being done."""
    return Finding("fault", subject, what, remedy)


async def looked_at(subject: str, check: Callable[[], Awaitable[Finding | list[Finding]]]) -> list[Finding]:
    """What `check` finds; a warning where the server refuses to let it look. Raises Disconnected."""
    try:
        found = await check()
    except Refused as refused:
        remedy = "examine as a user that may look, or ask whoever runs the server"
        return [warning(subject, f"cannot be looked at: {refused}", remedy)]
    return [found] if isinstance(found, Finding) else found


def shown(key: str) -> str:
    """`key` as it can stand in a line."""
    return key if key.isprintable() else repr(key)


def quoted(key: str) -> str:
    """`key` as it can stand in a command; one that cannot stand in a line, at least to be read."""
    return quote(key) if key.isprintable() else repr(key)


def span(seconds: float) -> str:
    """A time as people say it: 12 s, 5 min, 3.4 h, 2.0 d."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
