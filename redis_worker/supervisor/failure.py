"""The failure of a part, in the form that logs and status show."""

from __future__ import annotations

from pathlib import Path

from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import RedisWorkerError
from redis_worker.vocabulary.service import PartStatus

_PACKAGE = str(Path(__file__).parent.parent)


def without_own_frames(error: BaseException) -> BaseException:
    """Return `error` without the library's own frames at the start of its traceback."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        trace = trace.tb_next
    return error.with_traceback(trace)


def one_line(error: BaseException) -> str:
    """Return the text of `error` in one line, with its type unless it is an error of the library."""
    return " ".join(error_text(error, named=not is_a(error, RedisWorkerError)).split())


def failure_of(part: PartStatus) -> str:
    """Return the failure of `part` as a sentence without a period."""
    return f"{part.name} has failed ({part.error})"
