"""The Lua scripts, each a file headed by its KEYS and ARGV."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script and the digest by which the server knows it."""

    source: str
    digest: str


@cache
def script(name: str) -> Script:
    """The script in the file `name`.lua."""
    source = files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    return Script(source, hashlib.sha1(source.encode()).hexdigest())  # noqa: S324 - the name EVALSHA knows it by
