"""Text from outside, made safe to show: ids, reasons, keys and errors are written by anybody."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

# What a terminal obeys or what breaks a line: C0, DEL and C1; marks, overrides and isolates of the writing direction;
# separators of lines and paragraphs; invisible signs; halves of surrogate pairs.
_OBEYED = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e0fff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
_INDENT = "  "

SHOWN = "shown"
"""The attribute of a log record from another process that holds its message as it is to be shown."""


class Lines(str):
    """An argument of a log record that is ours, and has line breaks by intention: a stack."""

    __slots__ = ()


def visible(text: str) -> str:
    """Return `text` on one line, with all that a terminal would obey escaped, as JSON escapes it.

    Valid JSON on one line stays the same JSON.
    """
    return text if text.isprintable() else _OBEYED.sub(_escaped, text)


def visible_lines(text: str) -> str:
    """Return `text` with its line breaks, and all else as `visible` has it. Lines after the first are indented."""
    first, *others = map(visible, text.replace("\t", "    ").split("\n"))
    return "\n".join([first, *(line if line.startswith(_INDENT) else _INDENT + line for line in others)])


def message_of(record: logging.LogRecord) -> str:
    """Return the message of `record`, for a log of lines: its arguments are made visible, its own text is kept."""
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
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
