"""Stages: functions from a value to what becomes of it, counted and timed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar, overload

from redis_worker.pipeline.errors import failure
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.errors import Reject
from redis_worker.vocabulary.processor import is_coroutine_function
from redis_worker.vocabulary.stage_status import StageStatus

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__redis_worker_stage__"


class Emit(tuple[Any, ...]):
    """Several values in the place of one: `return Emit([a, b])`. The next stage gets each of them."""

    __slots__ = ()


_SPECIAL = (type(None), Emit, BaseException)


@overload
def stage(function: F, /) -> F: ...


@overload
def stage(*, name: str | None = None, batch: bool = False) -> Callable[[F], F]: ...


def stage(function: F | None = None, /, *, name: str | None = None, batch: bool = False) -> F | Callable[[F], F]:
    """Declare a stage's name, which is the function's by default, or that it takes batches.

    A batch stage takes a list of values and returns a list with an entry for each, in the same order: a value, None,
    an Emit, or an exception. A function without this decorator is a stage of single values; an object with a method
    `batch` gets its batches by that.
    """

    def declare(function: F) -> F:
        setattr(function, _ATTRIBUTE, (name, batch))
        return function

    return declare if function is None else declare(function)


@dataclass(slots=True)
class _Counts:
    received: int = 0
    emitted: int = 0
    dropped: int = 0
    rejected: int = 0
    failed: int = 0
    calls: int = 0
    seconds: float = 0.0


class Stage:
    """A function in a pipeline."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        """Raises ConfigurationError if the function does not take one argument."""
        name, batch = getattr(function, _ATTRIBUTE, (None, False))
        self.name = str(name or getattr(function, "__name__", type(function).__name__))
        if not batch and (whole := getattr(function, "batch", None)) is not None:  # as of Formats, Windows, a Pipeline
            function, batch = whole, True
        check_takes_one("stage", function, "a list of values" if batch else "a value")
        self._function = function
        self._is_async = is_coroutine_function(function)
        self._is_batch = batch
        self._counts = _Counts()

    def status(self) -> StageStatus:
        """Return the counts."""
        counts = self._counts
        return StageStatus(
            self.name,
            counts.received,
            counts.emitted,
            counts.dropped,
            counts.rejected,
            counts.failed,
            counts.calls,
            counts.seconds,
        )

    async def run(
        self, values: list[Any], origins: Sequence[int], failures: dict[int, BaseException]
    ) -> tuple[list[Any], Sequence[int]]:
        """Return the values that the stage emits, and the message each comes from; add to the failures of messages."""
        counts = self._counts
        started = perf_counter()
        try:
            results = await self._awaited(values) if self._is_async else self._called(values)
        finally:
            counts.seconds += perf_counter() - started
            counts.calls += 1
            counts.received += len(values)
        # Of a batch, few types: a look at each of them costs less than one at each result.
        for kind in set(map(type, results)):
            if issubclass(kind, _SPECIAL):
                results, origins = self._sorted(results, origins, failures)
                break
        counts.emitted += len(results)
        return results, origins

    def _called(self, values: list[Any]) -> list[Any]:
        """Return an entry for each value: what the stage, which is plain, returned, or the exception that it raised."""
        function = self._function
        if self._is_batch:
            try:
                return _checked(function(values), len(values))
            except Exception as error:
                return [error] * len(values)
        results: list[Any] = []
        for value in values:
            try:
                results.append(function(value))
            except Exception as error:
                results.append(error)
        return results

    async def _awaited(self, values: list[Any]) -> list[Any]:
        """Return the same of a stage that is async."""
        function = self._function
        if not self._is_batch:
            return await asyncio.gather(*(function(value) for value in values), return_exceptions=True)
        try:
            return _checked(await function(values), len(values))
        except Exception as error:
            return [error] * len(values)

    def _sorted(
        self, results: list[Any], origins: Sequence[int], failures: dict[int, BaseException]
    ) -> tuple[list[Any], list[int]]:
        """Return the values of `results` that go on, and their origins; count the others."""
        counts = self._counts
        before = len(failures)
        kept: list[Any] = []
        kept_origins: list[int] = []
        for result, origin in zip(results, origins, strict=True):
            if isinstance(result, BaseException):
                found = failures.setdefault(origin, failure(self.name, result))
                counts.rejected += isinstance(found, Reject)
                counts.failed += not isinstance(found, Reject)
            elif type(result) is Emit:
                kept += result
                kept_origins += [origin] * len(result)
                counts.dropped += not result
            elif result is None:
                counts.dropped += 1
            else:
                kept.append(result)
                kept_origins.append(origin)
        if len(failures) > before:  # nothing of a message goes on once a part of it has failed
            pairs = [pair for pair in zip(kept, kept_origins, strict=True) if pair[1] not in failures]
            kept, kept_origins = [value for value, _ in pairs], [origin for _, origin in pairs]
        return kept, kept_origins


def _checked(returned: Any, count: int) -> list[Any]:
    """Return what a batch stage returned. Raises TypeError if it has not an entry for each value."""
    if type(returned) is not list or len(returned) != count:
        got = f"{len(returned)} entries" if type(returned) is list else type(returned).__name__
        raise TypeError(f"a batch stage returns a list with an entry for each of {count} values, got {got}")
    return returned
