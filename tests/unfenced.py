"""A worker with its fencing taken out: the chaos driver must find it out (tests/test_chaos.py).

Importing this module, as the place of the processor, changes the worker's process alone: results are written whether
the worker still holds their tasks or not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any

from redis_worker import processor
from redis_worker.broker import scripts
from redis_worker.broker.queue.at_least_once import AtLeastOnceQueue
from redis_worker.vocabulary.task import Outcome

_FENCE = "if forced and owned then return true end"
_source = scripts.script("settle").source
assert _FENCE in _source, "settle.lua has changed: this module must follow"
_text = _source.replace(_FENCE, "do return true end")
scripts._SCRIPTS["settle"] = scripts.Script(_text, hashlib.sha1(_text.encode()).hexdigest())

_settle = AtLeastOnceQueue.settle


async def _settle_all(queue: AtLeastOnceQueue, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    for outcome in outcomes:
        outcome.delivery.receipt.lost = False  # the worker may know by now that it was presumed dead
    return await _settle(queue, outcomes)


AtLeastOnceQueue.settle = _settle_all


@processor
async def unfenced(arguments: list[Any]) -> Any:
    """Take so long that a worker which is stopped has tasks running."""
    await asyncio.sleep(0.05)
    return arguments[0]
