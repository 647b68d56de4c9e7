"""The address to listen on, and its text form."""

from __future__ import annotations

import re
from typing import NamedTuple

from redis_worker.vocabulary.errors import ConfigurationError

_LOCAL = "127.0.0.1"
_FORM = re.compile(r"(?:(?:\[(?P<bracketed>[^\[\]\s]+)\]|(?P<host>[^:\[\]\s/]*)):)?(?P<port>[0-9]{1,5})")
_LAST_PORT = 65535


class HttpAddress(NamedTuple):
    """A host and a port to listen on; port 0 is any free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def http_address(text: str) -> HttpAddress:
    """Return the address in `HOST:PORT`; the default host is 127.0.0.1. Raises ConfigurationError."""
    found = _FORM.fullmatch(text.strip())
    if found is None or int(found["port"]) > _LAST_PORT:
        raise ConfigurationError(f"HTTP listens on HOST:PORT, as 127.0.0.1:8084 or [::1]:8084, not on {text!r}")
    return HttpAddress(found["bracketed"] or found["host"] or _LOCAL, int(found["port"]))
