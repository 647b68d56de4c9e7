"""The places where the functions of a queue run: on the event loop, in threads, in processes."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any, NamedTuple

from redis_worker.engine.awaitables import unawaited
from redis_worker.engine.execution import Answer, Coroutines, Execution, Threads
from redis_worker.engine.lifespan import Lifespan, in_children
from redis_worker.engine.processes import Processes
from redis_worker.engine.thread_pool import ThreadPool
from redis_worker.functions.current import CURRENT, CurrentTask
from redis_worker.functions.function import TaskFunction
from redis_worker.functions.signature import Arguments
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.errors import ConfigurationError


class Request(NamedTuple):
    """A call of a function, as its execution gets it."""

    function: TaskFunction[..., Any, Any]
    arguments: Arguments
    current: CurrentTask


def call(request: Request) -> Any:
    """Call the function. A coroutine function returns its coroutine."""
    function, (positional, named), _ = request
    return function.__wrapped__(*positional, **named)


def call_in_child(request: Request) -> Any:
    """Call the function in a child process, which inherits no context."""
    CURRENT.set(request.current)
    return call(request)


class Inline:
    """Calls of a plain function on the event loop."""

    async def call(self, arguments: Request) -> Answer:
        value = call(arguments)
        if (error := unawaited(value)) is not None:
            raise error
        return Answer(result_of(value))

    def close(self) -> None:
        """Do nothing: a call ends before the loop goes on."""


class Executions:
    """The executions of a queue's functions, made when a function first needs one."""

    def __init__(
        self,
        functions: Iterable[TaskFunction[..., Any, Any]],
        concurrency: int,
        max_deliveries: int,
        lifespan: Lifespan | None,
    ) -> None:
        """Raises ConfigurationError if a function cannot be sent to a process."""
        self._threads = ThreadPool(concurrency, "redis-worker")
        self._tries = max_deliveries
        self._in_child = in_children(lifespan, call_in_child)
        self._of = {function: self._execution(function) for function in functions}

    def _execution(self, function: TaskFunction[..., Any, Any]) -> Execution:
        timeout = function.declaration.timeout
        match function.declaration.execution:
            case "inline":
                return Inline()
            case "async":
                return Coroutines(call, timeout, result_of)
            case "thread":
                return Threads(call, timeout, self._threads, result_of)
            case "process":
                _check_sent(function)
                return Processes(self._in_child, timeout, self._tries, result_of)

    async def call(self, request: Request) -> Answer:
        """Return the answer to one call. Raises as Execution.call does."""
        return await self._of[request.function].call(request)

    def close(self) -> None:
        """Stop the calls that can be stopped."""
        self._threads.close()
        for execution in self._of.values():
            execution.close()


def _check_sent(function: TaskFunction[..., Any, Any]) -> None:
    """Raise ConfigurationError if a child process would not find the function."""
    try:
        pickle.dumps(function)
    except Exception as error:
        raise ConfigurationError(
            f"function {function.name} cannot be sent to a process ({error}); define it at the top level of a module"
        ) from None
