"""Values of functions: Python types to JSON and back, by msgspec (the forms: docs/functions.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

try:
    import msgspec
except ImportError:
    from redis_worker.vocabulary.errors import ConfigurationError

    raise ConfigurationError(
        "functions as tasks need the extra `functions` (msgspec is missing): pip install 'redis-worker[functions]'"
    ) from None
from msgspec import inspect

from redis_worker.functions.inputs import Awaited, input_of
from redis_worker.vocabulary.payload import success

# Values of these types are JSON as they are.
_PLAIN = frozenset((int, str, bool, float, type(None)))


def to_json(value: Any) -> Any:
    """Return `value` in JSON types. Raises TypeError if its type has no form in JSON."""
    if type(value) in _PLAIN:
        return value
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encoded)


def argument_to_json(value: Any) -> Any:
    """Return an argument in JSON types; a handle, there or inside it, stands for its result. Raises TypeError."""
    if type(value) in _PLAIN:
        return value
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_encoded_argument)


def from_json(value: Any, kind: Any) -> Any:
    """Return the JSON `value` as a value of the type `kind`. Raises ValueError, with the place and both types."""
    return reader_of(kind)(value)


def reader_of(kind: Any) -> Callable[[Any], Any]:
    """Return `from_json` for the type `kind`, made once for many values."""
    return partial(msgspec.convert, type=kind, str_keys=True, dec_hook=_decoded)


def result_of(value: Any) -> bytes:
    """Return the result of a function that returned `value`. Raises TypeError or ValueError."""
    return success(value if type(value) in _PLAIN else to_json(value))


def problem_of(kind: Any) -> str | None:
    """Return why values of the type `kind` cannot be read from JSON; None if they can."""
    try:
        found = inspect.type_info(kind)
        msgspec.json.Decoder(kind, dec_hook=_decoded)
    except Exception as error:
        return str(error)
    for custom in _customs(found, set()):
        if not hasattr(custom, "model_validate"):
            return f"{_name(custom)} has no form in JSON"
    return None


def _customs(found: Any, seen: set[int]) -> Iterator[Any]:
    """Yield the types inside `found`, a description by msgspec, that msgspec does not know."""
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, inspect.CustomType):
        yield found.cls
    elif isinstance(found, (list, tuple)):
        for item in found:
            yield from _customs(item, seen)
    elif isinstance(found, (inspect.Type, inspect.Field)):
        for name in found.__struct_fields__:
            yield from _customs(getattr(found, name), seen)


def _name(kind: Any) -> str:
    return str(getattr(kind, "__qualname__", kind))


def _encoded(value: Any) -> Any:
    """Return a value that msgspec does not know in JSON types: a model of pydantic."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    raise TypeError(f"{_name(type(value))} has no form in JSON")


def _encoded_argument(value: Any) -> Any:
    return input_of(value) if isinstance(value, Awaited) else _encoded(value)


def _decoded(kind: Any, value: Any) -> Any:
    try:
        return kind.model_validate(value)
    except ValueError as error:  # pydantic writes several lines
        raise ValueError(" ".join(str(error).split())) from None
