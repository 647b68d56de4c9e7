"""From the bytes of a message to the argument of a handler, and from its value to what a sink takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_origin

from redis_worker.engine.awaitables import is_awaitable
from redis_worker.engine.guard import is_interrupt
from redis_worker.engine.reading import condemned
from redis_worker.kafka.message import KafkaMessage
from redis_worker.kafka.partitions import KafkaDelivery
from redis_worker.vocabulary.error_text import error_text
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.payload import loads
from redis_worker.vocabulary.task import Delivery, Outcome

Decode = Callable[[bytes], Any]


def decoder(decode: Any) -> Decode:
    """Return the function that decodes a message's value, for None (JSON), a function, or a type (msgspec).

    Raises ConfigurationError if msgspec is missing, or does not take the type.
    """
    if decode is None:
        return loads
    if decode is bytes:
        return bytes
    if not isinstance(decode, type) and get_origin(decode) is None:
        if not callable(decode):
            raise ConfigurationError(f"decode must be a type, or a function of the message's bytes, got {decode!r}")
        return decode  # type: ignore[no-any-return] # it is checked at each call
    try:
        import msgspec
    except ImportError:
        raise ConfigurationError(
            "a type for `decode` needs the extra `kafka` (msgspec is missing): pip install 'redis-worker[kafka]'"
        ) from None
    try:
        return msgspec.json.Decoder(decode).decode
    except TypeError as error:
        raise ConfigurationError(f"msgspec cannot decode {decode!r}: {error}") from None


class KafkaReader:
    """A decoder of messages of Kafka."""

    def __init__(self, decode: Decode, max_deliveries: int) -> None:
        self._decode = decode
        self._max_deliveries = max_deliveries

    def read(self, delivery: Delivery) -> tuple[str, KafkaMessage] | Outcome:
        """Return the message's coordinates and the message, or an outcome. The hot path."""
        if TYPE_CHECKING:
            assert isinstance(delivery, KafkaDelivery)
        message, partition, raw, offset = delivery.message, delivery.receipt, delivery.raw, delivery.offset
        id = f"{partition.label}@{offset}"
        if delivery.deaths >= self._max_deliveries:
            return condemned(delivery, id)
        data = None
        try:
            if raw or message.value() is not None:  # a tombstone has none
                data = self._decode(raw)
        except BaseException as error:
            if is_interrupt(error):
                raise
            return Outcome(delivery, id, None, f"cannot be decoded: {error_text(error)}", dead=True, exception=error)
        kind, milliseconds = message.timestamp()
        content = (
            id,
            partition.topic,
            data,
            milliseconds / 1000 if kind else None,
            1 + delivery.deaths + delivery.retries,
            partition.number,
            offset,
            message.key(),
            message.headers() or [],
        )
        return id, tuple.__new__(KafkaMessage, content)  # in half the time of a call with nine arguments


def nothing(value: Any) -> None:
    """Ignore what a handler returns: there is no sink. Raises TypeError for an awaitable."""
    if value is not None and is_awaitable(value):
        raise TypeError("an awaitable is no result")


def row(value: Any) -> Any:
    """Return what a handler returned, for a sink. Raises TypeError if it is nothing to write."""
    if value is None or _is_row(value) or (type(value) is list and all(map(_is_row, value))):
        return value or None
    raise TypeError(f"a handler returns a row (a mapping), a list of rows or None, not {type(value).__name__}")


def _is_row(value: Any) -> bool:
    return type(value) is dict or isinstance(value, Mapping)  # Mapping takes four times as long
