"""Where a processor's code runs: on the event loop, in threads, in processes."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from redis_worker.vocabulary.errors import ConfigurationError, ProcessDied
from redis_worker.vocabulary.payload import failure, success

# What a processor may raise without harm to its worker: a processor that calls sys.exit() has failed,
# as one that lets somebody else's cancellation out has; neither ends the worker.
CAUGHT = (Exception, SystemExit, asyncio.CancelledError, GeneratorExit)


class Answer(NamedTuple):
    """A result ready to be stored, and its error text if it is one."""

    result: bytes
    error: str | None = None


class TimedOut(Exception):
    """The time limit is over; `leftover` is what goes on regardless, and keeps its slot until it ends."""

    def __init__(self, leftover: asyncio.Future[Any] | None = None) -> None:
        super().__init__("timed out")
        self.leftover = leftover


class Execution(Protocol):
    """Runs calls somewhere."""

    async def call(self, arguments: list[Any]) -> Answer:
        """The answer to one call. Raises TimedOut."""

    def close(self) -> None:
        """Stop what can be stopped; wait for nothing."""


def refusal(kind: str, error: BaseException) -> Answer:
    """The error result for `error`, which the parser or the processor raised."""
    text = f"{kind}: {str(error) or type(error).__name__}"
    if isinstance(error, KeyError):
        text = f"{kind}: KeyError: {error}"
    return Answer(failure(text), text)


def compute(processor: Callable[[list[Any]], Any], arguments: list[Any]) -> Answer:
    """Call a plain processor and encode its value, where the call is made. Raises nothing of its making."""
    try:
        return Answer(success(processor(arguments)))
    except CAUGHT as error:
        return refusal("Processing error", error)


class Coroutines:
    """Calls of a coroutine function, on the event loop."""

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None) -> None:
        self._processor = processor
        self._timeout = timeout

    async def call(self, arguments: list[Any]) -> Answer:
        try:
            if self._timeout is None:
                return Answer(success(await self._processor(arguments)))
            return await self._limited(arguments)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the pool cancels: the task is handed back, not answered
            return refusal("Processing error", error)
        except TimedOut:
            raise
        except CAUGHT as error:
            return refusal("Processing error", error)

    async def _limited(self, arguments: list[Any]) -> Answer:
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                value = await self._processor(arguments)
        except TimeoutError:
            if limit.expired():
                raise TimedOut from None
            raise
        return Answer(success(value))

    def close(self) -> None:
        """Coroutines are cancelled by who runs them."""


class Threads:
    """Calls of a plain function, in threads."""

    def __init__(self, processor: Callable[[list[Any]], Any], timeout: float | None, concurrency: int) -> None:
        self._processor = processor
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="redis-worker")

    async def call(self, arguments: list[Any]) -> Answer:
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._pool, compute, self._processor, arguments)
        if self._timeout is None:
            return await call
        done, _ = await asyncio.wait({call}, timeout=self._timeout)
        if not done:
            raise TimedOut(call)
        return call.result()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


class Processes:
    """Calls of a plain function, each slot with a process of its own: one that dies takes no other along."""

    def __init__(
        self, processor: Callable[[list[Any]], Any], timeout: float | None, concurrency: int, max_deliveries: int
    ) -> None:
        try:
            pickle.dumps(processor)
        except Exception as error:
            raise ConfigurationError(
                f"the processor cannot be sent to a process ({error}); define it at the top level of a module"
            ) from None
        self._processor = processor
        self._timeout = timeout
        self._tries = max_deliveries
        self._idle: list[_Child] = []
        self._busy: set[_Child] = set()
        # The threads only wait for the processes.
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="redis-worker-process")

    async def call(self, arguments: list[Any]) -> Answer:
        for _ in range(self._tries):
            answer = await self._try(arguments)
            if answer is not None:
                return answer
        times = f"{self._tries} times" if self._tries > 1 else "once"
        return refusal("Processing error", ProcessDied(f"the process that ran the task died, {times}"))

    async def _try(self, arguments: list[Any]) -> Answer | None:
        child = self._idle.pop() if self._idle else _Child(self._processor)
        self._busy.add(child)
        call = asyncio.get_running_loop().run_in_executor(self._pool, child.call, arguments)
        try:
            if not (await asyncio.wait({call}, timeout=self._timeout))[0]:
                raise TimedOut
            answer = call.result()
            if answer is not None:
                self._idle.append(child)
            return answer
        finally:
            self._busy.discard(child)
            if not call.done() or call.result() is None:
                child.kill()

    def close(self) -> None:
        for child in (*self._idle, *self._busy):
            child.kill()
        self._pool.shutdown(wait=False, cancel_futures=True)


class _Child:
    """One process that answers calls, one at a time."""

    def __init__(self, processor: Callable[[list[Any]], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, self._theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._theirs, processor), name="redis-worker-process"
        )
        self._lock = threading.Lock()
        self._killed = False

    def call(self, arguments: list[Any]) -> Answer | None:
        """The answer of the process, or None when it died instead. Runs in a thread of the pool."""
        try:
            self._start()
            self._pipe.send(arguments)
            return Answer(*self._pipe.recv())
        except (EOFError, OSError):
            return None
        except Exception as error:  # what the parser made cannot be sent
            return refusal("Processing error", error)

    def kill(self) -> None:
        """End the process, whatever it is doing; a call under way then returns None."""
        with self._lock:
            self._killed = True
            if self._process.ident is not None:
                self._process.kill()
                self._process.join(1.0)

    def _start(self) -> None:
        with self._lock:
            if self._killed:
                raise EOFError
            if self._process.ident is None:
                # In the thread, because it takes some 50 ms.
                self._process.start()
                self._theirs.close()


def _serve(pipe: Connection, processor: Callable[[list[Any]], Any]) -> None:
    """The life of a child: answer until the parent hangs up."""
    # Ctrl-C in a terminal reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        # A parent killed in the middle of a call must not leave the call running for nobody.
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(tuple(compute(processor, pipe.recv())))


def _die_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
