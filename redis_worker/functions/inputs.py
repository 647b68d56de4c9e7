"""Inputs: results that are put into the arguments of a task once it may run."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import NamedTuple, Protocol

# Data that a program passes on, and that only looks like an input, is none: nobody else knows this text.
NONCE = secrets.token_hex(8)
"""Marks the inputs in the payloads that this process submits."""

_BEGIN = f'{{"$result":"{NONCE}:'.encode()
_INPUT = re.compile(re.escape(_BEGIN) + rb'([0-9a-f]*):([0-9a-f]*)"\}')


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class Awaited:
    """A task whose result can be an argument of another one."""

    queue: _Named
    id: str


class Input(NamedTuple):
    """The place of a result."""

    queue: str
    id: str


def input_of(awaited: Awaited) -> dict[str, str]:
    """Return the JSON that stands for the result of a task."""
    return {"$result": f"{NONCE}:{awaited.queue.name.encode().hex()}:{awaited.id.encode().hex()}"}


def inputs_in(payload: bytes) -> list[Input]:
    """Return the inputs that the payload needs. Most payloads need none."""
    if _BEGIN not in payload:
        return []
    return [Input(_text(queue), _text(id)) for queue, id in _INPUT.findall(payload)]


def filled(payload: bytes, value_of: Callable[[str], bytes]) -> bytes:
    """Return the payload with the JSON of each result in its place, as flows.lua does."""
    return _INPUT.sub(lambda found: value_of(_text(found[2])), payload)


def _text(digits: bytes) -> str:
    return bytes.fromhex(digits.decode()).decode()
