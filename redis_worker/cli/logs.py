"""Log lines on standard error, as text or as JSON."""

from __future__ import annotations

import logging
import sys

import click

from redis_worker.file.mistakes import FileMistakes
from redis_worker.log_lines import JsonFormatter, LineFormatter
from redis_worker.vocabulary.text import visible_lines


def configure(level: str, form: str, alone: str | None = None, everything: bool = False) -> None:
    """Write log records of `level` and above to standard error, as "text" or "json".

    `alone` is the only part of this program: its lines bear the number of its process in place of its name. Other
    libraries log only warnings, unless `everything` is True.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter.of(form == "json", alone))
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


def complain_of(mistakes: FileMistakes) -> None:
    """Print the mistakes in a file; each begins with its place, as editors and compilers write it."""
    for line in str(mistakes).splitlines():
        complain(line, "")


def _write(level: int, message: str, plain: str) -> None:
    if any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers):
        logger = logging.getLogger("redis_worker")
        # handle() ignores the logger's level.
        logger.handle(logger.makeRecord(logger.name, level, "", 0, message, (), None))
    else:
        click.echo(visible_lines(plain), err=True)
