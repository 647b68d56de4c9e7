"""The places where the functions of a queue run: on the event loop, in threads, in processes."""

from __future__ import annotations

import pickle
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from redis_worker.engine.child_calls import tell_parent
from redis_worker.engine.execution import Answer, Coroutines, Encode, Execution, Inline, Threads, unencoded
from redis_worker.engine.lifespan import Lifespan, in_children
from redis_worker.engine.middleware import Middlewares, TaskCall
from redis_worker.engine.processes import Processes
from redis_worker.engine.starts import Noted, told
from redis_worker.engine.thread_pool import OwnThreads, ThreadPool
from redis_worker.functions.current import CURRENT, CurrentTask
from redis_worker.functions.function import AnyFunction
from redis_worker.functions.reading import Received
from redis_worker.functions.signature import Arguments
from redis_worker.functions.values import result_of
from redis_worker.vocabulary.errors import ConfigurationError


def call(received: Received) -> Any:
    """Call the function of a task. A coroutine function returns its coroutine."""
    positional, named = received.arguments
    return received.function.__wrapped__(*positional, **named)


class Sent(NamedTuple):
    """A task as a child process gets it, which inherits no context."""

    function: AnyFunction
    arguments: Arguments
    description: CurrentTask

    def current(self) -> CurrentTask:
        """See Running."""
        return replace(self.description, running=self)

    def is_cancelled(self) -> bool:
        """Return False: the process is killed."""
        return False

    def report(self, done: float, total: float | None, message: str | None) -> None:
        """See Running. The parent takes it."""
        tell_parent((done, total, message))


def sent(received: Received) -> Sent:
    """Return a task as a child process gets it."""
    return Sent(received.function, received.arguments, replace(received.current(), running=None))


def call_in_child(sent: Sent) -> Any:
    """Call the function of a task in a child process."""
    CURRENT.set(sent)
    positional, named = sent.arguments
    return sent.function.__wrapped__(*positional, **named)


class InProcesses:
    """Calls of a plain function in child processes."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes

    async def call(self, arguments: Received) -> Answer:
        return await self._processes.call(sent(arguments), told(lambda report: arguments.report(*report)))

    def close(self) -> None:
        self._processes.close()


class Surrounded:
    """Calls with middleware around each of them."""

    def __init__(self, execution: Execution, middlewares: Middlewares) -> None:
        """`execution` does not encode."""
        self._execution = execution
        self._middlewares = middlewares

    async def call(self, arguments: Received) -> Answer:
        def inner(task: TaskCall) -> Awaitable[Answer]:
            return self._execution.call(replace(arguments, arguments=task.arguments))

        delivery, name = arguments.delivery, arguments.function.name
        queue, values = arguments.side.queue, arguments.arguments
        task = TaskCall(arguments.id, queue, name, delivery.attempt, values, delivery.raw)
        return await self._middlewares.call(task, inner, result_of)

    def close(self) -> None:
        self._execution.close()


class Executions(dict[AnyFunction, Execution | None]):
    """The executions of a queue's functions, by function; None for a coroutine function, which needs none."""

    def __init__(
        self,
        functions: Iterable[AnyFunction],
        concurrency: int,
        max_deliveries: int,
        lifespan: Lifespan | None,
        middlewares: Middlewares,
        noted: bool = False,
    ) -> None:
        """Raises ConfigurationError if a function cannot be sent to a process. `noted` calls note their start."""
        self._noted = noted
        self._call = Noted(call) if noted else call
        self._threads = ThreadPool(concurrency, "redis-worker")
        self._tries = max_deliveries
        self._in_child = in_children(lifespan, Noted(call_in_child) if noted else call_in_child)
        super().__init__({function: self._execution(function, middlewares) for function in functions})

    def _execution(self, function: AnyFunction, middlewares: Middlewares) -> Execution | None:
        if middlewares:
            return Surrounded(self._place(function, unencoded), middlewares)
        is_direct = function.declaration.execution == "async" and not self._noted
        return None if is_direct else self._place(function, result_of)

    def _place(self, function: AnyFunction, encode: Encode) -> Execution:
        timeout = function.declaration.timeout
        match function.declaration.execution:
            case "inline":
                return Inline(self._call, encode)
            case "async":
                return Coroutines(self._call, timeout, encode)
            case "thread":
                return Threads(self._call, timeout, self._threads, encode)
            case "process":
                _check_sent(function)
                return InProcesses(Processes(self._in_child, timeout, self._tries, encode))

    def close(self) -> None:
        """Stop the calls that can be stopped."""
        self._threads.close()
        for execution in self.values():
            if execution is not None:
                execution.close()


def executions_here(functions: Iterable[AnyFunction], middlewares: Middlewares) -> dict[AnyFunction, Execution | None]:
    """Return executions for tests of a program: in its own process, plain functions in threads."""
    threads = OwnThreads("redis-worker-testing")

    def place(function: AnyFunction) -> Execution:
        timeout = function.declaration.timeout
        if function.declaration.execution == "async":
            return Coroutines(call, timeout, unencoded)
        return Threads(call, timeout, threads, unencoded)

    return {function: Surrounded(place(function), middlewares) for function in functions}


def _check_sent(function: AnyFunction) -> None:
    """Raise ConfigurationError if a child process would not find the function."""
    try:
        pickle.dumps(function)
    except Exception as error:
        raise ConfigurationError(
            f"function {function.name} cannot be sent to a process ({error}); define it at the top level of a module"
        ) from None
