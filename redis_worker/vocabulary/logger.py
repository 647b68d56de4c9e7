"""The library's loggers: their records carry the name of the part that logs."""

from __future__ import annotations

import logging

from redis_worker.vocabulary.part import PART


class _Part(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record, after adding the current `part` unless the record has one."""
        if (part := PART.get()) is not None and not hasattr(record, "part"):
            record.part = part
        return True


_PART = _Part()


def library_logger(name: str = "redis_worker") -> logging.Logger:
    """Return the logger `name`; its records have the attribute `part` if a supervisor runs the code.

    All loggers of the library are made here, because a logger's filter does not see records of its children.
    The filter adds to records and configures nothing, so it suits a host application too.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_PART)
    return logger
