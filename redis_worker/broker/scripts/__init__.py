"""The Lua scripts, each a file headed by its KEYS and ARGV.

common.lua is put before each of them, and flows.lua before those that answer tasks.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

# The scripts that answer tasks, for which steps of flows may wait.
_ANSWERING = frozenset(("settle", "cancel", "park"))


class Script(NamedTuple):
    """A script and the digest by which the server knows it."""

    source: str
    digest: str


def _all_scripts() -> dict[str, Script]:
    texts = {
        file.name.removesuffix(".lua"): file.read_text(encoding="utf-8")
        for file in files(__package__).iterdir()
        if file.name.endswith(".lua")
    }
    common, flows = texts.pop("common"), texts.pop("flows")
    sources = {
        name: "\n".join((common, flows, text) if name in _ANSWERING else (common, text)) for name, text in texts.items()
    }
    # SHA-1, because EVALSHA knows scripts by it.
    return {name: Script(source, hashlib.sha1(source.encode()).hexdigest()) for name, source in sources.items()}  # noqa: S324


# Read when this is imported: a process that has no descriptor left later on must still be able to settle.
_SCRIPTS = _all_scripts()


def script(name: str) -> Script:
    """Return the script in the file `name`.lua."""
    return _SCRIPTS[name]
