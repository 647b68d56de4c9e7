"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import click

from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.text import SHOWN, message_of, visible, visible_lines

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", SHOWN}


class _Text(logging.Formatter):
    def __init__(self, number: int | None) -> None:
        super().__init__()
        self._process = "" if number is None else f"[{number}] "

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        part = f"[{visible(name)}] " if (name := _part(record)) else ""
        trace = visible_lines(f"\n{trace}") if (trace := _trace(self, record)) else ""
        return f"{time} {self._process}{part}{level}{message_of(record)}{trace}"


class _Json(logging.Formatter):
    def __init__(self, number: int | None) -> None:
        super().__init__()
        self._process = {} if number is None else {"process": number}

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **self._process,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if part := _part(record):
            line["part"] = part
        if trace := _trace(self, record):
            line["exception"] = trace
        try:
            return visible(orjson.dumps(line, default=str).decode())
        except TypeError:  # orjson rejects integers beyond 64 bits, and file names that are not UTF-8
            return json.dumps(line, default=str)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    """Return the record's traceback; a record from another process carries it as text."""
    return formatter.formatException(record.exc_info) if record.exc_info else record.exc_text


def _part(record: logging.LogRecord) -> str | None:
    """Return the record's part, for user code too, because records are formatted where they are created."""
    part = getattr(record, "part", None)
    return PART.get() if part is None else str(part)


def configure(level: str, form: str, number: int | None = None, everything: bool = False) -> None:
    """Write log records of `level` and above to standard error, as "text" or "json".

    `number` is the number of this worker process among several, shown in each line. Other libraries log only
    warnings, unless `everything` is True.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json(number) if form == "json" else _Text(number))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper() if everything else logging.WARNING)
    logging.getLogger("redis_worker").setLevel(level.upper())


def announce(text: str) -> None:
    """Print a message at any log level, in the format of the log."""
    _write(logging.INFO, text, text)


def complain(text: str, title: str = "Error: ") -> None:
    """Print an error at any log level, in the format of the log.

    The text format puts `title` before it.
    """
    _write(logging.ERROR, text, f"{title}{text}")


def _write(level: int, message: str, plain: str) -> None:
    if any(isinstance(handler.formatter, _Json) for handler in logging.getLogger().handlers):
        logger = logging.getLogger("redis_worker")
        # handle() ignores the logger's level.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None))
    else:
        click.echo(visible_lines(plain), err=True)
