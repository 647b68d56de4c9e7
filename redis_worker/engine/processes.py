"""Calls in processes: for what is bound by the CPU, or may take its process down."""

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
from typing import Any

from redis_worker.engine.execution import Answer, TimedOut, compute, refusal
from redis_worker.vocabulary.errors import ConfigurationError, ProcessDied
from redis_worker.vocabulary.part import PART


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
            target=_serve, args=(self._theirs, processor, PART.get()), name="redis-worker-process"
        )
        self._lock = threading.Lock()
        self._killed = self._calling = self._closed = False

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
        finally:
            with self._lock:
                self._calling = False
                if self._killed and not self._closed:
                    self._close()

    def kill(self) -> None:
        """End the process, whatever it is doing; a call under way then returns None."""
        with self._lock:
            self._killed = True
            if self._closed:
                return
            if self._process.ident is not None:
                self._process.kill()
                self._process.join(1.0)
            if not self._calling:  # or a descriptor would be closed that is being read
                self._close()

    def _close(self) -> None:
        """Give the descriptors back, once it is killed and no call is under way: nobody else collects them."""
        self._pipe.close()
        self._theirs.close()
        with contextlib.suppress(ValueError):  # it has not ended yet
            self._process.close()
        self._closed = True

    def _start(self) -> None:
        with self._lock:
            if self._killed:
                raise EOFError
            self._calling = True
            if self._process.ident is None:
                # In the thread, because it takes some 50 ms.
                self._process.start()
                self._theirs.close()


def _serve(pipe: Connection, processor: Callable[[list[Any]], Any], part: str | None) -> None:
    """The life of a child: answer until the parent hangs up."""
    PART.set(part)
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
