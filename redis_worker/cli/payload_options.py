"""Shared code of `push` and `publish`: payloads from arguments or a file, sent to Redis."""

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
    """Push the payloads that `make` builds from `texts`, or from the lines of the file `path`. Return the exit code."""
    if not path:
        return asyncio.run(Pusher(target).run(iter([Batch(_payloads(texts, make, target.noun), 0)])))
    name = "standard input" if path == "-" else path
    with _opened(path, name) as file:
        bar = _bar(file, target.wait)
        pusher = Pusher(target, bar=bar, ids=bar is None or not sys.stdout.isatty())
        return asyncio.run(pusher.run(read_batches(file, name, make)))


def _payloads(texts: Sequence[str], make: Callable[[bytes], Payload], noun: str) -> list[Payload]:
    made = []
    for number, text in enumerate(texts, 1):
        try:
            made.append(make(os.fsencode(text)))
        except ValueError as error:
            shown = text if len(text) <= 40 else text[:40] + "…"
            raise click.UsageError(f"{noun} {number} ({shown}): {error}") from None
    return made


def _opened(path: str, name: str) -> FileIO:
    try:
        # Unbuffered, so that a read returns the available bytes. Not sys.stdin: a thread still reading would hold
        # its lock and abort the interpreter at exit.
        return open(0 if path == "-" else path, "rb", buffering=0, closefd=path != "-")
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from None


def _bar(file: FileIO, wait: bool) -> Any:
    """Return a progress bar for the file, if there is a terminal and no results are printed on it."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or not status.st_size or not sys.stderr.isatty():
        return None
    if wait and sys.stdout.isatty():
        return None
    return click.progressbar(length=status.st_size, file=sys.stderr, label="pushing")
