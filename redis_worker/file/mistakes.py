"""The mistakes in a file, all at once, with their lines."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from redis_worker.file.plan import Plan

NO_LINE = 0
"""The line of a mistake that belongs to no line of the file, such as a missing file or a wrong argument."""


class Mistake(NamedTuple):
    """One mistake."""

    line: int
    """From 1; `NO_LINE` if it belongs to no line of the file."""
    text: str


class FileMistakes(ConfigurationError):
    """The mistakes in a file; the text has one line for each, in the order of the file."""

    def __init__(self, name: str, mistakes: Iterable[Mistake], rest: Plan | None = None) -> None:
        """`rest` is a plan of the valid parts, so that the functions they name can be checked as well."""
        self.name = name
        self.rest = rest
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.line)
        super().__init__("\n".join(self._shown(*mistake) for mistake in self.mistakes))

    def _shown(self, line: int, text: str) -> str:
        # One line for each mistake, even if its text has line breaks.
        message = " ".join(text.splitlines())
        return f"{self.name}: {message}" if line == NO_LINE else f"{self.name}:{line}: {message}"

    def __reduce__(self) -> tuple[type[FileMistakes], tuple[str, list[Mistake]]]:
        return FileMistakes, (self.name, self.mistakes)


def near(name: str, known: Sequence[str]) -> str:
    """Return a hint for an unknown name: the closest known name, or all known names."""
    if found := difflib.get_close_matches(name.lower(), known, 1):
        return f"did you mean {found[0]}?"
    if len(known) < 2:
        return f"the only one is {known[0]}" if known else "none exist"
    return f"use one of {', '.join(known)}"
