"""The list of mutants, mutants.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = Path(__file__).parent / "mutants.toml"

# The places where a lost or repeated task begins: at least `REQUIRED` of the mutants here must die.
_CORE = (
    "broker/scripts/", "broker/queue/", "engine/settler.py", "engine/claimer.py", "engine/retry.py",
)  # fmt: skip
REQUIRED = 0.9


class WrongList(Exception):
    """An entry of the list that cannot be used; the text names the mutant."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A small change of one file that breaks a promise."""

    name: str
    promise: str
    """The broken promise."""
    file: str
    """Path below `redis_worker/`."""
    old: str
    """The replaced text, which occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Arguments of pytest: the tests that must notice."""
    alive: str = ""
    """The reason why no test can notice; empty for a mutant that must die."""

    @property
    def core(self) -> bool:
        """True if the mutant counts towards `REQUIRED`."""
        return self.file.startswith(_CORE)

    def applied_to(self, source: str) -> str:
        """Return the mutated `source`. Raises WrongList if the old text does not occur exactly once."""
        if (count := source.count(self.old)) != 1:
            raise WrongList(f"{self.name}: the old text occurs {count} times in redis_worker/{self.file}, not once")
        return source.replace(self.old, self.new)


def mutants() -> list[Mutant]:
    """Return all mutants, in the order of the list. Raises WrongList."""
    entries = tomllib.loads(LIST.read_text(encoding="utf-8"))
    return [_mutant(name, entry) for name, entry in entries.items()]


def _mutant(name: str, entry: dict[str, str | list[str]]) -> Mutant:
    try:
        found = Mutant(name=name, **{**entry, "tests": tuple(entry["tests"])})  # type: ignore[arg-type]
    except (KeyError, TypeError) as error:
        raise WrongList(f"{name}: {error}") from None
    if found.old == found.new or not found.old or not found.tests:
        raise WrongList(f"{name}: it changes nothing, or is aimed at by no test")
    return found
