"""The processor `download`: one file over HTTP, whole or not at all.

Every writer to the queue chooses URLs and paths, so neither is trusted: files stay in one directory, and
link-local addresses, where clouds keep a machine's credentials, are refused, as loopback and private ones
are on request.
Proxies of the environment are ignored, since they would connect to an unchecked address.
The network modules are imported where they are used: they take longer to load than the rest.
"""

from __future__ import annotations

import io
import os
import re
import string
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from redis_worker.builtin import limits
from redis_worker.builtin.files import DownloadError, exists, place_of, store
from redis_worker.vocabulary.payload import json_type
from redis_worker.vocabulary.processor import checked_by, processor

if TYPE_CHECKING:
    import ipaddress
    import socket
    import ssl
    from http.client import HTTPResponse
    from urllib.parse import SplitResult

DOWNLOADED = "Downloaded successfully"
SKIPPED = "File already exists, skipping download"

_PORTS = {"http": 80, "https": 443}
_SILENCE = 30.0  # seconds that a server may take to accept a connection or to send its next bytes
_REDIRECTS = 10
_PIECE = 1 << 16
# Prefixes of IPv6 addresses with an IPv4 address in their last 32 bits: compatible, mapped,
# translated and NAT64.
_IPV4_CARRIERS = (0, 0xFFFF, 0xFFFF0000, 0x64FF9B << 64)


@checked_by(limits.check)
@processor(execution="thread")
def download(arguments: list[Any]) -> str:
    """Download a file, given a list of its http(s) URL and the path to store it at."""
    if len(arguments) != 2:
        raise ValueError(f"download takes a URL and a path, got {len(arguments)} arguments")
    for name, argument in zip(("URL", "path"), arguments, strict=True):
        if type(argument) is not str:
            raise ValueError(f"the {name} should be a string, got {json_type(argument)}")
    url, (base, place) = _checked(arguments[0]), place_of(arguments[1])
    max_bytes, clock = limits.max_bytes(), _Clock(limits.seconds())
    if exists(os.path.join(base, place)):
        return SKIPPED
    with _following(url, clock) as (host, response):
        stored = store(base, place, _pieces(response, host, clock, max_bytes))
    return DOWNLOADED if stored else SKIPPED


class _Clock:
    """The time limit of a download, which bounds every wait for the network."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def wait(self) -> float:
        """Return the seconds that the next step may take. Raises TimeoutError when no time is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return min(left, _SILENCE)

    def error(self, host: str) -> DownloadError:
        """Return the error to raise after a TimeoutError."""
        if time.monotonic() >= self._end:
            return DownloadError(f"the download took longer than {self._seconds:g} seconds")
        return DownloadError(f"{host} was silent for {_SILENCE:g} seconds")


def _checked(url: str) -> SplitResult:
    """Parse `url`. Raises ValueError; its text never shows the URL, which may hold a password."""
    from urllib.parse import urlsplit

    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("the URL contains a space or control character, which should be percent-encoded")
    try:
        parts = urlsplit(url)
        valid = 0 < len((parts.hostname or "").encode("idna")) < 254 and parts.port != 0
    except ValueError:
        raise ValueError("the URL is not valid") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"only http and https URLs can be downloaded, not {parts.scheme[:20] or 'others'}")
    if not valid:
        raise ValueError("the URL names no valid host and port")
    return parts


