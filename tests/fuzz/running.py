"""A run of the fuzzer: inputs by number, in batches, and the first failure with what repeats it."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, Self

from redis.asyncio import Redis

from redis_worker.embedded import EmbeddedServer
from redis_worker.log_lines import JsonFormatter, TextFormatter
from redis_worker.vocabulary.text import visible

# What a terminal obeys, or what breaks a line in two.
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")
# Seconds for one batch, on a machine that is busy with other things: more is a hang.
_PATIENCE = 180.0
_SHOWN = 600


class Violation(AssertionError):
    """An input did what no input may do."""

    def __init__(self, text: str, raw: bytes | None = None) -> None:
        """`raw` is the input, where it is known which one of a batch it was."""
        super().__init__(text)
        self.raw = raw


class Target:
    """A reader of foreign bytes. It is entered, fed with batches, and left."""

    name: ClassVar[str]
    batch: ClassVar[int]
    """Inputs of one batch."""
    share: ClassVar[float]
    """Its part of all inputs, where several targets are run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        pass

    def make(self, random: Random) -> bytes:
        """Return an input."""
        raise NotImplementedError

    def feed(self, inputs: Sequence[bytes]) -> None:
        """Read them all. Raises Violation, or whatever the reader should not have raised."""
        raise NotImplementedError


class AsyncTarget(Target):
    """A target with an event loop of its own, which turns while it is fed."""

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._errors: list[dict[str, Any]] = []
        self._runner.get_loop().set_exception_handler(lambda _, context: self._errors.append(context))
        self._runner.run(self.open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._runner.run(asyncio.wait_for(self.close(), _PATIENCE))
        finally:
            self._runner.close()

    def feed(self, inputs: Sequence[bytes]) -> None:
        self._runner.run(asyncio.wait_for(self.check(inputs), _PATIENCE))
        if self._errors:
            raise Violation(f"the event loop was left with {self._errors[:3]}")

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    async def check(self, inputs: Sequence[bytes]) -> None:
        """See Target.feed."""
        raise NotImplementedError


class WorkerTarget(AsyncTarget):
    """A target that is a worker, on a server of its own."""

    async def open(self) -> None:
        self.server = EmbeddedServer()
        self.server.start()
        self.redis = Redis.from_url(self.server.url)
        self.worker = self.new_worker(self.server.url)
        self._work = asyncio.create_task(self.worker.run())

    def new_worker(self, url: str) -> Any:
        """Return the worker, which is not started."""
        raise NotImplementedError

    async def close(self) -> None:
        self.worker.stop()
        try:
            await self._work
            if keys := await self.redis.keys("*:inflight:*"):
                raise Violation(f"left in flight: {keys}")
        finally:
            await self.redis.aclose()
            self.server.stop()

    async def processed(self, number: int) -> None:
        """Wait until the worker has processed so many tasks or messages."""
        while self.worker.counters.processed < number:
            await self.pause()

    async def pause(self) -> None:
        """Wait a little. Raises Violation if the worker has stopped."""
        if self._work.done():
            raise Violation(f"the worker has stopped: {self._work.exception()!r}")
        await asyncio.sleep(0.002)


class Watch(logging.Handler):
    """All that is logged, as `redis-worker` would show it: no traceback, and nothing that a terminal obeys."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._forms = (TextFormatter(), JsonFormatter())
        self.wrong: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[0] is not None:
            trace = "".join(traceback.format_exception(record.exc_info[1]))
            self.wrong.append(f"{record.name}: {record.getMessage()}\n{trace}")
        for form in self._forms:
            try:
                line = form.format(record)
            except Exception as error:
                self.wrong.append(f"a line of the log cannot be written: {error!r}")
                continue
            if OBEYED.search(line) or "Traceback (most recent" in line:
                self.wrong.append(f"a line of the log is not harmless: {line!r}")

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """Watch all loggers."""
        root, level = logging.getLogger(), logging.getLogger().level
        own = logging.getLogger("redis_worker")
        own_level = own.level
        root.addHandler(self)
        root.setLevel(logging.INFO)
        own.setLevel(logging.INFO)
        try:
            yield self
        finally:
            root.removeHandler(self)
            root.setLevel(level)
            own.setLevel(own_level)


class Failure(NamedTuple):
    """The first thing that went wrong, and how to repeat it."""

    text: str
    file: Path
    repeat: str

    def __str__(self) -> str:
        return f"{self.text}\n  input: {self.file}\n  again: {self.repeat}"


def run(target: Target, count: int, seed: int, first: int = 0, store: Path = Path(".fuzz")) -> Failure | None:
    """Feed `target` with `count` inputs, the first of which has the number `first`."""
    began = shown = time.monotonic()
    with Watch().watching() as watch, target:
        for start in range(first, first + count, target.batch):
            numbers = range(start, min(start + target.batch, first + count))
            inputs = [target.make(Random(f"{target.name}/{seed}/{number}")) for number in numbers]
            try:
                target.feed(inputs)
                if watch.wrong:
                    raise Violation(watch.wrong[0])
            except (Exception, KeyboardInterrupt) as error:
                if isinstance(error, KeyboardInterrupt) and not isinstance(error.__context__, Exception):
                    raise
                return _failure(target, seed, numbers, inputs, error, store)
            if time.monotonic() - shown > 10:
                shown = time.monotonic()
                done = numbers.stop - first
                print(f"{target.name}: {done:,} of {count:,}, {done / (shown - began):,.0f}/s", flush=True)
    print(
        f"{target.name}: {count:,} inputs in {time.monotonic() - began:.1f} s, nothing wrong (seed {seed})", flush=True
    )
    return None


def _failure(
    target: Target, seed: int, numbers: range, inputs: Sequence[bytes], error: BaseException, store: Path
) -> Failure:
    raw = error.raw if isinstance(error, Violation) else None
    if raw is not None and raw in inputs:
        number = numbers[inputs.index(raw)]
        numbers, inputs = range(number, number + 1), [raw]
    store.mkdir(exist_ok=True)
    file = store / f"{target.name}-{seed}-{numbers.start}"
    file.write_bytes(inputs[0] if len(inputs) == 1 else b"\n".join(repr(each).encode() for each in inputs))
    shown = f" for {visible(repr(inputs[0]))[:_SHOWN]}" if len(inputs) == 1 else f" within {len(inputs)} inputs"
    text = f"{target.name}: {''.join(traceback.format_exception(error))}{shown}"
    again = f"python -m tests.fuzz {target.name} --seed {seed} --first {numbers.start} --inputs {len(numbers)}"
    return Failure(text, file, again)


def show(failure: Failure) -> None:
    """Print it."""
    print(failure, file=sys.stderr, flush=True)
