"""Log records as lines of text or of JSON."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from datetime import UTC, datetime
from typing import Any

from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.text import SHOWN, message_of, visible, visible_lines

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", SHOWN}


class LineFormatter(logging.Formatter):
    """Formats a record as one line, which bears the name of its part, or the number of its worker process."""

    def __init__(self, alone: str | None = None) -> None:
        """`alone` is the only part of this program, if it has one: of its processes the number is shown alone."""
        super().__init__()
        self._alone = alone

    @classmethod
    def of(cls, json: bool, alone: str | None) -> LineFormatter:
        """Return the formatter whose `form` this is."""
        return JsonFormatter(alone) if json else TextFormatter(alone)

    @property
    def form(self) -> dict[str, Any]:
        """The arguments of `of` that make another one like this."""
        return {"json": isinstance(self, JsonFormatter), "alone": self._alone}

    @abstractmethod
    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as a line, and its traceback where it has one."""

    def _origin(self, record: logging.LogRecord) -> tuple[int | None, str | None]:
        """The number of the process and the name of the part that the record belongs to, as far as they are shown.

        Of user code too, for records are formatted where they are made.
        """
        part = getattr(record, "part", None)
        part = PART.get() if part is None else str(part)
        if part is None or self._alone is None:
            return None, part
        name, _, number = part.rpartition("#")
        if name == self._alone and number.isdecimal():
            return int(number), None
        return None, None if part == self._alone else part

    def _trace(self, record: logging.LogRecord) -> str | None:
        """The traceback of the record; that of one from another process has been written there."""
        return self.formatException(record.exc_info) if record.exc_info else record.exc_text


class TextFormatter(LineFormatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        origin = "".join(f"[{visible(str(name))}] " for name in self._origin(record) if name)
        trace = visible_lines(f"\n{trace}") if (trace := self._trace(record)) else ""
        return f"{time} {origin}{level}{message_of(record)}{trace}"


class JsonFormatter(LineFormatter):
    """For programs."""

    def format(self, record: logging.LogRecord) -> str:
        import orjson

        number, part = self._origin(record)
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            **({} if number is None else {"process": number}),
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD and key != "part"}
        if part:
            line["part"] = part
        if trace := self._trace(record):
            line["exception"] = trace
        try:
            return visible(orjson.dumps(line, default=str).decode())
        except TypeError:  # it knows no integers beyond 64 bits, and no bytes of a file's name that are not UTF-8
            return json.dumps(line, default=str)
