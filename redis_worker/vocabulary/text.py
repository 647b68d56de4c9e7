"""Untrusted text made safe to show: ids, reasons, keys and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

# Characters that control a terminal or break a line: C0, DEL and C1; marks, overrides and isolates of direction;
# separators of lines and paragraphs; invisible characters; lone surrogates.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
_INDENT = "  "

SHOWN = "shown"
"""The attribute of a log record from another process that holds its message, ready to be shown."""


class Lines(str):
    """A trusted argument of a log record with intended line breaks: a stack."""

    __slots__ = ()


def visible(text: str) -> str:
    """Return `text` on one line, with control characters escaped as in JSON.

    Valid JSON on one line stays the same JSON.
    """
    return text if text.isprintable() else _CONTROL.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Return `text` with its line breaks, otherwise as by `visible`. Lines after the first are indented."""
    first, *more = map(visible, text.replace("\t", "    ").split("\n"))
    return "\n".join([first, *(line if line.startswith(_INDENT) else _INDENT + line for line in more)])


def message_of(record: logging.LogRecord) -> str:
    """Return the message of `record`, for a log of lines: the arguments are made visible, the format is kept."""
    if (shown := getattr(record, SHOWN, None)) is not None:
        return str(shown)
    arguments: Any = record.args
    if isinstance(arguments, Mapping):
        arguments = {name: _argument(value) for name, value in arguments.items()}
    elif arguments:
        arguments = tuple(map(_argument, arguments))
    message = str(record.msg)
    return visible_lines(message % arguments if arguments else message)


def _argument(value: Any) -> Any:
    if isinstance(value, (int, float, Lines)):
        return value
    shown = visible(plain := str(value))
    return value if shown == plain else shown


def _escaped(match: re.Match[str]) -> str:
    character = match.group()
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]  # JSON may hold DEL as it is
