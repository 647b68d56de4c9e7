"""Parsers and processors by name: built in, offered by an installed package, or `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, NamedTuple

from redis_worker.ports import Parser, Processor
from redis_worker.vocabulary.errors import ConfigurationError
from redis_worker.vocabulary.processor import Declaration, declaration_of

_PROCESSORS = {
    "sum": "redis_worker.builtin.arithmetic:sum_numbers",
    "add100": "redis_worker.builtin.arithmetic:add100",
    "fibonacci": "redis_worker.builtin.arithmetic:fibonacci",
    "download": "redis_worker.builtin.download:download",
}
_PARSERS = {
    "list": "redis_worker.builtin.parsers:parse_list",
    "number": "redis_worker.builtin.parsers:parse_number",
    "any": "redis_worker.builtin.parsers:parse_any",
}


class Available(NamedTuple):
    """A processor that can be named on the command line."""

    name: str
    declaration: Declaration
    source: str
    """Where it comes from: "built in", or the distribution that offers it."""


def find_processor(name: str) -> Processor:
    """The processor called `name`. Raises ConfigurationError."""
    found: Processor = _find("processor", name, _PROCESSORS)
    return found


def find_parser(name: str) -> Parser:
    """The parser called `name`. Raises ConfigurationError."""
    found: Parser = _find("parser", name, _PARSERS)
    return found


def available_processors() -> Iterator[Available]:
    """The processors that have a name. One that cannot be loaded is left to `find_processor` to explain."""
    for name, place in _PROCESSORS.items():
        yield Available(name, declaration_of(_load("processor", name, place)), "built in")
    for point in entry_points(group="redis_worker.processors"):
        source = point.dist.name if point.dist else "entry point"
        try:
            declaration = declaration_of(point.load())
        except Exception as error:
            declaration = Declaration(point.name, "thread", summary=f"cannot be loaded: {error}")
        yield Available(point.name, declaration, source)


def _find(kind: str, name: str, builtin: Mapping[str, str]) -> Any:
    if place := builtin.get(name):
        return _load(kind, name, place)
    if ":" in name:
        return _load(kind, name, name)
    offered = {point.name: point for point in entry_points(group=f"redis_worker.{kind}s")}
    if point := offered.get(name):
        return _load(kind, name, point.value)
    known = [*builtin, *offered]
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}, or your own as module:function"
    raise ConfigurationError(f"unknown {kind} {name!r}: {hint}")


def _load(kind: str, name: str, place: str) -> Any:
    module_name, _, attribute = place.partition(":")
    if os.getcwd() not in sys.path:
        # A module of one's own lies in the working directory; the command's folder stands in its place.
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ConfigurationError(
                f"the {kind} {name!r}: no module named {error.name!r} in {os.getcwd()} or among the installed ones"
            ) from None
        raise ConfigurationError(_broken(kind, name, module_name, error)) from error
    except (Exception, SystemExit) as error:
        raise ConfigurationError(_broken(kind, name, module_name, error)) from error
    for part in attribute.strip().split("."):
        found = getattr(found, part, None)
    if not callable(found):
        known = [key for key, value in vars(sys.modules[module_name]).items() if callable(value)]
        near = difflib.get_close_matches(attribute, known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigurationError(f"the {kind} {name!r}: module {module_name} has no function {attribute!r}{hint}")
    return found


def _broken(kind: str, name: str, module: str, error: BaseException) -> str:
    where, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "importlib" not in file and not file.startswith("<"):
            where = f" at {file}:{trace.tb_lineno}"
        trace = trace.tb_next
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"the {kind} {name!r}: module {module} fails on import{where}: {text}"
