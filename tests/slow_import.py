"""A module that takes its time to be imported, where a test says so."""

from __future__ import annotations

import os
import time
from typing import Any

if os.environ.get("SLOW_IMPORT"):
    print("importing", flush=True)
    time.sleep(1)


def answer(arguments: list[Any]) -> Any:
    return arguments
