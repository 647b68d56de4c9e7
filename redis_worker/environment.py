"""Settings in the environment and in `.env`, and the Redis server that they name.

No message quotes a value: a secret may have got into the wrong variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from redis_worker.vocabulary.errors import ConfigurationError

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
# The variables that say which server it is, each of which the next ones only fill in for.
_SERVER = ("REDIS_WORKER_URL", "REDIS_URL", "REDIS_HOST")


# A variable of `.env` with its value in single quotes.
_SINGLE_QUOTED = re.compile(r"\s*(?:export\s+)?(?:'[^']+'|[^=#\s]+)\s*=\s*'")

_added: dict[str, str] = {}
"""What `add_file` has added to the environment of this process: when the file changes, it gives way."""


def add_file() -> None:
    """Add what `.env` in the working directory says to the environment of this process. Raises ConfigurationError."""
    _added.clear()
    whole = environment_and_file(os.environ)
    for name, value in whole.items():
        if name not in os.environ:
            try:
                os.environ[name] = _added[name] = os.fsdecode(value.encode())  # where the locale is for ASCII only
            except ValueError as error:
                raise ConfigurationError(f".env in {os.getcwd()} cannot be read: {name}: {error}") from None


def environment_and_file(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment`, and what `.env` in the working directory adds to it. Raises ConfigurationError."""
    environment = {name: value for name, value in environment.items() if _added.get(name) != value}
    if not os.path.isfile(".env"):
        return dict(environment)
    try:
        found = _values(".env")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f".env in {os.getcwd()} cannot be read: {error}") from None
    if any(environment.get(name) for name in _SERVER):
        # REDIS_URL of the file would otherwise beat REDIS_HOST of the environment.
        found = {name: value for name, value in found.items() if name not in _SERVER}
    return found | dict(environment)


def _values(path: str) -> dict[str, str]:
    """The variables of a file. In single quotes nothing is put in for `${NAME}`, as in a shell.

    By the parser of python-dotenv: its own `dotenv_values` puts it in there as well, so that no password could have it.
    """
    from dotenv.parser import parse_stream
    from dotenv.variables import parse_variables

    found: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for binding in parse_stream(file):
            text = binding.original.string
            if binding.error:
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                _warn("%s: line %d is not NAME=value, and is left out", path, line)  # it may hold a password
            elif binding.key is not None and (value := binding.value) is not None:
                if not _SINGLE_QUOTED.match(text):
                    value = "".join(atom.resolve(os.environ | found) for atom in parse_variables(value))
                found[binding.key] = value
    return found


def _warn(text: str, *arguments: object) -> None:
    from redis_worker.vocabulary.logger import library_logger  # seldom needed, and slow to import

    library_logger("redis_worker.environment").warning(text, *arguments)


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
    password, username = _utf8(environment, "REDIS_PASSWORD"), _utf8(environment, "REDIS_USERNAME")
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    scheme = "rediss" if _flag(environment, "REDIS_TLS") else "redis"
    port, database = _number(environment, "REDIS_PORT", 6379, 65535), _number(environment, "REDIS_DB", 0)
    return f"{scheme}://{credentials}{_host(environment)}:{port}/{database}"


def _utf8(environment: Mapping[str, str], name: str) -> str:
    """The text of a variable, of which a locale for ASCII only has made single bytes. Raises ConfigurationError."""
    try:
        return environment.get(name, "").encode(errors="surrogateescape").decode()
    except UnicodeError:
        raise ConfigurationError(f"{name} is not UTF-8") from None


def _host(environment: Mapping[str, str]) -> str:
    host = environment.get("REDIS_HOST", "").strip() or "localhost"
    if "/" in host or host.count(":") == 1:
        raise ConfigurationError(
            "REDIS_HOST must be a host name or an address; a port goes to REDIS_PORT, a URL to REDIS_URL"
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
            f"{name} must be a whole number{limit}, and is none; set it, or REDIS_URL in its place"
        )
    return int(text)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigurationError(f"{name} must be true or false")
    return text in _TRUE
