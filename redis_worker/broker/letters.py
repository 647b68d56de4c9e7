"""Dead letters: what could not be done, with the reason, as JSON."""

from __future__ import annotations

import base64
import time
from typing import Any

import orjson

from redis_worker.vocabulary.task import Outcome


def dead_letter(outcome: Outcome, worker: str) -> bytes:
    """The dead letter of `outcome`: the task byte for byte, why, after how many attempts, when and by whom.

    The task stands in `raw`, or, where its bytes are no UTF-8, in `raw_base64`.
    """
    raw = outcome.delivery.raw
    letter: dict[str, Any] = {}
    try:
        letter["raw"] = raw.decode()
    except UnicodeDecodeError:
        letter["raw_base64"] = base64.b64encode(raw).decode()
    letter |= {
        "id": outcome.id,
        "reason": (outcome.error or "").encode(errors="backslashreplace").decode(),
        "attempts": outcome.delivery.attempt,
        "at": round(time.time(), 3),
        "worker": worker,
    }
    return orjson.dumps(letter)
