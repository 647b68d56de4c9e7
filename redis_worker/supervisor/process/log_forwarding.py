"""Log records of a part's process, forwarded to the supervisor, which alone formats logs."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from typing import Any

from redis_worker.log_lines import IN_TASK, LineFormatter, task_here
from redis_worker.supervisor.process.channel import Channel
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.text import SHOWN, message_of

# Records are dropped while the supervisor has more unread bytes: a log must not fill the memory.
_MOST_UNREAD = 1024 * 1024
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_KEPT = ("name", "levelno", "levelname", "created", "msecs", "pathname", "lineno", "funcName", "process", "threadName")
_EXCEPTION = logging.Formatter()


class _Forwarder(logging.Handler):
    def __init__(self, channel: Channel, title: str) -> None:
        super().__init__()
        self._title = title
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._forward(record)
        except Exception:
            self.handleError(record)  # as every handler does: logging must not fail its caller

    def _forward(self, record: logging.LogRecord) -> None:
        values: dict[str, Any] = {name: getattr(record, name) for name in _KEPT}
        values["msg"] = record.getMessage()
        if (shown := message_of(record)) != values["msg"]:
            values[SHOWN] = shown
        values["part"] = getattr(record, "part", None) or PART.get() or self._title
        if (task := task_here()) is not None:
            values[IN_TASK] = task
        if record.exc_info:
            values["exc_text"] = record.exc_text or _EXCEPTION.formatException(record.exc_info)
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in values}
        if threading.get_ident() == self._thread:
            self._send(values, extra)
            return
        try:
            self._loop.call_soon_threadsafe(self._send, values, extra)
        except RuntimeError:
            pass  # the loop is closed: the record is from an abandoned thread

    def _send(self, values: dict[str, Any], extra: dict[str, Any]) -> None:
        if self._channel.waiting > _MOST_UNREAD:
            self._dropped += 1
            return
        if self._dropped:
            for text in values.keys() & {"msg", SHOWN}:
                values[text] += f" ({self._dropped} records before it were dropped)"
            self._dropped = 0
        self._channel.send(log={name: _plain(value) for name, value in (extra | values).items()})


def _plain(value: Any) -> Any:
    if isinstance(value, (int, type(None))) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value).encode(errors="backslashreplace").decode()  # names of files may not be UTF-8


def forward_logs(channel: Channel, title: str, levels: dict[str, int]) -> None:
    """Send the log records of this process, named `title`, over `channel`, from `levels` (by logger) on."""
    logging.getLogger().handlers[:] = [_Forwarder(channel, title)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def log_here(form: dict[str, Any] | None) -> None:
    """Write log records to standard error, in the form of the supervisor that is gone; None: write nothing."""
    handler: logging.Handler = logging.NullHandler()
    if form is not None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(LineFormatter.of(**form))
    logging.getLogger().handlers[:] = [handler]


def form() -> dict[str, Any] | None:
    """Return how this process writes its log lines; None where that is the program's own way."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    return next((found.form for found in formatters if isinstance(found, LineFormatter)), None)


def levels() -> dict[str, int]:
    """Return the log levels of this process, for the processes that it starts."""
    return {name: logging.getLogger(name).getEffectiveLevel() for name in ("", "redis_worker")}


def log_forwarded(values: dict[str, Any]) -> None:
    """Log a record received from a part's process."""
    record = logging.makeLogRecord(values)
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)
