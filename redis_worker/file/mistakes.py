"""What is wrong with a file: all of it at once, and where."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from redis_worker.vocabulary.errors import ConfigurationError

if TYPE_CHECKING:
    from redis_worker.file.plan import Plan

NO_LINE = 0
"""The line of what is wrong with no line of the file: it is missing, or an argument does not fit."""


class Mistake(NamedTuple):
    """One thing that is wrong."""

    line: int
    """From 1; `NO_LINE` where it is none of the file's."""
    text: str


class FileMistakes(ConfigurationError):
    """What is wrong with a file. Its text has a line for each mistake, in the order of the file."""

    def __init__(self, name: str, mistakes: Iterable[Mistake], rest: Plan | None = None) -> None:
        """`rest` is a plan of the parts that nothing is wrong with: what they name can be looked for as well."""
        self.name = name
        self.rest = rest
        self.mistakes = sorted(dict.fromkeys(mistakes), key=lambda mistake: mistake.line)
        super().__init__("\n".join(self._shown(*mistake) for mistake in self.mistakes))

    def _shown(self, line: int, text: str) -> str:
        # A text with line breaks would not be one mistake a line.
        said = " ".join(text.splitlines())
        return f"{self.name}: {said}" if line == NO_LINE else f"{self.name}:{line}: {said}"

    def __reduce__(self) -> tuple[type[FileMistakes], tuple[str, list[Mistake]]]:
        return FileMistakes, (self.name, self.mistakes)


def near(name: str, known: Sequence[str]) -> str:
    """What to say after an unknown name: the known one that was meant, or all there are."""
    if found := difflib.get_close_matches(name.lower(), known, 1):
        return f"did you mean {found[0]}?"
    if len(known) < 2:
        return f"there is only {known[0]}" if known else "there are none"
    return f"there are {', '.join(known)}"
