"""The parsers: from the member `task` to a processor's arguments."""

from __future__ import annotations

from typing import Any

from redis_worker.vocabulary.payload import json_type


def parse_list(task: Any) -> list[Any]:
    """Return a list as the arguments."""
    if type(task) is list:
        return task
    raise ValueError(f"task should be a list, got {json_type(task)}")


def parse_number(task: Any) -> list[Any]:
    """Return one number as the only argument; a boolean is no number."""
    # By type, since isinstance(True, int) holds.
    if type(task) is int or type(task) is float:
        return [task]
    raise ValueError(f"task should be a number, got {json_type(task)}")


def parse_any(task: Any) -> list[Any]:
    """Return any JSON value as the only argument."""
    return [task]
