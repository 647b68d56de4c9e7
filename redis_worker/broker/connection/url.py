"""Parts and options of a Redis URL; its errors never quote a password."""

from __future__ import annotations

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio.connection import parse_url

_ENCODE = "characters such as / ? # [ @ : in a user name or password must be percent-encoded (/ is %2F)"


def parse(url: str) -> tuple[SplitResult, dict[str, Any]]:
    """Return the parts of `url`, and its options (`?…`) as redis-py reads them. Raises ValueError.

    Options for the Sentinels (`?sentinel_…`) are grouped in the option "sentinels".
    """
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ValueError(_ENCODE) from None  # urllib's message quotes the URL
    if parts.fragment or "@" in parts.query:
        raise ValueError(_ENCODE)
    sentinels = {key: value for key, value in pairs if key.startswith("sentinel_")}
    options = _options({key: value for key, value in pairs if key not in sentinels})
    options.update(_credentials(parts))
    if sentinels:
        options["sentinels"] = _options({key.removeprefix("sentinel_"): value for key, value in sentinels.items()})
    return parts, options


def without_values(url: str, text: str) -> str:
    """Return `text`, the reason why `url` is wrong, or a substitute if it quotes the value of an option."""
    query = url.partition("?")[2]
    found = {part for pair in query.split("&") for part in pair.partition("=")[2:]}
    found |= {value for _, value in parse_qsl(query)}
    return "an option has an invalid value" if any(len(v) > 2 and v in text for v in found) else text


def nodes(parts: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Return the hosts and ports of `user:password@host1:port1,host2:port2`. Raises ValueError."""
    found = []
    for item in parts.netloc.rpartition("@")[2].split(","):
        try:
            node = urlsplit(f"//{item}")
            port = node.port
        except ValueError:
            raise ValueError(f"a host or port is not valid; {_ENCODE}") from None
        if not node.hostname:
            raise ValueError(f"a host is missing; {_ENCODE}")
        found.append((node.hostname, default_port if port is None else port))
    return found


def database(text: str) -> int:
    """Return the number of a database. Raises ValueError."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"the database must be a number, as in …/0; {_ENCODE}")
    return int(text)


def _options(texts: dict[str, str]) -> dict[str, Any]:
    return {**parse_url(f"redis://?{urlencode(texts)}")}


def _credentials(parts: SplitResult) -> dict[str, str]:
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    given = {"username": unquote(user), "password": unquote(password)}
    return {key: value for key, value in given.items() if value}
