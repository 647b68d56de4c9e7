"""Substitution of `${VAR}` in the strings of a file; values may be secrets, so messages never quote them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from redis_worker.environment import secret_of_file
from redis_worker.file.lines import KeyPath
from redis_worker.vocabulary.errors import ConfigurationError

_PLACE = re.compile(r"\$\$\{|\$\{(?P<inside>[^}]*)(?P<end>\}?)")
_INSIDE = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)


Variables: TypeAlias = Mapping[KeyPath, Mapping[str, str]]
"""The set variables in each string, with their values, by the path of the string."""

# A shorter part of a value is replaced in messages only within quotes.
_SHORTEST = 4


class Substituted(str):
    """A string from the environment, which may represent a number or a boolean."""

    __slots__ = ("source", "variables")

    source: str
    """The string as written in the file, for messages."""
    variables: Mapping[str, str]
    """Its set variables, and their values."""

    def __new__(cls, text: str, source: str, variables: Mapping[str, str]) -> Substituted:
        new = super().__new__(cls, text)
        new.source, new.variables = source, variables
        return new

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str(self),)


class Unset:
    """The placeholder for a string with an unset variable."""


UNSET: Final = Unset()


def substitute(value: Any, environment: Mapping[str, str], path: KeyPath = ()) -> tuple[Any, dict[KeyPath, str]]:
    """Return `value` with the variables in its strings substituted, and the mistakes by path.

    `${VAR}` is a variable, `${VAR:-default}` one that may be unset or empty, and `$${` a plain `${`. An unset variable
    may be in a file, which `VAR_FILE` names.
    """
    mistakes: dict[KeyPath, str] = {}

    def walk(value: Any, path: KeyPath) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [walk(item, (*path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            text, variables = _filled(value, environment)
        except (ValueError, ConfigurationError) as error:
            mistakes[path] = str(error)
            return UNSET
        return text if variables is None else Substituted(text, value, variables)

    return walk(value, path), mistakes


def variables_of(value: Any, path: KeyPath = ()) -> Variables:
    """Return the variables in all strings of `value`, by path."""
    if isinstance(value, Substituted):
        return {path: value.variables}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {where: found for key, item in items for where, found in variables_of(item, (*path, key)).items()}


def unquoted(text: str, path: KeyPath, variables: Variables) -> str:
    """Return `text`, a message about `path`, with `${NAME}` in place of the variables' values."""
    for where, contents in variables.items():
        if where[: len(path)] == path:
            for name, content in contents.items():
                text = _without(text, name, content)
    return text


def _without(text: str, name: str, content: str) -> str:
    parts = {content, *re.split(r"[^\w-]+", content)}
    for part in sorted(parts, key=len, reverse=True):
        quoted = (repr(part), json.dumps(part, ensure_ascii=False), f"'{part}'", f'"{part}"') if part else ()
        inner = [form[1:-1] for form in quoted if len(part) >= _SHORTEST]
        for form in (*quoted, *inner):
            text = text.replace(form, f"${{{name}}}")
    return text


def _filled(text: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str] | None]:
    """Return `text` with variables substituted, and the set variables; None if `text` has none.

    Raises ValueError.
    """
    variables: dict[str, str] | None = None

    def fill(found: re.Match[str]) -> str:
        nonlocal variables
        if found[0] == "$${":
            return "${"
        variables = variables or {}
        return _variable(found, environment, variables)

    return _PLACE.sub(fill, text), variables


def _variable(found: re.Match[str], environment: Mapping[str, str], variables: dict[str, str]) -> str:
    if not found["end"]:
        raise ValueError("${ has no closing }; write a plain ${ as $${")
    inside = _INSIDE.fullmatch(found["inside"])
    if inside is None or "${" in found["inside"]:
        raise ValueError(f"{found[0]} is not a variable: write ${{NAME}} or ${{NAME:-default}}, a plain ${{ as $${{")
    name, default = inside["name"], inside["default"]
    value = environment.get(name)
    if not value:
        value = secret_of_file(environment, name) or value
    if value:
        variables[name] = value
    if default is not None:
        return value or default
    if value is None:
        raise ValueError(f"the variable {name} is not set and has no default: write ${{{name}:-default}}")
    return value
