"""The declaration of a handler of Kafka messages: its own settings, with the options of its worker over them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.vocabulary.calls import check_takes_one
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Declaration, check_settings, declaration_of, said_by

_RETRIES = 3


def declared(handler: Callable[[Any], Any], options: KafkaOptions) -> Declaration:
    """Return the settings of a handler: those that it declares, and `options`. Raises ConfigurationError."""
    batch = options.batch
    check_takes_one("batch handler" if batch else "handler", handler, "a list of messages" if batch else "a message")
    check_settings(handler)
    retries = said_by(handler).get("retries", _RETRIES) if options.retries is None else options.retries
    declaration = declaration_of(
        handler,
        "handler",
        execution=None if options.execution == "auto" else options.execution,
        timeout=options.timeout,
        retries=retries,
        retry_backoff=options.retry_backoff,
        retry_backoff_max=options.retry_backoff_max,
    )
    if batch and declaration.execution == "inline":
        raise ConfigurationError(f"handler {declaration.name}: a batch cannot be handled inline; use thread")
    if batch and options.ordered != "none":
        raise ConfigurationError(
            f"handler {declaration.name}: the messages of a batch are handled together, so it cannot be ordered"
        )
    return declaration
