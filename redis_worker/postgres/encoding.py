"""Rows to columns of values that the driver takes: numbers as they are, all else as the text that PostgreSQL reads."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from numbers import Real
from typing import Any
from uuid import UUID

from redis_worker.postgres.errors import Unfit
from redis_worker.postgres.table import Column
from redis_worker.vocabulary.payload import dumps

_TEXTS = frozenset((str, type(None)))
# The driver would cut 1.5 to 1, and take True for it.
_WHOLE = frozenset((int, type(None)))
_REAL = frozenset((float, int, type(None)))
_FLAGS = frozenset((bool, type(None)))
_DIRECT = {"int2": _WHOLE, "int4": _WHOLE, "int8": _WHOLE, "float4": _REAL, "float8": _REAL, "bool": _FLAGS}
_JSON = ("json", "jsonb")
# Values of other types would become texts without notice.
_STRINGS = ("text", "varchar", "bpchar", "name", "citext")


def encoded(column: Column, values: Sequence[Any]) -> Sequence[Any]:
    """Return the values of a column for the driver. Raises Unfit, with the column's name."""
    if column.base_name not in _JSON and _DIRECT.get(column.base_name, _TEXTS).issuperset(map(type, values)):
        return values
    text = _converter(column)
    try:
        return [None if value is None else text(value) for value in values]
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise unfit(column, str(error)) from None


def unfit(column: Column, cause: str) -> Unfit:
    """Return the reason why a value cannot be written into a column."""
    return Unfit(f"the column {column.name!r} is {column.type_name}: {cause}")


def _converter(column: Column) -> Callable[[Any], Any]:
    if column.direct:
        return {_WHOLE: _whole, _REAL: _real, _FLAGS: _flag}[_DIRECT[column.base_name]]
    if column.base_name in _JSON:
        return _json_text
    if column.base_name in _STRINGS:
        return _string
    return _array_of(column) if column.element_name else _text


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"a whole number is expected, not a value of the type {type(value).__name__}")
    return operator.index(value)


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)):
        raise TypeError(f"a number is expected, not a value of the type {type(value).__name__}")
    return float(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"True or False is expected, not a value of the type {type(value).__name__}")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is expected, not a value of the type {type(value).__name__}")
    return _text(value)


def _json_text(value: Any) -> str:
    return dumps(value).decode()


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, (int, float, Decimal, UUID)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"\\x{bytes(value).hex()}"
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"
    if isinstance(value, Enum):
        return _text(value.value)
    raise TypeError(f"a value of the type {type(value).__name__} cannot be written")


def _array_of(column: Column) -> Callable[[Any], str]:
    element = _json_text if column.element_name in _JSON else _text

    def text(value: Any) -> str:
        return value if isinstance(value, str) else _array(value, element)

    return text


def _array(values: Any, element: Callable[[Any], str]) -> str:
    """Return the literal of an array, nested lists included."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"an array is a list, not a value of the type {type(values).__name__}")
    return "{" + ",".join(_elements(values, element)) + "}"


def _elements(values: Iterable[Any], element: Callable[[Any], str]) -> Iterable[str]:
    for value in values:
        if value is None:
            yield "NULL"
        elif isinstance(value, (list, tuple)) and element is _text:
            yield _array(value, element)
        else:
            yield '"' + element(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def rows_of(value: Any) -> Sequence[Mapping[str, Any]]:
    """Return the rows of one value. Raises Unfit if it is no mapping, no list of mappings and not None."""
    if value is None:
        return ()
    rows = value if isinstance(value, (list, tuple)) else (value,)
    for row in rows:
        if not isinstance(row, Mapping):
            raise Unfit(f"a row is a mapping of columns to values, not a value of the type {type(row).__name__}")
    return rows
