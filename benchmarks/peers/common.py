"""The part that the programs of the Python peers share. It runs in their environments: the standard library only.

    python -m benchmarks.peers.common NAME push coroutine 1000
    python -m benchmarks.peers.common NAME ask function 1

`push` enqueues tasks, `ask` enqueues one and checks its result. A peer has `coroutine` and `function`, which add
three integers, or one of them, and `slow`, which reports its start and takes three seconds.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Coroutine
from typing import Any

URL = os.environ.get("PEER_URL", "redis://localhost")
"""The private server of the measurement."""
SLOW = 3.0
"""Seconds of the task `slow`."""
NUMBERS = [1, 2, 3]
_SUM = 6


def begin() -> None:
    """Report that a slow task has started."""
    with open(os.environ["PEER_STARTED"], "a", encoding="utf-8") as file:
        file.write("started\n")


def main() -> None:
    """Call `push` or `ask` of the peer's module."""
    peer, verb, name, count = sys.argv[1:]
    module = importlib.import_module(f"benchmarks.peers.{peer}")
    result = _finished(module.push(name, int(count)) if verb == "push" else module.ask(name))
    if verb == "ask" and result != _SUM:
        sys.exit(f"the result is {result!r}, not {_SUM}")


def _finished(result: Any) -> Any:
    if not asyncio.iscoroutine(result):
        return result
    coroutine: Coroutine[Any, Any, Any] = result
    return asyncio.run(coroutine)


if __name__ == "__main__":
    main()
