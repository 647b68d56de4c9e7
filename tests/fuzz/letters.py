"""What is known of an input without the product's own reader."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any


def digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def counted(dead: Iterable[bytes]) -> Counter[str]:
    """Return how many dead letters there are of each input, by its digest."""
    found: Counter[str] = Counter()
    for line in dead:
        letter = json.loads(line)
        if "raw" in letter:
            found[digest(letter["raw"].encode())] += 1
        elif "raw_base64" in letter:
            found[digest(base64.b64decode(letter["raw_base64"]))] += 1
        else:
            found[letter["sha256"]] += 1
    return found


class _Digits(str):
    """An integer as it is written: of any length, and not computed."""


def _integer(digits: str) -> _Digits:
    return _Digits("0" if digits == "-0" else digits)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def id_of(raw: bytes) -> str | None:
    """Return the text form of the id in `raw` as the standard library reads it, or None."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10_000))
    try:
        value = json.loads(raw.decode(), parse_constant=_refuse, parse_int=_integer)
    except (ValueError, RecursionError):
        return None
    id = value.get("id") if isinstance(value, dict) else None
    return str(id) if isinstance(id, str) else None
