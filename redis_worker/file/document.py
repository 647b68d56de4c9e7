"""A parsed TOML file: its tables, and the mistakes found so far."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from redis_worker.file.lines import KeyPath, lines_of
from redis_worker.file.mistakes import NO_LINE, FileMistakes, Mistake, near
from redis_worker.file.substitution import UNSET, Substituted, substitute, unquoted, variables_of
from redis_worker.file.values import Kind, shown

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_AT_LINE = re.compile(
    r"^(?P<message>.*?) ?\((?:at line (?P<line>\d+), column (?P<column>\d+)|at end of document)\)$", re.DOTALL
)


def dotted(path: KeyPath) -> str:
    """Return `path` as TOML writes it: `pools."a b".input`, `worker.only[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += "." * bool(text) + (part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False))
    return text


def read_text(path: str) -> str:
    """Return the text of a file. Raises FileMistakes."""
    try:
        return Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise FileMistakes(path, [Mistake(line, "this is not UTF-8, as TOML must be")]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileMistakes(path, [Mistake(NO_LINE, f"cannot be read: {reason}")]) from None


@dataclass(frozen=True, slots=True)
class TableKeys:
    """The keys of a kind of table, with the kinds of their values."""

    kinds: Mapping[str, Kind]
    required: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Messages for known keys that belong elsewhere."""


class Document:
    """A file, its tables, and the mistakes found so far."""

    def __init__(self, name: str, text: str, environment: Mapping[str, str]) -> None:
        """Parse `text` and substitute variables. Raises FileMistakes if it is not TOML."""
        self.name = name
        parsed = _parsed(name, text)
        self.lines = lines_of(text.replace("\r\n", "\n"))
        self._environment = environment
        self._data, self._unset = substitute(parsed, environment)
        self.variables = variables_of(self._data)
        self.mistakes: list[Mistake] = []
        self._blamed: set[KeyPath] = set()

    def line(self, path: KeyPath) -> int:
        """Return the line of `path`, or of the innermost table around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, NO_LINE)

    def blame(self, path: KeyPath, text: str) -> None:
        """Record a mistake at `path`."""
        self.mistakes.append(Mistake(self.line(path), f"{dotted(path)}: {unquoted(text, path, self.variables)}"))
        self._blamed.add(path)

    def value(self, path: KeyPath) -> Any:
        """Return the value at `path`, or None."""
        value: Any = self._data
        for key in path:
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def variable(self, *names: str) -> Substituted | None:
        """Return the value of the first variable that is set, as if the file named it; None without one."""
        for name in names:
            if value := self._environment.get(name):
                return Substituted(value, f"${{{name}}}", {name: value})
        return None

    def is_right(self, path: KeyPath) -> bool:
        """Return True if the table at `path` has no mistake so far."""
        return not any(blamed[: len(path)] == path for blamed in self._blamed)

    def blame_file(self, text: str) -> None:
        """Record a mistake that belongs to no line of the file."""
        self.mistakes.append(Mistake(NO_LINE, text))

    def blame_unset(self, idle: Iterable[KeyPath]) -> None:
        """Record a mistake for each unset variable, except in the unused tables at `idle`."""
        unneeded = tuple(idle)
        for path, text in self._unset.items():
            # `enable` decides if a part runs, so it is always needed; deeper down it is a key of the user's.
            decides = path[-1] == "enable" and len(path) <= 3
            if decides or not any(path[: len(part)] == part for part in unneeded):
                self.blame(path, text)

    def root(self, known: Iterable[str]) -> Table:
        """Return the root table; record a mistake for each key that is not in `known`."""
        root = Table(self, (), self._data)
        tables = tuple(known)
        for key, value in self._data.items():
            if key not in tables:
                kind = "table" if isinstance(value, (dict, list)) else "key outside of all tables"
                self.blame((key,), f"unknown {kind}, {near(key, tables)}")
        return root


class Table:
    """One table of a file."""

    def __init__(self, document: Document, path: KeyPath, values: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.values = values
        self.settings: dict[str, Any] = {}
        """Its valid values, by key, once it is read."""

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def table(self, key: str) -> Table:
        """Return the table `key`, or an empty one."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            if value is not UNSET:
                self.blame(key, f"must be a table, got {shown(value)}")
            value = {}
        return Table(self.document, (*self.path, key), value)

    def split(self, own: Container[str] = ()) -> tuple[Table, list[Table]]:
        """Return the table without its subtables, and the subtables; those named in `own` are settings."""
        inner = [key for key, value in self.values.items() if isinstance(value, dict) and key not in own]
        settings = {key: value for key, value in self.values.items() if key not in inner}
        return Table(self.document, self.path, settings), [self.table(key) for key in inner]

    def set_default(self, key: str, kind: Kind, *names: str) -> bool:
        """Set a missing key to the first of the variables `names` that is set; record a mistake if it is invalid.

        Return False if none is set.
        """
        value = self.document.variable(*names)
        if value is not None and key not in self.values:
            try:
                self.settings[key] = kind(value)
            except ValueError as error:
                self.blame(key, str(error))
        return value is not None

    @property
    def name(self) -> str:
        """The last key of its path."""
        return str(self.path[-1])

    def blame(self, key: str, text: str) -> None:
        """Record a mistake at a key, or at the table if it has no such key."""
        if key in self.values:
            self.document.blame((*self.path, key), text)
        else:
            self.document.blame(self.path, f"{key} {text}")

    def read(self, keys: TableKeys) -> Self:
        """Read the valid values into `settings`; record a mistake for each invalid or missing one. Return the table."""
        for key in keys.required:
            if key not in self.values:
                self.document.blame(self.path, f"the key {key} is missing")
        self.settings = dict(self._read(keys))
        return self

    def _read(self, keys: TableKeys) -> Iterator[tuple[str, Any]]:
        for key, value in self.values.items():
            if key not in keys.kinds:
                message = keys.elsewhere.get(key) or f"unknown key, {near(key, tuple(keys.kinds))}"
                self.blame(key, message)
            elif value is not UNSET:
                try:
                    yield key, keys.kinds[key](value)
                except ValueError as error:
                    self.blame(key, str(error))


def _parsed(name: str, text: str) -> dict[str, Any]:
    """Parse TOML. Raises FileMistakes."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FileMistakes(name, [Mistake(NO_LINE, "tables and lists are nested too deeply")]) from None
    except ValueError as error:
        found = _AT_LINE.match(str(error))
        if found is None:
            raise FileMistakes(name, [Mistake(NO_LINE, f"is not TOML: {error}")]) from None
        if found["line"] is None:
            last = text.rstrip("\n").count("\n") + 1
            raise FileMistakes(name, [Mistake(last, f"{found['message']} at the end of the file")]) from None
        message = f"{found['message']}, at column {found['column']}"
        raise FileMistakes(name, [Mistake(int(found["line"]), message)]) from None
