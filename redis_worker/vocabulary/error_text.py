"""Text of exceptions: safe for every exception, and bounded."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

from redis_worker.vocabulary.errors import RaisedInProcess

T = TypeVar("T")

# Frames from these folders are not user code.
_LIBRARIES = (str(Path(__file__).parent.parent), str(Path(traceback.__file__).parent), "<")

LONGEST = 10_000
"""The maximum length of an error's text, in characters."""
# Errors of an exception group that its text names.
_LEAVES = 10
# Nested groups that are searched.
_DEPTH = 50


def error_text(error: BaseException, named: bool = False) -> str:
    """Return the message of `error`, after the name of its type if the message alone does not explain it.

    `named` always adds the name. The errors in an exception group follow its message. Never raises, and returns about
    LONGEST characters at most.
    """
    text = _single(error, named)
    if not is_a(error, BaseExceptionGroup):
        return text
    try:
        leaves = list(_leaves(error, _DEPTH))
    except BaseException:  # a group may replace the attribute that holds its errors
        return text
    text = f"{text}: {'; '.join(_single(leaf, True) for leaf in leaves[:_LEAVES])}"
    return cut(text + (f"; and {len(leaves) - _LEAVES} more" if len(leaves) > _LEAVES else ""))


def traceback_text(error: BaseException) -> str:
    """Return the traceback of `error`, as Python prints it, or one line if that fails. Never raises."""
    try:
        return cut("".join(traceback.format_exception(error)).rstrip())
    except BaseException:  # an exception may replace everything that the formatting reads
        return error_text(error, named=True)


def user_traceback(error: BaseException) -> str:
    """Return the traceback of `error` from the first line of user code on. Never raises."""
    try:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None and _is_of_library(trace.tb_frame.f_code.co_filename):
            trace = trace.tb_next
        return cut("".join(traceback.format_exception(type(error), error, trace)).rstrip())
    except BaseException:  # see above
        return error_text(error, named=True)


def _is_of_library(file: str) -> bool:
    return file.startswith(_LIBRARIES[0])


def is_a(error: Any, kind: type[T]) -> TypeGuard[T]:
    """Return True if `error` is of that type. isinstance() also reads the attribute `__class__`, which may raise."""
    return issubclass(type(error), kind)


def raised_at(error: BaseException) -> str:
    """Return the type of `error` and the innermost line of user code, as `KeyError at shop/tasks.py:12`."""
    if is_a(error, RaisedInProcess):
        return error.place
    try:
        lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    except BaseException:  # an exception may replace everything read here
        lines = []
    user_lines = [line for line in lines if not line[0].startswith(_LIBRARIES) and "site-packages" not in line[0]]
    if not user_lines:
        return _name(error)
    file, line = user_lines[-1]
    return f"{_name(error)} at {'/'.join(Path(file).parts[-2:])}:{line}"


def cut(text: str) -> str:
    """Return `text`, with a mark in place of its middle if it is longer than LONGEST characters."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … [{len(text) - 2 * half} characters are left out] … {text[-half:]}"


def _single(error: BaseException, named: bool) -> str:
    name, message = _name(error), _message(error)
    if not message:
        return name
    is_sentence = (" " in message or message[0].isalpha()) and not is_a(error, KeyError)
    return cut(f"{name}: {message}" if named or not is_sentence else message)


def _name(error: BaseException) -> str:
    try:
        return str.__str__(type(error).__name__)
    except BaseException:  # a metaclass may replace the name
        return "an exception without a name"


def _message(error: BaseException) -> str:
    """Return str(error) as a plain string that UTF-8 can encode; empty if it raises."""
    try:
        text = str(error)
        # A lone surrogate can neither be stored nor logged.
        return cut(str.encode(text, errors="backslashreplace").decode())
    except BaseException:  # __str__ is code of the exception's author
        return ""


def _leaves(error: BaseException, depth: int) -> Iterator[BaseException]:
    if is_a(error, BaseExceptionGroup) and depth:
        for inner in error.exceptions:
            yield from _leaves(inner, depth - 1)
    else:
        yield error
