"""Dead letters: what could not be done, with the reason, as JSON."""

from __future__ import annotations

import base64
import hashlib
import time
from typing import Any

import orjson

from redis_worker.vocabulary.task import Outcome

# So much is kept of a task, of its id and of the reason in a letter that is cut: every server takes 1 MiB.
_START = 64 * 1024
_TEXT = 10_000
# No server takes more, unless somebody has raised its limit (proto-max-bulk-len), and sending it takes its time.
_LARGEST = 512 * 1024 * 1024


def dead_letter(outcome: Outcome, worker: str, *, cut: bool = False) -> bytes:
    """Return the dead letter of `outcome`: the task byte for byte, why, after how many attempts, when and by whom.

    The task stands in `raw`, or, where its bytes are no UTF-8, in `raw_base64`. In a letter that is `cut`, for a server
    that does not take the whole one, its beginning stands in `raw_start`, with its size and digest beside it.
    """
    raw, id, reason = outcome.delivery.raw, outcome.id, (outcome.error or "").encode(errors="backslashreplace").decode()
    letter: dict[str, Any] = {}
    if cut:
        letter["raw_start"] = raw[:_START].decode(errors="replace")
        letter |= {"size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
        id, reason = id and id[:_TEXT], reason[:_TEXT]
    else:
        try:
            letter["raw"] = raw.decode()
        except UnicodeDecodeError:
            letter["raw_base64"] = base64.b64encode(raw).decode()
    letter |= {
        "id": id,
        "reason": reason,
        "attempts": outcome.delivery.attempt,
        "at": round(time.time(), 3),
        "worker": worker,
    }
    written = orjson.dumps(letter)
    return written if cut or len(written) <= _LARGEST else dead_letter(outcome, worker, cut=True)
