"""The failure of a part, in the form that logs and status show."""

from __future__ import annotations

from pathlib import Path

from redis_worker.vocabulary.error_text import error_text, is_a
from redis_worker.vocabulary.errors import RedisWorkerError

_HERE = str(Path(__file__).parent.parent)


def without_ours(error: BaseException) -> BaseException:
    """`error`, and in its traceback nothing of how this library came to call what raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_HERE):
        trace = trace.tb_next
    return error.with_traceback(trace)


def one_line(error: BaseException) -> str:
    """Return the text of `error` as one line, with its type where it is none of the library's own."""
    return " ".join(error_text(error, named=not is_a(error, RedisWorkerError)).split())
