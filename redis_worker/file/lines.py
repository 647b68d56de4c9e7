"""Line numbers of the keys of a TOML text, which tomllib does not report.

tomllib has parsed the text before, so the scanner checks nothing.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from typing import Any, TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value; an item of an array has its index."""

_SIMPLE = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = re.compile(rf"{_SIMPLE}(?:[ \t]*\.[ \t]*{_SIMPLE})*")
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_GAP = re.compile(r"[ \t]*")
# A multi-line string ends with three quotes; up to two more quotes before them belong to the string.
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
# A number, a boolean or a time, which may contain a space.
_BARE = re.compile(r"[^,\]}#\r\n]+")


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line of each key of `text`, which is valid TOML, by path; the first line is 1.

    A table has the line of its header, or of the first key that creates it; an item of an array has its own line.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._counts: dict[KeyPath, int] = {}
        """The number of tables so far in each array of tables."""

    def scan(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        while self._skip(_BLANK) and self._at < len(self._text):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)
        return self._lines

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return True

    @property
    def _line(self) -> int:
        return bisect_right(self._breaks, self._at - 1) + 1

    def _header(self) -> KeyPath:
        """Read `[a.b]` or `[[a.b]]`; return the path of the table."""
        line = self._line
        brackets = 2 if self._text.startswith("[[", self._at) else 1
        self._at += brackets
        self._skip(_GAP)
        *outer, last = self._key()
        self._skip(_GAP)
        self._at += brackets
        table: KeyPath = ()
        for key in outer:
            table = self._in_array((*table, key))
            self._lines.setdefault(table, line)
        table = (*table, last)
        if brackets == 2:
            self._lines.setdefault(table, line)
            self._counts[table] = self._counts.get(table, 0) + 1
            table = self._in_array(table)
        # The table's own header replaces the line of an inner table's header, which may precede it.
        self._lines[table] = line
        return table

    def _in_array(self, path: KeyPath) -> KeyPath:
        """Return `path`, or the path of its last table if it is an array of tables."""
        return (*path, self._counts[path] - 1) if path in self._counts else path

    def _key(self) -> list[str]:
        """Read a key; return its parts, split at dots. tomllib decodes quotes and escapes."""
        found = _KEY.match(self._text, self._at)
        assert found is not None, self._text[self._at : self._at + 20]
        self._at = found.end()
        parts: list[str] = []
        rest: Any = tomllib.loads(f"{found[0]}=0")
        while isinstance(rest, dict):
            [(part, rest)] = rest.items()
            parts.append(part)
        return parts

    def _pair(self, table: KeyPath) -> None:
        line = self._line
        path = table
        for part in self._key():
            path = (*path, part)
            self._lines.setdefault(path, line)
        self._skip(_GAP)
        self._at += 1  # the equals sign
        self._skip(_GAP)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        match self._text[self._at]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_BARE)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while not self._ends("]"):
            self._lines[*path, index] = self._line
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while not self._ends("}"):
            self._pair(path)

    def _ends(self, bracket: str) -> bool:
        """Skip to the next item, or past the closing bracket; return True after the bracket."""
        self._skip(_BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(_BLANK)
        if self._text.startswith(bracket, self._at):
            self._at += 1
            return True
        return False
