"""The signature of a function: arguments of a call to JSON, and back with their types."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Any, TypeAlias, get_type_hints

import msgspec

from redis_worker.functions.values import argument_to_json, from_json, problem_of, reader_of, to_json
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.payload import json_type

_astuple = msgspec.structs.astuple
# Values of these types are JSON, and are read as they are.
_PLAIN = (int, str, bool, float)
_MISSING = re.compile(r"Object missing required field `([^`]+)`$")
_AT = re.compile(r"^(?P<text>.*) - at `(?:key in )?\$\.(?P<name>\w+)(?P<inside>[^`]*)`$", re.DOTALL)


Arguments: TypeAlias = tuple[Sequence[Any], Mapping[str, Any]]
"""The arguments of one call, by position and by name."""


class Signature:
    """The parameters of a function, with the types of its annotations; a parameter without one takes any value."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """`name` is that of the function, in errors.

        Raises ConfigurationError if an annotation cannot be resolved, or its type has no form in JSON.
        """
        self._name = name
        self._signature = inspect.signature(function)
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception as error:
            raise ConfigurationError(f"function {name}: an annotation cannot be resolved: {error}") from None
        self.result: Any = hints.get("return", Any)
        """The type of the result."""
        parameters = self._signature.parameters.values()
        of_kind = {kind: [p.name for p in parameters if p.kind is kind] for kind in {p.kind for p in parameters}}
        self._only_positional = of_kind.get(Parameter.POSITIONAL_ONLY, [])
        self._positional = [*self._only_positional, *of_kind.get(Parameter.POSITIONAL_OR_KEYWORD, [])]
        self._only_named = of_kind.get(Parameter.KEYWORD_ONLY, [])
        self._rest = next(iter(of_kind.get(Parameter.VAR_POSITIONAL, [])), None)
        self._named_rest = next(iter(of_kind.get(Parameter.VAR_KEYWORD, [])), None)
        for parameter in parameters:
            self._check(f"parameter {parameter.name}", hints.get(parameter.name, Any))
        self._check("the result", self.result)
        self._struct = msgspec.defstruct(
            "Arguments",
            [_field(f"p{n}", parameter, hints.get(parameter.name, Any)) for n, parameter in enumerate(parameters)],
            forbid_unknown_fields=True,
            kw_only=True,
        )
        self._order = [parameter.name for parameter in parameters]
        is_simple = self._order == self._positional
        kinds = [(f"p{n}", hints.get(name, Any)) for n, name in enumerate(self._order)]
        self._read_all = reader_of(msgspec.defstruct("Arguments", kinds, array_like=True)) if is_simple else None
        """Reads all arguments, if they can all be given by position: msgspec keeps what it knows of a Struct."""
        types = [hints.get(name) for name in self._order]
        self._plain = types if is_simple and all(kind in _PLAIN for kind in types) else None
        """The types of all arguments, if they can all be given by position, and values of these types are JSON."""

    def _check(self, what: str, kind: Any) -> None:
        if (problem := problem_of(kind)) is not None:
            shown = inspect.formatannotation(kind)
            raise ConfigurationError(f"function {self._name}: {what} of type {shown} cannot be sent: {problem}")

    def written(self, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the members `args` and `kwargs` of a task. Raises TypeError if the function does not take them."""
        try:
            self._signature.bind(*positional, **named)
        except TypeError as error:
            raise TypeError(f"{self._name}: {error}") from None
        return {
            "args": [argument_to_json(value) for value in positional],
            "kwargs": {name: argument_to_json(value) for name, value in named.items()},
        }

    def complete(self, positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments `written`, each by its name, with the defaults: the same for the same call."""
        bound = self._signature.bind(*positional, **named)
        bound.apply_defaults()
        return {name: to_json(value) for name, value in bound.arguments.items()}

    def read(self, positional: Any, named: Any) -> Arguments:
        """Return the arguments of a task. Raises ValueError, which names the argument and the expected type."""
        is_simple = not named and type(positional) is list
        if is_simple and [*map(type, positional)] == self._plain:
            return positional, named
        if is_simple and self._read_all and len(positional) == len(self._order):
            try:
                return _astuple(self._read_all(positional)), named
            except ValueError:
                pass  # the long way names the argument
        given = self._by_name(positional, named)
        try:
            values = _astuple(from_json(given, self._struct))
        except ValueError as error:
            raise ValueError(f"{self._name}: {_readable(str(error))}") from None
        count = len(self._positional)
        if self._rest is None and len(values) == count:
            return values, {}
        by_name = dict(zip(self._order, values, strict=True))
        rest = by_name[self._rest] if self._rest is not None else []
        return (
            [*values[:count], *rest],
            {name: by_name[name] for name in self._only_named} | by_name.get(self._named_rest or "", {}),
        )

    def _by_name(self, positional: Any, named: Any) -> dict[str, Any]:
        """Return the arguments by the names of their parameters. Raises ValueError."""
        if type(positional) is not list:
            raise ValueError(f"{self._name}: args is {json_type(positional)}, not a list")
        if type(named) is not dict:
            raise ValueError(f"{self._name}: kwargs is {json_type(named)}, not an object")
        most = len(self._positional)
        given = dict(zip(self._positional, positional, strict=False))
        if self._rest is not None:
            given[self._rest] = positional[most:]
        elif len(positional) > most:
            raise ValueError(f"{self._name}: takes {most} arguments by position, got {len(positional)}")
        others = {}
        for name, value in named.items():
            if name in given and name in self._positional and name not in self._only_positional:
                raise ValueError(f"{self._name}: argument {name} is given twice")
            if name in self._only_named or (name in self._positional and name not in self._only_positional):
                given[name] = value
            elif self._named_rest is not None:
                others[name] = value
            else:
                raise ValueError(f"{self._name}: takes no argument {name} by name")
        if self._named_rest is not None:
            given[self._named_rest] = others
        return given


def _field(name: str, parameter: Parameter, kind: Any) -> tuple[str, Any, Any]:
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return name, list[kind], msgspec.field(name=parameter.name)
    if parameter.kind is Parameter.VAR_KEYWORD:
        return name, dict[str, kind], msgspec.field(name=parameter.name)
    if parameter.default is Parameter.empty:
        return name, kind, msgspec.field(name=parameter.name)
    default = parameter.default
    return name, kind, msgspec.field(name=parameter.name, default_factory=lambda: default)


def _readable(text: str) -> str:
    """Return an error of msgspec with the argument at its beginning."""
    if found := _MISSING.match(text):
        return f"argument {found[1]} is missing"
    if found := _AT.match(text):
        inside = f" (at {found['inside']})" if found["inside"] else ""
        message = found["text"].replace("`", "")
        return f"argument {found['name']}{inside}: {message[:1].lower()}{message[1:]}"
    return text.replace("`", "")
