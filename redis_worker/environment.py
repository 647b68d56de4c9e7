"""Settings in the environment and in `.env`, and the Redis server that they name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote

from redis_worker.vocabulary.errors import ConfigurationError

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
# The variables that say which server it is, each of which the next ones only fill in for.
_SERVER = ("REDIS_WORKER_URL", "REDIS_URL", "REDIS_HOST")


_added: dict[str, str] = {}
"""What `add_file` has added to the environment of this process: when the file changes, it gives way."""


def add_file() -> None:
    """Add what `.env` in the working directory says to the environment of this process. Raises ConfigurationError."""
    _added.clear()
    whole = environment_and_file(os.environ)
    _added.update((name, value) for name, value in whole.items() if name not in os.environ)
    os.environ.update(_added)


def environment_and_file(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, and what `.env` in the working directory adds to it. Raises ConfigurationError."""
    environment = {name: value for name, value in environment.items() if _added.get(name) != value}
    if not os.path.isfile(".env"):
        return dict(environment)
    from dotenv import dotenv_values

    try:
        found = dotenv_values(".env")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f".env in {os.getcwd()} cannot be read: {error}") from None
    if any(environment.get(name) for name in _SERVER):
        # REDIS_URL of the file would otherwise beat REDIS_HOST of the environment.
        found = {name: value for name, value in found.items() if name not in _SERVER}
    return {name: value for name, value in found.items() if value is not None} | dict(environment)


def redis_url_from_environment() -> str:
    """Return the Redis URL that the command line would use here.

    It is REDIS_WORKER_URL, REDIS_URL or what REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_USERNAME, REDIS_PASSWORD and
    REDIS_TLS spell, in the environment or, where that says nothing, in `.env` in the working directory; or else
    redis://localhost:6379/0. The environment is not changed. Raises ConfigurationError.
    """
    return url_of(environment_and_file(os.environ))


def url_of(environment: Mapping[str, str]) -> str:
    """The Redis URL that the environment names, or else spells by REDIS_HOST, REDIS_PORT and the rest.

    Raises ConfigurationError.
    """
    named = environment.get("REDIS_WORKER_URL") or environment.get("REDIS_URL")
    return named or spelled_url(environment)


def spelled_url(environment: Mapping[str, str]) -> str:
    """The URL that REDIS_HOST, REDIS_PORT and the rest spell. Raises ConfigurationError."""
    password = environment.get("REDIS_PASSWORD", "")
    username = environment.get("REDIS_USERNAME", "")
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    scheme = "rediss" if _flag(environment, "REDIS_TLS") else "redis"
    port, database = _number(environment, "REDIS_PORT", 6379, 65535), _number(environment, "REDIS_DB", 0)
    return f"{scheme}://{credentials}{_host(environment)}:{port}/{database}"


def _host(environment: Mapping[str, str]) -> str:
    host = environment.get("REDIS_HOST", "").strip() or "localhost"
    if "/" in host or host.count(":") == 1:
        raise ConfigurationError(
            f"REDIS_HOST must be a host name or an address, got {host!r}; a port goes to REDIS_PORT, a URL to REDIS_URL"
        )
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _number(environment: Mapping[str, str], name: str, default: int, most: int | None = None) -> int:
    text = environment.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or (most is not None and int(text) > most):
        # Kubernetes sets REDIS_PORT to a URL where a service is named redis.
        limit = "" if most is None else f" up to {most}"
        raise ConfigurationError(
            f"{name} must be a whole number{limit}, got {text!r}; set it, or REDIS_URL in its place"
        )
    return int(text)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigurationError(f"{name} must be true or false, got {text!r}")
    return text in _TRUE
