"""Payloads from user input: single texts, and files of JSON lines, read lazily."""

from __future__ import annotations

import codecs
import json
import os
import time
from collections.abc import Iterator
from io import FileIO
from typing import Any, NamedTuple, Protocol

import orjson

from redis_worker.vocabulary.ids import id_text, new_id
from redis_worker.vocabulary.message import write_message
from redis_worker.vocabulary.payload import dumps, has_long_number, json_type, loads

# Bytes per read of a file; their lines form a batch.
_CHUNK = 1 << 16


class Payload(NamedTuple):
    """A payload ready to be pushed."""

    id: str
    raw: bytes


class Batch(NamedTuple):
    """Payloads read together."""

    payloads: list[Payload]
    size: int
    """Bytes read for them."""
    error: str | None = None
    """The reason why reading stopped before the end of the file."""


class Make(Protocol):
    """A function that builds a payload from a text. Raises ValueError."""

    def __call__(self, text: bytes, *, plain: bool = False) -> Payload:
        """`plain`: the text is known to have no long number."""


def payload(text: bytes, id: str | None = None, *, plain: bool = False) -> Payload:
    """Return the payload in `text`, or a payload with `text` as its task. Raises ValueError."""
    text = text.strip()
    value = _loads(text, plain)
    if not (isinstance(value, dict) and "task" in value):
        made = new_id() if id is None else id
        # Embed the task as written, to keep every digit.
        return Payload(made, b'{"id":%b,"task":%b,"emit_ts":%.6f}' % (dumps(made), text, time.time()))
    given = value.get("id")
    if given is None:
        made = new_id() if id is None else id
        return Payload(made, dumps({**value, "id": made}))
    if isinstance(given, bool) or not isinstance(given, (str, int)):
        raise ValueError(f"the id is {json_type(given)}, not a string or an integer")
    found = id_text(given)
    if id is not None and found != id:
        raise ValueError(f"the payload has the id {given!r}, but --id is {id!r}")
    return Payload(found, text)


def message(topic: str, text: bytes, id: str | None = None, *, plain: bool = False) -> Payload:
    """Return a message of `topic` with the data `text`. Raises ValueError."""
    text = text.strip()
    _loads(text, plain)
    made = new_id() if id is None else id
    # Embed the data as written; data that looks like a message is not treated as one.
    return Payload(made, write_message(topic, orjson.Fragment(text), made))


def read_batches(file: FileIO, name: str, make: Make = payload) -> Iterator[Batch]:
    """Yield the payloads that `make` builds from lines of JSON, in batches, up to the first bad line.

    A batch holds the lines available, so a slow pipe yields small batches without delay.
    """
    number = 0
    try:
        for lines, size in _read_lines(file):
            payloads: list[Payload] = []
            plain = not has_long_number(lines)
            for line in lines:
                number += 1
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if not text.strip():
                    continue
                try:
                    payloads.append(make(text, plain=plain))
                except ValueError as error:
                    yield Batch(payloads, size, f"{name}:{number}: {error}")
                    return
            yield Batch(payloads, size)
    except OSError as error:
        yield Batch([], 0, f"{name}: {error.strerror}")


def _read_lines(file: FileIO) -> Iterator[tuple[list[bytes], int]]:
    """Yield the lines available and the number of bytes read for them."""
    os.set_blocking(file.fileno(), True)  # a shared standard input may be non-blocking and look like its end
    rest: list[bytes] = []  # pieces of an incomplete line
    while chunk := file.read(_CHUNK):
        head, newline, tail = chunk.rpartition(b"\n")
        lines: list[bytes] = []
        if newline:
            lines = b"".join((*rest, head)).split(b"\n")
            rest.clear()
        rest.append(tail)
        yield lines, len(chunk)
    yield [b"".join(rest)], 0


def _loads(text: bytes, plain: bool) -> Any:
    """Return the JSON value in `text`. Raises ValueError with a message for users."""
    try:
        return orjson.loads(text) if plain else loads(text)
    except ValueError as error:
        raise ValueError(_explained(text, error)) from None


def _explained(text: bytes, error: ValueError) -> str:
    if not text:
        return "empty, not a JSON value"
    reason = str(error)
    if isinstance(error, json.JSONDecodeError):
        reason = f"{error.msg}, at character {error.pos + 1}"
    if text[:1].isalpha():
        reason += """; a JSON text needs quotes: '"text"'"""
    return f"not JSON: {reason}"
