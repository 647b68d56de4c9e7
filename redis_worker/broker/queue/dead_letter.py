"""Dead letters: JSON objects with a failed task and the reason."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import orjson

from redis_worker.vocabulary.error_text import is_a, user_traceback
from redis_worker.vocabulary.errors import RaisedInProcess, RedisWorkerError
from redis_worker.vocabulary.priorities import DEFAULT
from redis_worker.vocabulary.task import Outcome

# Parts kept in a cut letter, of the task, and of its id and the reason: every server accepts 1 MiB.
_START = 64 * 1024
_TEXT = 10_000
# No server accepts more unless its limit was raised (proto-max-bulk-len), and sending it takes time.
_LARGEST = 512 * 1024 * 1024


def dead_letter(outcome: Outcome, worker: str, *, cut: bool = False, priority: str = DEFAULT) -> bytes:
    """Return the dead letter of `outcome`: the task byte for byte, reason, attempts, time, worker, and the traceback.

    A priority other than `default` is a member, too.

    The task is in `raw`, or in `raw_base64` if it is not UTF-8. A letter that is `cut`, for a server that refuses the
    whole one, has only its beginning in `raw_start`, with its size and digest.
    """
    raw, id, reason = outcome.delivery.raw, outcome.id, (outcome.error or "").encode(errors="backslashreplace").decode()
    letter: dict[str, Any] = {}
    if cut:
        letter["raw_start"] = raw[:_START].decode(errors="replace")
        letter |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        id, reason = id and id[:_TEXT], reason[:_TEXT]
    else:
        letter |= raw_members(raw)
    letter |= {
        "id": id,
        "reason": reason,
        "attempts": outcome.delivery.attempt,
        "at": round(time.time(), 3),
        "worker": worker,
    }
    if priority != DEFAULT:
        letter["priority"] = priority
    if not cut and (trace := _trace(outcome.exception)) is not None:
        letter["trace"] = trace
    written = orjson.dumps(letter)
    return written if cut or len(written) <= _LARGEST else dead_letter(outcome, worker, cut=True, priority=priority)


def _trace(error: BaseException | None) -> str | None:
    """Return the traceback of what a function raised; None for a refusal, whose reason says all."""
    if error is None or (is_a(error, RedisWorkerError) and not is_a(error, RaisedInProcess)):
        return None
    text = str(error) if is_a(error, RaisedInProcess) else user_traceback(error)
    return text.encode(errors="backslashreplace").decode() if "\n" in text else None


def raw_members(raw: bytes) -> dict[str, str]:
    """Return the member that holds a task: `raw`, or `raw_base64` if it is not UTF-8."""
    try:
        return {"raw": raw.decode()}
    except UnicodeDecodeError:
        return {"raw_base64": base64.b64encode(raw).decode()}
