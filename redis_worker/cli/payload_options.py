"""What `push` and `publish` have in common: payloads from arguments or from a file, and on to Redis."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable, Sequence
from io import FileIO
from typing import Any

import click

from redis_worker.cli.payloads import Batch, Payload, read_batches
from redis_worker.cli.pushing import Pusher, Target


def send(texts: Sequence[str], path: str | None, make: Callable[[bytes], Payload], target: Target) -> int:
    """Push what `make` makes of `texts`, or of the lines of the file `path`. Returns the exit code."""
    if not path:
        return asyncio.run(Pusher(target).run(iter([Batch(_payloads(texts, make, target.what), 0)])))
    name = "standard input" if path == "-" else path
    with _opened(path, name) as file:
        bar = _bar(file, target.wait)
        pusher = Pusher(target, bar=bar, ids=bar is None or not sys.stdout.isatty())
        return asyncio.run(pusher.run(read_batches(file, name, make)))


def _payloads(texts: Sequence[str], make: Callable[[bytes], Payload], what: str) -> list[Payload]:
    made = []
    for number, text in enumerate(texts, 1):
        try:
            made.append(make(os.fsencode(text)))
        except ValueError as error:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise click.UsageError(f"{what} {number} ({shown}): {error}") from None
    return made


def _opened(path: str, name: str) -> FileIO:
    try:
        # Unbuffered, so that a read returns what there is; and not sys.stdin, on whose lock a thread that
        # still reads would have the interpreter abort at its end.
        return open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from None


def _bar(file: FileIO, wait: bool) -> Any:
    """A progress bar over the file, where there is a terminal, and no results are to be printed on it."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size or not sys.stderr.isatty():
        return None
    if wait and sys.stdout.isatty():
        return None
    return click.progressbar(length=status.st_size, file=sys.stderr, label="pushing")
