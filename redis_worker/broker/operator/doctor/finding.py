"""Findings of checks: a level (good, warning, fault), a description and a remedy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from shlex import quote
from typing import Literal, NamedTuple, TypeAlias

from redis_worker.vocabulary.errors import Refused

Level: TypeAlias = Literal["good", "warning", "fault"]


class Finding(NamedTuple):
    """The result of one check."""

    level: Level
    """A fault loses tasks or prevents their processing; a warning may become one."""
    subject: str
    """The checked thing, such as "eviction" or "queue fib:input: order"."""
    what: str
    remedy: str = ""
    """The remedy; empty for a good finding."""


def good(subject: str, what: str) -> Finding:
    """Return a finding without a remedy."""
    return Finding("good", subject, what)


def warning(subject: str, what: str, remedy: str) -> Finding:
    """Return a finding that may become a fault."""
    return Finding("warning", subject, what, remedy)


def fault(subject: str, what: str, remedy: str) -> Finding:
    """Return a finding that loses tasks or prevents their processing."""
    return Finding("fault", subject, what, remedy)


async def findings_of(subject: str, check: Callable[[], Awaitable[Finding | list[Finding]]]) -> list[Finding]:
    """Run `check` and return its findings; a warning if the server refuses it. Raises Disconnected."""
    try:
        found = await check()
    except Refused as refused:
        remedy = "use a user with the permission, or ask the server's administrator"
        return [warning(subject, f"cannot be checked: {refused}", remedy)]
    return [found] if isinstance(found, Finding) else found


def shown(key: str) -> str:
    """Return `key` printable in one line."""
    return key if key.isprintable() else repr(key)


def quoted(key: str) -> str:
    """Return `key` quoted for a shell command; an unprintable one as its repr, for reading only."""
    return quote(key) if key.isprintable() else repr(key)


def span(seconds: float) -> str:
    """Return a duration as text: 12 s, 5 min, 3.4 h, 2.0 d."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
