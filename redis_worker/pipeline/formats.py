"""Typed messages: each is decoded as one of several msgspec types, by its tag or by its shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

from redis_worker.pipeline.errors import Rejected, is_malformed, malformed
from redis_worker.vocabulary.errors import ConfigurationError


class Formats:
    """A decoder of messages that come in several formats, and a stage of a pipeline.

        class Legacy(msgspec.Struct):
            device_id: str
            temp_f: float

        class Reading(msgspec.Struct, tag="reading", tag_field="type"):
            device: str
            celsius: float

        parse = Formats(Legacy, Reading)

    Types with a tag are told apart by it. A type without a tag fits a message that has all of its required fields; if
    several fit, the one with the most of them is taken.
    """

    def __init__(self, *types: type, name: str = "parse") -> None:
        """Raises ConfigurationError if msgspec is missing, or types cannot be told apart."""
        try:
            import msgspec
        except ImportError:
            raise ConfigurationError(
                "typed messages need msgspec (of the extra `kafka`): pip install 'redis-worker[kafka]'"
            ) from None
        self.__name__ = name
        if not types or not all(isinstance(each, type) and issubclass(each, msgspec.Struct) for each in types):
            raise ConfigurationError("formats are subclasses of msgspec.Struct, at least one")
        tagged = [each for each in types if _tag_field(each)]
        untagged = [each for each in types if not _tag_field(each)]
        try:
            decode: Callable[[bytes], Any] = msgspec.json.Decoder(reduce(or_, tagged or untagged[:1])).decode
        except TypeError as error:
            raise ConfigurationError(f"the formats cannot be told apart: {error}") from None
        self._decode = decode
        if untagged and len(types) > 1:
            self._decode = _by_shape(untagged, (_tag_field(tagged[0]), decode) if tagged else None)

    def __call__(self, message: Any) -> Any:
        """Return the value of a message (its `data`, bytes or text, or itself). Raises Rejected, with the field."""
        raw = getattr(message, "data", message)
        if raw is None:
            raise Rejected("the message has no value")
        return self.decode(raw)

    def batch(self, messages: Sequence[Any]) -> list[Any]:
        """Return the value of each message, or its Rejected."""
        decode = self._decode
        entries: list[Any] = []
        for message in messages:
            try:
                entries.append(decode(getattr(message, "data", message)))
            except Exception:
                entries.append(self._entry(message))
        return entries

    def _entry(self, message: Any) -> Any:
        """Return the value of a message, or its error."""
        try:
            return self(message)
        except Exception as error:
            return error

    def decode(self, raw: bytes | str) -> Any:
        """Return the value that is encoded in `raw`. Raises Rejected, with the field."""
        try:
            return self._decode(raw)  # type: ignore[arg-type] # msgspec takes texts as well
        except Exception as error:
            if is_malformed(error):
                raise malformed(error) from None
            raise


def _tag_field(kind: Any) -> str:
    """Return the name of the field with a type's tag; "" without one."""
    return kind.__struct_config__.tag_field or ""


def _by_shape(kinds: list[Any], tagged: tuple[str, Callable[[bytes], Any]] | None) -> Callable[[bytes], Any]:
    """Return the function that decodes by shape; `tagged` is the field of the tag, and the decoder where it is."""
    import msgspec

    shapes: list[tuple[frozenset[str], Callable[[bytes], Any]]] = []
    for kind in kinds:
        required = frozenset(each.encode_name for each in msgspec.structs.fields(kind) if each.required)
        if any(required == other for other, _ in shapes):
            raise ConfigurationError(
                f"the format {kind.__name__} cannot be told apart: another one has the same required fields"
            )
        shapes.append((required, msgspec.json.Decoder(kind).decode))
    if tagged and len(shapes) == 1:
        return _by_field(*tagged, shapes[0][1])
    names = sorted(frozenset().union(*(required for required, _ in shapes), [tagged[0]] if tagged else []))
    probe = _probe(names)
    chosen: dict[tuple[bool, ...], Callable[[bytes], Any]] = {}

    def choose(present: tuple[bool, ...]) -> Callable[[bytes], Any]:
        found = {name for name, there in zip(names, present, strict=True) if there}
        if tagged and tagged[0] in found:
            return tagged[1]
        # Where none fits, the nearest one names the field that is missing.
        return max(shapes, key=lambda shape: (shape[0] <= found, len(shape[0] & found)))[1]

    def decode(raw: bytes) -> Any:
        present = tuple([value is not msgspec.UNSET for value in msgspec.structs.astuple(probe(raw))])
        found = chosen.get(present)
        if found is None:
            found = chosen[present] = choose(present)
        return found(raw)

    return decode


def _by_field(name: str, there: Callable[[bytes], Any], missing: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return the function that decodes by one of two decoders, as the field `name` is there or missing."""
    import msgspec

    probe, unset = _probe([name]), msgspec.UNSET

    def decode(raw: bytes) -> Any:
        return missing(raw) if probe(raw).f0 is unset else there(raw)

    return decode


def _probe(names: list[str]) -> Callable[[bytes], Any]:
    """Return a decoder to a struct of fields f0, f1, …, one of each name, UNSET where it is missing.

    Fields are found, and neither decoded nor copied.
    """
    import msgspec

    renamed = {f"f{number}": name for number, name in enumerate(names)}
    fields = [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in renamed]
    return msgspec.json.Decoder(msgspec.defstruct("Shape", fields, rename=renamed, gc=False)).decode
