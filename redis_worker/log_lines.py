"""Log records as lines of text or of JSON."""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from datetime import UTC, datetime
from typing import Any

from redis_worker.engine.guard import id_in
from redis_worker.vocabulary.part import PART
from redis_worker.vocabulary.task import running_task
from redis_worker.vocabulary.text import SHOWN, message_of, visible, visible_lines

# The id of a larger task is not looked for, in bytes.
_MOST_BYTES = 64 * 1024
IN_TASK = "in_task"
"""The attribute of a forwarded record: the task that it was logged in, as `task_here` returns it."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", SHOWN, IN_TASK}


def task_here() -> str | None:
    """Return the task that the running code belongs to: its function, empty without one, a zero, and its id."""
    found = running_task()
    if found is None:
        return None
    delivery, id = found
    if id is None and (id := delivery.label) is None:
        id = id_in(delivery.raw) if len(delivery.raw) <= _MOST_BYTES else "?"
    return f"{delivery.function or ''}\0{id}"


class LineFormatter(logging.Formatter):
    """A formatter of records as lines, with the name of their part, or the number of their worker process."""

    def __init__(self, alone: str | None = None) -> None:
        """`alone` is the only part of this program, if it has one: its lines show just the number of the process."""
        super().__init__()
        self._alone = alone

    @classmethod
    def of(cls, json: bool, alone: str | None) -> LineFormatter:
        """Return the formatter for the arguments in `form`."""
        return JsonFormatter(alone) if json else TextFormatter(alone)

    @property
    def form(self) -> dict[str, Any]:
        """The arguments of `of` for an equal formatter."""
        return {"json": isinstance(self, JsonFormatter), "alone": self._alone}

    @abstractmethod
    def format(self, record: logging.LogRecord) -> str:
        """Return `record` as a line, followed by its traceback, if any."""

    def _origin(self, record: logging.LogRecord) -> tuple[int | None, str | None]:
        """Return the number of the record's process and the name of its part, as far as they are shown.

        Records of user code have them too: each is formatted in the process and context that made it.
        """
        part = getattr(record, "part", None)
        part = PART.get() if part is None else str(part)
        if part is None or self._alone is None:
            return None, part
        name, _, number = part.rpartition("#")
        if name == self._alone and number.isdecimal():
            return int(number), None
        return None, None if part == self._alone else part

    def _task(self, record: logging.LogRecord) -> tuple[str, str]:
        """Return the function and the id of the task that the record was logged in; empty if none, or if it says so."""
        if hasattr(record, "task"):
            return "", ""
        found = getattr(record, IN_TASK, None) or task_here() or "\0"
        function, _, id = str(found).partition("\0")
        return function, id

    def _trace(self, record: logging.LogRecord) -> str | None:
        """Return the traceback of the record; a record from another process brings it as text."""
        return self.formatException(record.exc_info) if record.exc_info else record.exc_text


class TextFormatter(LineFormatter):
    """Lines for people."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        function, id = self._task(record)
        task = f"{function or 'task'} {id}" if id else None
        origin = "".join(f"[{visible(str(name))}] " for name in (*self._origin(record), task) if name)
        trace = visible_lines(f"\n{trace}") if (trace := self._trace(record)) else ""
        return f"{time} {origin}{level}{message_of(record)}{trace}"


class JsonFormatter(LineFormatter):
    """Lines for programs: JSON objects."""

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
        function, id = self._task(record)
        line |= {key: value for key, value in (("task", id), ("function", function)) if value and key not in line}
        if trace := self._trace(record):
            line["exception"] = trace
        try:
            return visible(orjson.dumps(line, default=str).decode())
        except TypeError:  # orjson refuses integers beyond 64 bits, and file names that are not UTF-8
            return json.dumps(line, default=str)
