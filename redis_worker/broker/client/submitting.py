"""Functions around submissions, which add members to their payloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, TypeAlias

from redis_worker.broker.client.access import Access
from redis_worker.broker.connection.address import Address, Client

Around: TypeAlias = Callable[[str, int], AbstractContextManager[Mapping[str, Any]]]
"""Returns a context manager around so many submissions to a list, which yields further members of their payloads."""

_NOTHING: AbstractContextManager[Mapping[str, Any]] = nullcontext({})


class SubmittingAccess(Access):
    """Access of a client that submits tasks or messages."""

    def __init__(self, redis: str | Client | Address) -> None:
        super().__init__(redis)
        self._around: list[Around] = []

    def submitting(self, function: Around) -> Around:
        """Register a function that returns a context manager around submissions of values, not of whole payloads.

        It gets the list and the number of submissions, and what the context manager yields are further members of
        their payloads.
        """
        self._around.append(function)
        return function

    def _members(self, queue: str, count: int) -> AbstractContextManager[Mapping[str, Any]]:
        """Return a context manager around submissions, which yields the members of all that are registered."""
        return self._all_members(queue, count) if self._around else _NOTHING

    @contextmanager
    def _all_members(self, queue: str, count: int) -> Iterator[Mapping[str, Any]]:
        members: dict[str, Any] = {}
        with ExitStack() as stack:
            for around in self._around:
                members |= stack.enter_context(around(queue, count))
            yield members
