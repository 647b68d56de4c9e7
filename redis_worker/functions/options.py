"""The options of one submission."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Literal, Self

from redis_worker.functions.handle import Handle
from redis_worker.vocabulary.checks import check_seconds, check_whole
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import DEFAULT


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one submission. Raises ConfigurationError."""

    id: str | int | None = None
    """The task's id; generated if it is None."""
    delay: Duration | None = None
    """Do not run the task before this time has passed, by the server's clock."""
    at: datetime | None = None
    """Do not run it before this time."""
    retries: int | None = None
    """The number of retries, in place of the function's."""
    expires: Duration | datetime | None = None
    """Answer the task with an error where it has not begun by then, by the clock of the worker."""
    priority: str = DEFAULT
    """One of the priorities of the queue."""

    unique: bool | Duration = False
    """Leave the task out if the same call is there: until that is answered, or submitted within this time.

    With an `id`, the task is also left out if one with this id waits, runs or has an answer.
    """

    key: str | int | None = None
    """Count the task for the limit `per_key` of its function, with others of the same key: a customer, say."""

    after: Handle[Any] | Sequence[Handle[Any]] = ()
    """Do not run the task before these are answered: tasks of the same queue."""
    on_failure: Literal["fail", "run"] = "fail"
    """If one of them fails: answer the task with an error that names it, or run the task all the same."""

    def __post_init__(self) -> None:
        if self.on_failure not in ("fail", "run"):
            raise ConfigurationError(f'on_failure must be "fail" or "run", got {self.on_failure!r}')
        if self.delay is not None:
            check_seconds("delay", self.delay, 0)
        for name in ("at", "expires"):
            value = getattr(self, name)
            if isinstance(value, datetime) and value.tzinfo is None:
                raise ConfigurationError(f"{name} has no time zone: {value}")
        if self.delay is not None and self.at is not None:
            raise ConfigurationError("delay and at exclude each other")
        if self.retries is not None:
            check_whole("retries", self.retries, 0)
        if self.key is not None and (isinstance(self.key, bool) or not isinstance(self.key, (str, int))):
            raise ConfigurationError(f"key must be a text or a whole number, got {self.key!r}")
        if not isinstance(self.unique, bool):
            check_seconds("unique", self.unique, above=0)
        if self.expires is not None and not isinstance(self.expires, datetime):
            check_seconds("expires", self.expires, above=0)

    def with_(self, **options: Any) -> Self:
        """Return these options with others in their place. Raises ConfigurationError for an unknown one."""
        if unknown := options.keys() - {field.name for field in fields(self)}:
            raise ConfigurationError(f"unknown option {unknown.pop()!r}; there are {', '.join(self._names())}")
        return replace(self, **options)

    @classmethod
    def _names(cls) -> list[str]:
        return [field.name for field in fields(cls)]

    @property
    def awaited(self) -> Sequence[Handle[Any]]:
        """The tasks that this one waits for."""
        return (self.after,) if isinstance(self.after, Handle) else self.after

    @property
    def is_unique(self) -> bool:
        """True if the task may be there already."""
        return self.id is not None or self.unique is not False

    def members(self) -> dict[str, Any]:
        """Return the members of the payload that these options add."""
        members: dict[str, Any] = {"unique": True} if self.is_unique else {}
        if self.retries is not None:
            members["retries"] = self.retries
        if self.key is not None:
            members["key"] = self.key
        if isinstance(self.expires, datetime):
            members["expires"] = self.expires.timestamp()
        elif self.expires is not None:
            members["expires"] = time.time() + check_seconds("expires", self.expires)
        return members
