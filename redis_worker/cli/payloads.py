"""Payloads from what a user gives: single texts, and files of JSON lines read as they are needed."""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Callable, Iterator
from io import FileIO
from typing import Any, NamedTuple

import orjson

from redis_worker.vocabulary.ids import new_id
from redis_worker.vocabulary.message import write_message
from redis_worker.vocabulary.payload import dumps, json_type, loads, read_task

# How much of a file is read at once; what it has becomes a batch.
_CHUNK = 1 << 16


class Payload(NamedTuple):
    """A payload ready to be pushed."""

    id: str
    raw: bytes


class Batch(NamedTuple):
    """Payloads that were read together."""

    payloads: list[Payload]
    size: int
    """How many bytes were read for them."""
    error: str | None = None
    """Why nothing follows, when that is not for the end of the file."""


def payload(text: bytes, id: str | None = None) -> Payload:
    """The payload that `text` is, or is the task of. Raises ValueError."""
    text = text.strip()
    value = _loads(text)
    if not (isinstance(value, dict) and "task" in value):
        made = new_id() if id is None else id
        # The task goes in as it was written, to the last digit.
        return Payload(made, b'{"id":%b,"task":%b,"emit_ts":%.6f}' % (dumps(made), text, time.time()))
    given = value.get("id")
    if given is None:
        made = new_id() if id is None else id
        return Payload(made, dumps({**value, "id": made}))
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise ValueError(f"the id is {json_type(given)}, not a string or an integer")
    found = read_task(text).id
    if id is not None and found != id:
        raise ValueError(f"the payload has the id {given!r}, and --id says {id!r}")
    return Payload(found, text)


def message(topic: str, text: bytes, id: str | None = None) -> Payload:
    """A message of `topic`, whose data is `text`. Raises ValueError."""
    text = text.strip()
    _loads(text)
    made = new_id() if id is None else id
    # The data goes in as it was written, too; whatever it looks like, it is not taken for a whole message.
    return Payload(made, write_message(topic, orjson.Fragment(text), made))


def read_batches(file: FileIO, name: str, make: Callable[[bytes], Payload] = payload) -> Iterator[Batch]:
    """What `make` makes of the lines of a file of JSON, in batches of what there is to read, up to the first bad line.

    A pipe that is written to slowly gives small batches: nobody waits for the next line.
    """
    number = 0
    try:
        for lines, size in _read_lines(file):
            payloads: list[Payload] = []
            for line in lines:
                number += 1
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not text.strip():
                    continue
                try:
                    payloads.append(make(text))
                except ValueError as error:
                    yield Batch(payloads, size, f"{name}:{number}: {error}")
                    return
            yield Batch(payloads, size)
    except OSError as error:
        yield Batch([], 0, f"{name}: {error.strerror}")


def _read_lines(file: FileIO) -> Iterator[tuple[list[bytes], int]]:
    """Lines, as many as there are at a time, and how many bytes were read for them."""
    os.set_blocking(file.fileno(), True)  # a shared standard input may not be, and then seems to be at its end
    rest: list[bytes] = []  # the pieces of a line that has not ended
    while chunk := file.read(_CHUNK):
        head, newline, tail = chunk.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:
            lines = b"".join((*rest, head)).split(b"\n")
            rest.clear()
        rest.append(tail)
        yield lines, len(chunk)
    yield [b"".join(rest)], 0


def _loads(text: bytes) -> Any:
    """The JSON value in `text`. Raises ValueError, in words for a user."""
    try:
        return loads(text)
    except ValueError as error:
        raise ValueError(_explained(text, error)) from None


def _explained(text: bytes, error: ValueError) -> str:
    if not text:
        return "empty, where a JSON value should be"
    reason = str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg}, at character {error.pos + 1}"
    if text[:1].isalpha():
        reason += """; a text needs quotes of its own: '"text"'"""
    return f"not JSON: {reason}"