def _request(url: SplitResult) -> bytes:
    from base64 import b64encode
    from urllib.parse import quote, unquote

    user, _, host = url.netloc.rpartition("@")
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [
        f"GET {quote(target, safe=string.punctuation, errors='replace')} HTTP/1.1",
        f"Host: {host.encode('idna').decode()}",
        "User-Agent: redis-worker",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if user:
        secret = unquote(user if ":" in user else f"{user}:").encode(errors="replace")
        lines.append(f"Authorization: Basic {b64encode(secret).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


@contextmanager
def _following(url: SplitResult, clock: _Clock) -> Iterator[tuple[str, HTTPResponse]]:
    """Yield the successful response at the end of the redirects, and its host."""
    from urllib.parse import quote, urljoin

    for _ in range(_REDIRECTS + 1):
        with closing(_respond(url, clock)) as response:
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                # http.client decodes headers as Latin-1; a URL spells all bytes in ASCII.
                location = quote(location.encode("latin-1"), safe=string.punctuation)
                url = _checked(urljoin(url.geturl(), location))
                continue
            if not 200 <= response.status < 300:
                raise DownloadError(f"HTTP error: status code {response.status}")
            yield str(url.hostname), response
            return
    raise DownloadError(f"redirected more than {_REDIRECTS} times")


def _respond(url: SplitResult, clock: _Clock) -> HTTPResponse:
    """Send the request and read the head of the response; closing the response closes the connection."""
    from http.client import HTTPResponse

    with _network_errors(str(url.hostname), clock), ExitStack() as on_failure:
        sock = on_failure.enter_context(_connect(url, clock))
        incoming = _Incoming(sock, clock)
        sock.settimeout(clock.wait())
        sock.sendall(_request(url))
        response = on_failure.enter_context(closing(HTTPResponse(cast(Any, incoming), method="GET")))
        response.begin()
        if incoming.ended:  # http.client treats a connection lost in the headers as their end
            raise ConnectionError("it ended within the headers")
        on_failure.pop_all()
        return response


class _Incoming(io.RawIOBase):
    """A stream over a socket, with each read within the time left; closing it closes the socket."""

    ended = False

    def __init__(self, sock: socket.socket, clock: _Clock) -> None:
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(self._clock.wait())
        count = self._sock.recv_into(buffer)
        self.ended = count == 0
        return count

    def close(self) -> None:
        self._sock.close()
        super().close()

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self, _PIECE)


def _connect(url: SplitResult, clock: _Clock) -> socket.socket:
    """Connect to the first address that accepts, over TLS for https.

    Only the checked addresses are used: a second look-up could return others.
    """
    import socket

    host, failure = str(url.hostname), OSError("it has no address")
    # Only the resolver can limit the time of a look-up.
    found = socket.getaddrinfo(host, url.port or _PORTS[url.scheme], type=socket.SOCK_STREAM)
    addresses = [_carried(str(address[0])) for *_, address in found]
    if any(address.is_link_local for address in addresses):
        raise ValueError(f"{host} has a link-local address, and those may not be downloaded from")
    if not limits.allows_private() and not all(address.is_global and not address.is_multicast for address in addresses):
        raise ValueError(f"{host} has a loopback or private address, and REDIS_WORKER_DOWNLOAD_PRIVATE denies those")
    for family, kind, protocol, _, address in found:
        with ExitStack() as on_failure:
            try:
                sock = on_failure.enter_context(socket.socket(family, kind, protocol))
                sock.settimeout(clock.wait())
                sock.connect(address)
                if url.scheme == "https":
                    trust = _trust(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
                    sock.settimeout(clock.wait())
                    sock = on_failure.enter_context(trust.wrap_socket(sock, server_hostname=host))
                on_failure.pop_all()
                return sock
            except OSError as error:
                failure = error
    raise failure


@lru_cache(maxsize=1)
def _trust(*_places: str | None) -> ssl.SSLContext:
    """Load the certificates, which takes some 20 ms: cached until their places change."""
    import ssl

    return ssl.create_default_context()


def _carried(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address in `text`, or the IPv4 address that it carries."""
    import ipaddress

    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return address
    bits = int(address)
    inner = ipaddress.IPv4Address(bits & 0xFFFFFFFF) if bits >> 32 in _IPV4_CARRIERS else address.sixtofour
    return address if inner is None else inner


@contextmanager
def _network_errors(host: str, clock: _Clock) -> Iterator[None]:
    from http.client import HTTPException

    try:
        yield
    except TimeoutError:
        raise clock.error(host) from None
    except HTTPException:
        raise DownloadError(f"{host} did not answer in HTTP") from None
    except OSError as error:
        reason = getattr(error, "verify_message", "") or error.strerror or str(error)
        raise DownloadError(f"the connection to {host} failed: {reason}") from None


def _pieces(response: HTTPResponse, host: str, clock: _Clock, max_bytes: int) -> Iterator[bytes]:
    """Yield the body. Raises DownloadError if it is too large, or does not arrive in full."""
    from http.client import IncompleteRead

    expected, received = response.length, 0
    too_large = DownloadError(f"the file is larger than the bound of {max_bytes} bytes")
    if expected is not None and expected > max_bytes:
        raise too_large
    ended = False
    # read1 holds at most one piece in memory, for chunks of any size.
    with _network_errors(host, clock), suppress(ConnectionError, IncompleteRead):
        while piece := response.read1(_PIECE):
            received += len(piece)
            if received > max_bytes:
                raise too_large
            yield piece
        ended = True
    if not ended or (expected is not None and received < expected):
        total = "an unknown number of" if expected is None else expected
        raise DownloadError(f"the connection ended after {received} of {total} bytes")
