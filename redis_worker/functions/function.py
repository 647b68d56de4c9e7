"""A function of a queue: a plain function that can be submitted too."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypedDict, TypeVar, Unpack

from redis_worker.functions.handle import Handle
from redis_worker.functions.limits import Limits
from redis_worker.functions.options import Options
from redis_worker.functions.signature import Signature
from redis_worker.functions.transport import Linked
from redis_worker.vocabulary.duration import Duration
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.priorities import DEFAULT, Priorities, check_priority
from redis_worker.vocabulary.processor import Declaration

if TYPE_CHECKING:
    from datetime import datetime


P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class CallOptions(TypedDict, total=False):
    """The options of one submission, see Options."""

    id: str | int | None
    delay: Duration | None
    at: datetime | None
    retries: int | None
    expires: Duration | datetime | None
    unique: bool | Duration
    after: Handle[Any] | Sequence[Handle[Any]]
    on_failure: Literal["fail", "run"]
    priority: str
    key: str | int | None


AnyFunction: TypeAlias = "TaskFunction[..., Any, Any]"
"""A function of a queue, whatever its types are."""


class Submitter(Linked, Protocol):
    """A queue, as its functions see it."""

    @property
    def priorities(self) -> Priorities | None:
        """The priorities of the queue, if there are any."""

    async def submit_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Submit calls; return their handles in order."""
        ...

    def submit_many_sync(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Submit calls, from code without an event loop."""
        ...


@dataclass(frozen=True, slots=True)
class Call(Generic[R]):
    """A call to be submitted: a function, its arguments in JSON types, and options."""

    function: TaskFunction[..., Any, R]
    arguments: dict[str, Any]
    """The members `args` and `kwargs` of the task."""
    options: Options
    id: str | None = None
    """The id of a call in a chain or a group; others get theirs when they are submitted."""


class Submitting(Generic[P, R]):
    """The submission of one function with some options."""

    def __init__(self, function: TaskFunction[P, Any, R], options: Options) -> None:
        self._submitted = function
        self._options = options

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return a call to be submitted later, with others. Raises TypeError if the arguments do not fit."""
        return Call(self._submitted, self._submitted.signature.written(args, kwargs), self._options)

    async def submit(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit a call and return its handle.

        Raises TypeError if the arguments do not fit, Disconnected and Refused.
        """
        (handle,) = await self._submitted.queue.submit_many([self.call(*args, **kwargs)])
        return handle

    def submit_sync(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit as `submit` does, from code without an event loop."""
        (handle,) = self._submitted.queue.submit_many_sync([self.call(*args, **kwargs)])
        return handle

    async def submit_many(self, calls: Iterable[tuple[Any, ...] | Call[R]]) -> list[Handle[R]]:
        """Submit many calls, hundreds in a round trip: tuples of arguments, or what `call` returned."""
        return await self._submitted.queue.submit_many(self._calls(calls))

    def submit_many_sync(self, calls: Iterable[tuple[Any, ...] | Call[R]]) -> list[Handle[R]]:
        """Submit as `submit_many` does, from code without an event loop."""
        return self._submitted.queue.submit_many_sync(self._calls(calls))

    def _calls(self, calls: Iterable[tuple[Any, ...] | Call[R]]) -> Sequence[Call[R]]:
        written, function, options = self._submitted.signature.written, self._submitted, self._options
        return [call if isinstance(call, Call) else Call(function, written(call, {}), options) for call in calls]


class TaskFunction(Submitting[P, R], Generic[P, T, R]):
    """A function of a queue. A call of it is a plain call; `submit` has a worker run it."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[P, T]

    def __init__(
        self,
        queue: Submitter,
        function: Callable[P, T],
        declaration: Declaration,
        limits: Limits,
        priority: str = DEFAULT,
    ) -> None:
        """Raises ConfigurationError if an annotation has no form in JSON, or the queue does not have the `priority`."""
        self.queue = queue
        super().__init__(self, self._checked(Options(priority=priority)))
        self.declaration = declaration
        self.limits = limits
        self.signature = Signature(declaration.name, function)
        update_wrapper(self, function)

    @property
    def name(self) -> str:
        """The name of the function in its queue."""
        return self.declaration.name

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.__wrapped__(*args, **kwargs)

    def options(self, **options: Unpack[CallOptions]) -> Submitting[P, R]:
        """Return this function with options of its submissions. Raises ConfigurationError."""
        return Submitting(self, self._checked(self._options.with_(**options)))

    def _checked(self, options: Options) -> Options:
        if options.priority != DEFAULT:
            check_priority(self.queue.name, options.priority, self.queue.priorities)
        if options.key is not None and self.limits.per_key is None:
            raise ConfigurationError(f"function {self.name}: key is of use with per_key, which it does not declare")
        return options

    def handle(self, id: str | int) -> Handle[R]:
        """Return the handle of a task of this function."""
        return Handle(self.queue, id, self.signature.result)

    def __reduce__(self) -> str:
        return self.__qualname__  # pickled by its name, as a plain function is

    def __repr__(self) -> str:
        return f"<function {self.name} of the queue {self.queue.name}>"
