"""The log of aiohttp's protocol, without a traceback for each request that is no HTTP: every client could fill it."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from redis_worker.vocabulary.logger import library_logger

_SERVER_ERROR = 500


def _is_of_client(error: Any) -> bool:
    """Return True if `error` stands for a head or a body that is not valid, or a connection that has ended."""
    return isinstance(error, (RequestPayloadError, ConnectionError)) or (
        isinstance(error, HttpProcessingError) and error.code < _SERVER_ERROR
    )


class RequestLog(logging.LoggerAdapter[logging.Logger]):
    """A logger that takes a malformed request for an event of its client, at level DEBUG."""

    def __init__(self) -> None:
        super().__init__(library_logger("redis_worker.http"))

    def exception(self, msg: object, *args: object, exc_info: Any = True, **options: Any) -> None:
        """Log an exception with its traceback, unless the client caused it."""
        if _is_of_client(exc_info):
            self.debug("a request cannot be answered: %s", exc_info)
        else:
            super().exception(msg, *args, exc_info=exc_info, **options)
