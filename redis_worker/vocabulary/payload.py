"""The wire protocol, bytes to values and back, exactly (docs/architecture.md, "The wire protocol").

orjson does the work. It is inexact in three places, each noticed cheaply and then done slowly:
integers past 64 bits (it reads them as floats and refuses to write them), NaN and infinities (it
writes `null`), and keys or values JSON does not have (it writes some of them in forms of its own).
"""

from __future__ import annotations

import decimal
import json
import math
from collections.abc import Sequence
from typing import Any

import orjson

from redis_worker.vocabulary.errors import Unreadable
from redis_worker.vocabulary.task import Task

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
# 18 digits always fit in 64 bits; what has 19 in a row is read again, exactly.
_LONG_NUMBER = b"0" * 19
# CPython converts integers of up to 4,300 digits quickly and refuses longer ones by default.
_QUICK_DIGITS = 4000
_QUICK_BITS = 13000

_new = tuple.__new__

# Of these no part can be a NaN or something else that JSON does not have.
_PLAIN = frozenset((int, str, bool, type(None)))

_STRICT = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def loads(raw: bytes) -> Any:
    """The JSON value in `raw`, integers of any size included. Raises ValueError when there is none."""
    try:
        value = orjson.loads(raw)
    except ValueError:
        # It takes an integer past the range of a float for an infinity.
        if _LONG_NUMBER not in raw.translate(_DIGITS_TO_ZERO):
            raise
    else:
        if _LONG_NUMBER not in raw.translate(_DIGITS_TO_ZERO):
            return value
    try:
        return json.loads(raw.decode(), parse_int=parse_integer, parse_float=_finite, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def dumps(value: Any) -> bytes:
    """`value` as compact JSON. Raises ValueError, saying what, where JSON cannot hold it."""
    if value is None:
        return b"null"
    try:
        data = orjson.dumps(value, option=_STRICT)
        if b"null" not in data:
            return data
    except TypeError:
        pass
    try:
        return orjson.dumps(_exact(value), option=_STRICT)
    except RecursionError:
        raise ValueError("the value is nested too deeply for JSON") from None
    except TypeError as error:
        raise ValueError(f"the value is no JSON: {error}") from None


def _exact(value: Any) -> Any:
    """`value` with long integers spelled out, and with whatever JSON cannot hold refused."""
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


def has_long_number(raws: Sequence[bytes]) -> bool:
    """Whether there may be a number in `raws` that orjson does not read exactly. One look at many is cheap."""
    return b"".join(raws).translate(_DIGITS_TO_ZERO).find(_LONG_NUMBER) >= 0


def read_task(raw: bytes, plain: bool = False) -> Task:
    """The task in `raw`; `plain` when it is known to have no long number.

    Raises Unreadable where nobody could be answered, MissingTask where there is no `task`.
    """
    try:
        payload = orjson.loads(raw) if plain else loads(raw)
        id, value = payload["id"], payload["task"]
        if type(id) is not str:
            raise TypeError
    except (ValueError, TypeError, LookupError):
        return _read_task(raw)
    # Half the time of Task(…), and this is the hot path.
    return _new(Task, (id, value, payload.get("emit_ts")))


def _read_task(raw: bytes) -> Task:
    """The same for what is not the most common form, step by step."""
    id, payload = read_object(raw)
    if "task" not in payload:
        raise MissingTask(id)
    return Task(id, payload["task"], payload.get("emit_ts"))


def read_object(raw: bytes) -> tuple[str, dict[str, Any]]:
    """The text form of the member `id`, and all members, of the JSON object in `raw`. Raises Unreadable."""
    payload = _loads_or_unreadable(raw)
    if type(payload) is not dict:
        raise Unreadable(f"not a JSON object but {json_type(payload)}")
    id = payload.get("id")
    if type(id) is int:
        id = integer_text(id)
    elif type(id) is not str:
        missing = "id" not in payload
        raise Unreadable("the id is missing" if missing else f"the id is {json_type(id)}, not a string or integer")
    return id, payload


def _loads_or_unreadable(raw: bytes) -> Any:
    try:
        return loads(raw)
    except ValueError as error:
        raise Unreadable(f"not JSON: {error}") from None


class MissingTask(ValueError):
    """The payload has an `id`, so that its producer can be answered, and no `task`."""

    def __init__(self, id: str) -> None:
        super().__init__("task is missing")
        self.id = id


def success(value: Any) -> bytes:
    """The result of a task that succeeded. Raises ValueError where JSON cannot hold the value."""
    if type(value) in _PLAIN:
        try:
            return orjson.dumps({"status": "success", "result": value})
        except TypeError:
            pass  # an integer past 64 bits
    return b'{"status":"success","result":%b}' % dumps(value)


def failure(text: str) -> bytes:
    """The result of a task that failed."""
    clean = text.encode(errors="backslashreplace").decode()
    return b'{"status":"error","error":%b}' % orjson.dumps(clean)


def json_type(value: Any) -> str:
    """What `value` is, in JSON's words, with its article."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")


def parse_integer(digits: str) -> int:
    """The integer that `digits` spell, however many: halves are converted and put together."""
    if len(digits) <= _QUICK_DIGITS:
        return int(digits)
    if digits[0] == "-":
        return -parse_integer(digits[1:])
    low = len(digits) // 2
    return int(parse_integer(digits[:-low]) * 10**low + parse_integer(digits[-low:]))


def integer_text(number: int) -> str:
    """The decimal digits of `number`, however many; decimal multiplies long numbers faster than int does."""
    if number.bit_length() <= _QUICK_BITS:
        return str(number)
    limits = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)
    with decimal.localcontext(limits):
        text = str(_to_decimal(abs(number)))
    return "-" + text if number < 0 else text


def _to_decimal(number: int) -> decimal.Decimal:
    bits = number.bit_length()
    if bits <= _QUICK_BITS:
        return decimal.Decimal(number)
    low = bits // 2
    high = number >> low
    return _to_decimal(high) * decimal.Decimal(2) ** low + _to_decimal(number & ((1 << low) - 1))
