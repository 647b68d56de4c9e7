"""The wire protocol, bytes to values and back, exactly (docs/protocol.md).

orjson does the work. It is inexact in three places, each detected cheaply and then handled slowly:
integers past 64 bits (it reads them as floats and refuses to write them), NaN and infinities (it
writes `null`), and keys or values that JSON does not have (it writes some of them in its own forms).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Final

import orjson

from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.long_integers import MAX_DIGITS, integer_text, parse_integer
from redis_worker.vocabulary.task import Task

CANCELLED: Final = "cancelled"
"""The error text of a task that was cancelled."""

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
# 18 digits always fit in 64 bits; payloads with 19 in a row are read exactly.
_LONG_NUMBER = b"0" * 19
# Texts above this size, in bytes, are searched one by one: all together they would not stay in the processor's caches.
_SMALL = 400
# Candidates for a long number; only some are integers.
_RUN = re.compile(rb"[-+.0-9eE]{19,}")
_INTEGER = re.compile(rb"-?[1-9][0-9]{18,}")
# Greater than every integer of up to 18 digits, so these can mark the long ones.
_FIRST_MARK = 10**18
# Values of these types contain no NaN, and nothing else that JSON does not have.
_PLAIN = frozenset((int, str, bool, type(None)))

# orjson reads longer integers as floats beyond these.
_LONG_FLOAT = 1e18
# Values with more items than this are judged by their text.
_FEW = 64
# orjson leaves a text in the buffer that it has written it into, of 4 kB in 3.13: shorter texts, in bytes, are copied.
# Thousands are held at once, and touching as many pages costs several times as much as the copies.
_BUFFER = 4096

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def loads(raw: bytes) -> Any:
    """Return the JSON value in `raw`; its integers are exact.

    Raises ValueError if `raw` is not JSON, or a number has more than MAX_DIGITS digits.
    """
    try:
        value = orjson.loads(raw)
        if _is_exact(value, raw):
            return value
    except ValueError:  # it refuses integers of hundreds of digits
        if not _has_long_number(raw):
            raise
    # Backslashes occur in strings only; without the escaped quotes, every second part is a string.
    parts = raw.replace(rb"\\", b"__").replace(rb"\"", b"__").split(b'"')
    if not has_long_number(parts[::2]):
        return orjson.loads(raw)
    return _loads_exactly(raw, parts)


def _is_exact(value: Any, raw: bytes) -> bool:
    """Return True if orjson read the integers in `value` from `raw` exactly, and no number there is too long."""
    # A number of too many digits, as a fraction may have, shows in 20 samples, of which at most 4 are no digits.
    may_be_too_long = len(raw) > MAX_DIGITS and b"0000" in raw[:: MAX_DIGITS // 20].translate(_DIGITS_TO_ZERO)
    if len(raw) > _SMALL and not may_be_too_long and _has_no_long_float(value):
        return True
    return not _has_long_number(raw)


def _has_no_long_float(value: Any) -> bool:
    """Return True if `value` has few items, and no float that may stand for a long integer.

    In large texts this takes a hundredth of the time of a search in the text.
    """
    items = [value]
    for item in items:  # it grows meanwhile
        kind = type(item)
        if kind is list or kind is dict:
            if len(items) + len(item) > _FEW:
                return False
            items += item if kind is list else item.values()
        elif kind is float and not -_LONG_FLOAT < item < _LONG_FLOAT:
            return False
    return True


def _loads_exactly(raw: bytes, parts: list[bytes]) -> Any:
    """Read `raw` by orjson with a mark in place of each long integer, then replace the marks by the integers.

    A mark is an integer of the same length: it changes neither the validity of the JSON nor the position of an error.
    """
    marked, numbers, at = bytearray(raw), list[bytes](), 0
    for index, part in enumerate(parts):
        if len(part) >= len(_LONG_NUMBER) and index % 2 == 0:
            for found in _RUN.finditer(part):
                if len(found[0].lstrip(b"-")) > MAX_DIGITS:
                    raise ValueError(f"a number has more than {MAX_DIGITS} digits")
                if _INTEGER.fullmatch(found[0]):
                    mark = b"%d" % (_FIRST_MARK + len(numbers))
                    marked[at + found.start() : at + found.end()] = mark.ljust(len(found[0]))
                    numbers.append(found[0])
        at += len(part) + 1
    return _unmarked(orjson.loads(marked), numbers)


def _unmarked(value: Any, numbers: list[bytes]) -> Any:
    """Return `value` with the integers in `numbers` in place of their marks. Not recursive: it may be nested deeply."""
    whole = [value]
    containers: list[Any] = [whole]
    while containers:
        container = containers.pop()
        for key, item in container.items() if type(container) is dict else enumerate(container):
            kind = type(item)
            if kind is dict or kind is list:
                containers.append(item)
            elif kind is int and item >= _FIRST_MARK:
                container[key] = parse_integer(numbers[item - _FIRST_MARK].decode())
    return whole[0]


def dumps(value: Any) -> bytes:
    """Return `value` as compact JSON. Raises ValueError, with the reason, if JSON cannot hold it."""
    if value is None:
        return b"null"
    try:
        data = orjson.dumps(value, option=_STRICT)
        if b"null" not in data:
            return _fitted(data)
    except TypeError:
        pass
    try:
        return _fitted(orjson.dumps(_exact(value), option=_STRICT))
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON") from None
    except TypeError as error:
        raise ValueError(f"the value is no JSON: {error}") from None


def _fitted(data: bytes) -> bytes:
    """Return `data` in no more memory than it needs."""
    return data if len(data) > _BUFFER else b"%b" % data


def _exact(value: Any) -> Any:
    """Return `value` with long integers spelled out. Raises ValueError if JSON cannot hold it."""
    if isinstance(value, int) and not isinstance(value, bool):
        return orjson.Fragment(integer_text(int(value)).encode())
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is no JSON number")
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_exact(item) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"a JSON object's keys are strings, got {type(key).__name__}")
        return {str(key): _exact(item) for key, item in value.items()}
    if value is None or isinstance(value, (bool, orjson.Fragment)):
        return value
    raise ValueError(f"a {type(value).__name__} is no JSON value")


def are_plain(raws: Sequence[bytes]) -> bool:
    """Return True if no text has a number that orjson reads inexactly; False where it is cheaper to read each text."""
    return not raws or (len(raws[0]) <= _SMALL and not has_long_number(raws))


def has_long_number(raws: Sequence[bytes]) -> bool:
    """Return True if `raws` may hold a number that orjson reads inexactly. One search in many small ones is cheap."""
    if raws and len(raws[0]) > _SMALL:
        return any(map(_has_long_number, raws))
    return b"".join(raws).translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) >= 0


def _has_long_number(raw: bytes) -> bool:
    # Of 19 digits in a row, every sixth byte shows at least three: most texts are read in part only.
    return b"000" in raw[::6].translate(_DIGITS_TO_ZERO) and _LONG_NUMBER in raw.translate(_DIGITS_TO_ZERO)


def read_task(raw: bytes, plain: bool = False) -> Task:
    """Return the task in `raw`; `plain` if it is known to have no long number.

    Raises Unreadable without a usable id, MissingTask without a `task`.
    """
    try:
        payload = orjson.loads(raw)
        id, value = payload["id"], payload["task"]
        if type(id) is not str or not (plain or _is_exact(value, raw)):
            raise TypeError
    except (ValueError, TypeError, LookupError):
        return _read_task(raw)
    return Task(id, value)


def _read_task(raw: bytes) -> Task:
    """Read a task of a less common form, step by step."""
    id, payload = read_object(raw)
    if "task" not in payload:
        raise MissingTask(id)
    return Task(id, payload["task"])


def read_object(raw: bytes, plain: bool = False) -> tuple[str, dict[str, Any]]:
    """Return the text form of `id`, and all members, of the JSON object in `raw`; `plain` as in `read_task`.

    Raises Unreadable.
    """
    try:
        payload = orjson.loads(raw) if plain else loads(raw)
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None
    if type(payload) is not dict:
        raise Unreadable(f"not a JSON object but {json_type(payload)}")
    id = payload.get("id")
    if type(id) is int:
        id = integer_text(id)
    elif type(id) is not str:
        missing = "id" not in payload
        raise Unreadable("the id is missing" if missing else f"the id is {json_type(id)}, not a string or integer")
    return id, payload


class MissingTask(ValueError):
    """A payload with an `id`, so that it gets a result, and without a `task`."""

    def __init__(self, id: str) -> None:
        super().__init__("task is missing")
        self.id = id


def success(value: Any) -> bytes:
    """Return the result of a task that succeeded. Raises ValueError if JSON cannot hold the value."""
    if type(value) in _PLAIN:
        try:
            return b'{"status":"success","result":%b}' % orjson.dumps(value)  # a copy, see _BUFFER
        except TypeError:
            pass  # an integer past 64 bits
    return b'{"status":"success","result":%b}' % dumps(value)


def failure(text: str) -> bytes:
    """Return the result of a task that failed."""
    clean = text.encode(errors="backslashreplace").decode()
    return b'{"status":"error","error":%b}' % orjson.dumps(clean)


def json_type(value: Any) -> str:
    """Return the JSON type of `value`, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
