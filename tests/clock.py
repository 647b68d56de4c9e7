"""The scripts with a clock that tests set: the server's time is replaced by a key."""

from __future__ import annotations

import hashlib

from redis_worker.broker.scripts import Script, script

CLOCK = "test:clock"
"""Key: microseconds since the epoch, by the clock of the scripts."""

_TIME = "redis.call('TIME')"
_READ = f"""
local function clock()
  local time = redis.call('GET', '{CLOCK}')
  return {{string.sub(time, 1, -7), string.sub(time, -6)}}
end
"""


def with_clock_in_a_key(names: list[str]) -> dict[str, Script]:
    """Return the scripts `names` with the clock in `CLOCK`: any number of digits of microseconds, from seven on."""
    changed = {}
    for name in names:
        source = _READ + script(name).source.replace(_TIME, "clock()")
        assert "'TIME'" not in source
        changed[name] = Script(source, hashlib.sha1(source.encode()).hexdigest())
    return changed
