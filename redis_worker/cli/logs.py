"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys

import click

from redis_worker.log_lines import JsonFormatter, LineFormatter
from redis_worker.vocabulary.text import visible_lines


def configure(level: str, form: str, alone: str | None = None, everything: bool = False) -> None:
    """Have log records of `level` and above written to standard error, as "text" or "json".

    `alone` is the only part of this program: its lines bear the number of its process, and not its name. Of others
    than this library only warnings are written, unless it is to be `everything`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter.of(form == "json", alone))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper() if everything else logging.WARNING)
    logging.getLogger("redis_worker").setLevel(level.upper())


def announce(text: str) -> None:
    """Tell the user, whatever the log level is, in the form that log lines have."""
    _tell(logging.INFO, text, text)


def complain(text: str, title: str = "Error: ") -> None:
    """Tell the user what is wrong, whatever the log level is, in the form that log lines have.

    `title` stands before it, where that form is text.
    """
    _tell(logging.ERROR, text, f"{title}{text}")


def _tell(level: int, message: str, plain: str) -> None:
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        logger = logging.getLogger("redis_worker")
        # handle() asks the logger for no level.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None))
    else:
        click.echo(visible_lines(plain), err=True)
