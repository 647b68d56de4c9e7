"""The gate: which requests may read, and which may change something."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

PROTOCOL: Final = "redis_worker"
"""The WebSocket subprotocol; a client that sends a token in another one offers it as well."""
_TOKEN_PROTOCOL = "bearer."  # noqa: S105 - not a password
# A proxy on this machine adds one of them: its clients are elsewhere.
_OF_PROXIES = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")


class Gate:
    """The rules of access: a token, and for reading also a client on this machine."""

    def __init__(self, token: str | None, origins: Sequence[str] = ()) -> None:
        """`origins` are those of foreign pages that may connect, as `https://shop.example`."""
        self._token = token
        self._origins = frozenset(origins)

    @property
    def has_token(self) -> bool:
        """True if there is a token: without one nothing can be changed."""
        return self._token is not None

    def bears_token(self, request: web.Request) -> bool:
        """Return True if the request has the token, in the header Authorization or in a WebSocket subprotocol."""
        if self._token is None:
            return False
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        tokens = [sent.strip().encode(errors="surrogateescape")] if scheme.lower() == "bearer" else []
        tokens += _of_protocols(request.headers.get("Sec-WebSocket-Protocol", ""))
        # As bytes, because clients may send any character; compared in constant time.
        return any([hmac.compare_digest(token, self._token.encode()) for token in tokens])  # noqa: C419 - all of them

    def is_open_to(self, request: web.Request) -> bool:
        """Return True if the request has the token, or none is needed."""
        return self._token is None or self.bears_token(request)

    def may_read(self, request: web.Request) -> bool:
        """Return True if the request may see payloads: it bears the token, or comes from this machine."""
        return self.bears_token(request) or is_local(request)

    def is_of_known_origin(self, request: web.Request) -> bool:
        """Return True unless a page of another origin has sent the request: a browser names the origin."""
        origin = request.headers.get("Origin")
        return origin is None or origin in self._origins or urlsplit(origin).netloc == request.host


def is_of_foreign_page(request: web.Request) -> bool:
    """Return True if a browser has sent the request for a page of elsewhere, as an image or a script of it."""
    return request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none")


def is_local(request: web.Request) -> bool:
    """Return True if the request comes from this machine, for this machine, and not through a proxy.

    The name in Host is compared too: a foreign page can have its own name resolve to 127.0.0.1 (DNS rebinding).
    """
    if request.transport is None or any(header in request.headers for header in _OF_PROXIES):
        return False
    ends = (request.transport.get_extra_info(end) for end in ("sockname", "peername"))
    host = urlsplit(f"//{request.host}").hostname or ""
    return all(end and _is_loopback(end[0]) for end in ends) and (host == "localhost" or _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _of_protocols(offered: str) -> list[bytes]:
    """Return the tokens among subprotocols: base64url, without padding, for they hold no other characters."""
    found = []
    for protocol in offered.split(","):
        if protocol.strip().startswith(_TOKEN_PROTOCOL):
            text = protocol.strip().removeprefix(_TOKEN_PROTOCOL)
            try:
                found.append(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
            except binascii.Error:
                pass
    return found
