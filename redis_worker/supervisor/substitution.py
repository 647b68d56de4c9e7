"""`${VAR}` in the texts of a file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from redis_worker.supervisor.lines import Path

_PLACE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


class Substituted(str):
    """A text that came out of the environment: it may stand for a number or a boolean."""

    __slots__ = ()


class Unset:
    """In place of a text whose variable is not set."""


UNSET: Final = Unset()


def substitute(value: Any, environment: Mapping[str, str], path: Path = ()) -> tuple[Any, dict[Path, str]]:
    """`value` with variables in place in all texts of it, and what is wrong with them, by their paths.

    `${VAR}` is a variable, `${VAR:-default}` one that may be unset or empty, and `$${` is a plain `${`.
    """
    mistakes: dict[Path, str] = {}

    def walk(value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            text, variables = _filled(value, environment)
        except ValueError as error:
            mistakes[path] = str(error)
            return UNSET
        return Substituted(text) if variables else text

    return walk(value, path), mistakes


def _filled(text: str, environment: Mapping[str, str]) -> tuple[str, int]:
    """`text` with variables in place, and how many. Raises ValueError."""
    variables = 0

    def fill(found: re.Match[str]) -> str:
        nonlocal variables
        if found[0] == "$${":
            return "${"
        variables += 1
        return _variable(found, environment)

    return _PLACE.sub(fill, text), variables


def _variable(found: re.Match[str], environment: Mapping[str, str]) -> str:
    if not found["end"]:
        raise ValueError("${ is not closed by }; a plain ${ is written $${")
    inside = _INSIDE.fullmatch(found["inside"])
    if inside is None or "${" in found["inside"]:
        raise ValueError(f"{found[0]} is no variable: write ${{NAME}} or ${{NAME:-default}}, and a plain ${{ as $${{")
    name, default = inside["name"], inside["default"]
    value = environment.get(name)
    if default is not None:
        return value or default
    if value is None:
        raise ValueError(f"the variable {name} is not set, and there is no default, as in ${{{name}:-…}}")
    return value
