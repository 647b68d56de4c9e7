"""Texts that the columns of a row fill in: keys, channels, ids."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from string import Formatter
from typing import Any, TypeAlias

from redis_worker.vocabulary.errors import ConfigurationError

Row: TypeAlias = Mapping[str, Any]


class KeyPattern:
    """A text with names of columns in braces, for example `device:{device}`."""

    def __init__(self, option: str, text: str) -> None:
        """Raises ConfigurationError if the pattern is not valid."""
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError(f"{option} {text!r}: {error}") from None
        if not text or any(not name.isidentifier() or form or how for _, name, form, how in parsed if name is not None):
            raise ConfigurationError(
                f"{option} {text!r} is a text with names of columns in braces, as in 'device:{{id}}'"
            )
        self._text = text
        self._fields: list[tuple[str, str]] = []
        """Columns, each after the text before it."""
        self._rest = ""
        for literal, name, _, _ in parsed:
            self._rest += literal
            if name is not None:
                self._fields.append((self._rest, name))
                self._rest = ""

    def places(self, rows: Sequence[Row]) -> Sequence[Hashable]:
        """Return what tells the texts of rows apart. The hot path.

        Raises ValueError if a column is missing or empty.
        """
        if len(self._fields) == 1:
            [(_, name)] = self._fields
            values = [row.get(name) for row in rows]
            if "" not in values and set(map(type, values)) == {str}:
                return values
        return [self.of(row) for row in rows]

    def of(self, row: Row) -> str:
        """Return the text for `row`. Raises ValueError if a column is missing or empty."""
        text = ""
        for literal, name in self._fields:
            value = row.get(name)
            if value is None or value == "":
                raise ValueError(f"the row has no {name!r}, which {self._text!r} needs")
            text += f"{literal}{value}"
        return text + self._rest
