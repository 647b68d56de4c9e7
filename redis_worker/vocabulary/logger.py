"""The library's loggers: what they say bears the name of the part it belongs to."""

from __future__ import annotations

import logging

from redis_worker.vocabulary.part import PART


class _Part(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record; `part` is added where it is known, and not said already."""
        if (part := PART.get()) is not None and not hasattr(record, "part"):
            record.part = part
        return True


_PART = _Part()


def library_logger(name: str = "redis_worker") -> logging.Logger:
    """The logger `name`, whose records have the attribute `part` wherever a supervisor runs the code.

    Each logger of the library is made here: a filter of a logger does not see what its children say. That
    adds to records and configures nothing, so that it holds in a host application as well.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_PART)
    return logger
