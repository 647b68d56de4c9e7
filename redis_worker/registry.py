"""Parsers and processors by name: built in, from an installed package, or `module:attribute`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, NamedTuple

from redis_worker.engine.lifespan import Lifespan, LifespanFunction
from redis_worker.ports import Parser, Processor
from redis_worker.vocabulary.error_text import error_text
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


# Files of an import itself.
_NOT_THERE = (__file__, importlib.__file__)


class Available(NamedTuple):
    """A processor available by name on the command line."""

    name: str
    declaration: Declaration
    source: str
    """Its origin: "built in", or the distribution that provides it."""


def find_processor(name: str) -> Processor:
    """Return the processor called `name`. Raises ConfigurationError."""
    found: Processor = _find("processor", name, _PROCESSORS)
    return found


def find_parser(name: str) -> Parser:
    """Return the parser called `name`. Raises ConfigurationError."""
    found: Parser = _find("parser", name, _PARSERS)
    return found


def find_function(kind: str, name: str) -> Callable[..., Any]:
    """Return the function at `name` (module:function); errors call it a `kind`. Raises ConfigurationError."""
    found: Callable[..., Any] = _load(kind, name, name)
    return found


def find_object(kind: str, name: str) -> Any:
    """Return the object at `name` (module:attribute), callable or not. Raises ConfigurationError."""
    return _load(kind, name, name, callable_only=False)


def find_lifespan(name: str | None) -> LifespanFunction | None:
    """Return the lifespan at `name` (module:function), None for None. Raises ConfigurationError."""
    if name is None:
        return None
    found: LifespanFunction = find_function("lifespan", name)
    Lifespan(found)
    return found


def available_processors() -> Iterator[Available]:
    """Yield the named processors. The summary of one that fails to load holds the error."""
    for name, place in _PROCESSORS.items():
        yield Available(name, declaration_of(_load("processor", name, place)), "built in")
    for point in entry_points(group="redis_worker.processors"):
        source = point.dist.name if point.dist else "entry point"
        try:
            declaration = declaration_of(_load("processor", point.name, _place(point)))
        except ConfigurationError as error:
            declaration = Declaration(point.name, "thread", summary=f"cannot be used: {error}")
        yield Available(point.name, declaration, source)


def _find(kind: str, name: str, builtin: Mapping[str, str]) -> Any:
    if place := builtin.get(name):
        return _load(kind, name, place)
    if ":" in name:
        return _load(kind, name, name)
    offered = {point.name: point for point in entry_points(group=f"redis_worker.{kind}s")}
    if point := offered.get(name):
        return _load(kind, name, _place(point))
    raise ConfigurationError(f"unknown {kind} {name!r}: {_hint(name, [*builtin, *offered])}")


def _place(point: EntryPoint) -> str:
    return f"{point.module}:{point.attr}"


def _hint(name: str, known: Sequence[str]) -> str:
    if near := difflib.get_close_matches(name.lower(), known, 1):
        return f"did you mean {near[0]}?"
    module, dot, function = name.rpartition(".")
    if dot and function != "py":
        return f"did you mean {module}:{function}?"
    return f"there are {', '.join(known)}, or your own as module:function"


def _load(kind: str, name: str, place: str, *, callable_only: bool = True) -> Any:
    """Return the object at `place` (module:attribute). Raises ConfigurationError."""
    module, _, path = (part.strip() for part in place.partition(":"))
    try:
        if not module or not path:
            raise ConfigurationError("write it as module:function" if callable_only else "write it as module:name")
        found = _attribute(_imported(module, path), module, path, "function" if callable_only else "variable")
        if callable_only and not callable(found):
            of_type = type(found).__name__
            raise ConfigurationError(f"{path} in module {module} is of type {of_type}, which cannot be called")
        return found
    except ConfigurationError as error:
        raise ConfigurationError(f"the {kind} {name!r}: {error}") from error.__cause__


def _imported(name: str, path: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        # User modules lie in the working directory; sys.path holds the command's folder instead.
        sys.path.insert(0, os.getcwd())
    dotted = os.path.normpath(name).removesuffix(".py").replace("/", ".").lstrip(".")
    if "/" in name or name.startswith("."):
        raise ConfigurationError(f"{name!r} is a path, not a module; did you mean {dotted}:{path}?")
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if name == "__main__" and spec is not None and spec.name.startswith("redis_worker."):
        raise ConfigurationError("__main__ is a program of redis_worker here; name the module by its file's name")
    try:
        return _running_program(name) or importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a module may call sys.exit(), or raise any BaseException
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if not missing or not f"{name}.".startswith(f"{missing}."):
            raise ConfigurationError(f"module {name} fails on import{_where(error)}: {_text(error)}") from error
    hint = f"; did you mean {dotted}:{path}?" if name.endswith(".py") else ""
    raise ConfigurationError(f"no module named {missing!r} in {os.getcwd()} or among the installed ones{hint}")


def _running_program(name: str) -> ModuleType | None:
    """Return `__main__` if it is the module `name`: importing that would run the program a second time."""
    main = sys.modules["__main__"]
    if name in sys.modules or not _is_file_of(main, name):
        return None
    sys.modules[name] = main  # later imports get the same module
    return main


def _is_file_of(main: ModuleType, name: str) -> bool:
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:  # python -m
        return bool(spec.name == name)
    if file is None or Path(file).stem != name.rpartition(".")[2]:
        return False
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None and os.path.samefile(found.origin, file)


def _attribute(module: ModuleType, name: str, path: str, noun: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            known = [name for name, value in vars(module).items() if callable(value)]
            near = difflib.get_close_matches(path, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if module is sys.modules["__main__"]:
                hint += "; it is the running program, and may define it further down"
            raise ConfigurationError(f"module {name} has no {noun} {path!r}{hint}") from None
    return found


def _text(error: BaseException) -> str:
    return " ".join(error_text(error, named=True).split())


def _where(error: BaseException) -> str:
    """Return the line that raised `error`, or nothing if the import itself did."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" at {error.filename}:{error.lineno}"
    places = [(frame.f_code.co_filename, line) for frame, line in walk_tb(error.__traceback__)]
    lines = [f" at {file}:{line}" for file, line in places if file not in _NOT_THERE and not file.startswith("<")]
    return lines[-1] if lines else ""
