"""A worker with its fencing taken out: the chaos driver must find it out (tests/test_chaos.py).

Importing this module, as the place of the processor, changes the script in the worker's process alone.
"""

from __future__ import annotations

from redis_worker.broker import scripts
from redis_worker.builtin.arithmetic import sum_numbers

_FENCE = "if redis.call('LREM', KEYS[1], 1, raw) == 0 then"
_source = scripts.script("settle").source
assert _FENCE in _source, "settle.lua has changed: this test must follow"
# The answer is written, whether the worker still holds the task or not.
scripts._SCRIPTS["settle"] = scripts._script(_source.replace(_FENCE, _FENCE.replace("== 0", "== -1")))

unfenced = sum_numbers
