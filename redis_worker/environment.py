"""Settings from the environment and `.env`, and the Redis URL that they name.

No message quotes a value: a secret may be in the wrong variable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from redis_worker.vocabulary.errors import ConfigurationError

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
# The variables that name the server, by precedence.
_SERVER = ("REDIS_WORKER_URL", "REDIS_URL", "REDIS_HOST")

SECRETS = (
    *("REDIS_WORKER_URL", "REDIS_URL", "REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_WORKER_HTTP_TOKEN"),
    *("REDIS_WORKER_SERVE_URL", "REDIS_WORKER_CHAOS_URL", "REDIS_WORKER_PROPERTY"),
    *("REDIS_WORKER_DSN", "POSTGRES_DSN", "DATABASE_URL"),
)
"""Variables that may hold a secret. Each may be read from a file, which the variable with `_FILE` at its end names."""


# A variable of `.env` with its value in single quotes.
_SINGLE_QUOTED = re.compile(r"\s*(?:export\s+)?(?:'[^']+'|[^=#\s]+)\s*=\s*'")

_added: dict[str, str] = {}
"""Variables that `add_file` added to this process's environment; a changed file overrides them."""


def add_file() -> None:
    """Add the variables of `.env` in the working directory, and secrets in files, to the process's environment.

    Raises ConfigurationError.
    """
    _added.clear()
    merged = environment_and_file(os.environ)
    for name, value in merged.items():
        if os.environ.get(name) != value:
            try:
                os.environ[name] = _added[name] = os.fsdecode(value.encode())  # for ASCII locales
            except ValueError as error:
                raise ConfigurationError(f".env in {os.getcwd()} cannot be read: {name}: {error}") from None


def environment_and_file(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` with the variables of `.env` in the working directory, and with secrets in files.

    Raises ConfigurationError.
    """
    environment = {name: value for name, value in environment.items() if _added.get(name) != value}
    environment |= _file_secrets(environment)
    if not os.path.isfile(".env"):
        return environment
    try:
        found = _values(".env")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f".env in {os.getcwd()} cannot be read: {error}") from None
    found |= _file_secrets(found, environment)
    if any(environment.get(name) for name in _SERVER):
        # Otherwise REDIS_URL of the file would override REDIS_HOST of the environment.
        found = {name: value for name, value in found.items() if name not in _SERVER}
    return found | environment


def _file_secrets(environment: Mapping[str, str], first: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the secrets whose files `environment` names; a variable of `first` needs no file.

    Raises ConfigurationError.
    """
    secrets = {}
    for name in SECRETS:
        if environment.get(f"{name}_FILE") and not (first and first.get(name)):
            if environment.get(name):
                raise ConfigurationError(f"{name} and {name}_FILE are both set; remove one of them")
            secrets[name] = secret_of_file(environment, name)
    return secrets


def secret_of_file(environment: Mapping[str, str], name: str) -> str:
    """Return the content of the file that `<name>_FILE` names, without line breaks at its end; empty if it is not set.

    Docker and Kubernetes mount secrets as files. Raises ConfigurationError.
    """
    path = environment.get(f"{name}_FILE")
    if not path:
        return ""
    try:
        with open(path, encoding="utf-8") as file:
            secret = file.read().rstrip("\r\n")
    except UnicodeError:
        raise ConfigurationError(f"the file that {name}_FILE names is not UTF-8") from None
    except (OSError, ValueError) as error:
        # Not the path: it may be the secret itself, in the wrong variable.
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "its name is not valid"
        raise ConfigurationError(f"the file that {name}_FILE names cannot be read: {reason}") from None
    if not secret:
        raise ConfigurationError(f"the file that {name}_FILE names is empty")
    return secret


def _values(path: str) -> dict[str, str]:
    """Return the variables of a file. Single quotes suppress the expansion of `${NAME}`, as in a shell.

    Uses the parser of python-dotenv, because `dotenv_values` expands there too, so that no password could contain `${`.
    """
    from dotenv.parser import parse_stream
    from dotenv.variables import parse_variables

    found: dict[str, str] = {}
    with open(path, encoding="utf-8") as file:
        for binding in parse_stream(file):
            text = binding.original.string
            if binding.error:
                line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
                from redis_worker.vocabulary.logger import library_logger  # rarely needed, slow to import

                logger = library_logger("redis_worker.environment")
                logger.warning("%s: line %d is not NAME=value and is ignored", path, line)  # it may hold a password
            elif binding.key is not None and (value := binding.value) is not None:
                if not _SINGLE_QUOTED.match(text):
                    value = "".join(atom.resolve(os.environ | found) for atom in parse_variables(value))
                found[binding.key] = value
    return found


def redis_url_from_environment() -> str:
    """Return the Redis URL that the command line would use.

    It is REDIS_WORKER_URL, else REDIS_URL, else built from REDIS_HOST, REDIS_PORT, REDIS_DB, REDIS_USERNAME,
    REDIS_PASSWORD and REDIS_TLS, each from the environment or else from `.env` in the working directory; by default
    redis://localhost:6379/0. The environment stays unchanged. Raises ConfigurationError.
    """
    return url_of(environment_and_file(os.environ))


def url_of(environment: Mapping[str, str]) -> str:
    """Return the Redis URL from REDIS_WORKER_URL or REDIS_URL, else built from REDIS_HOST, REDIS_PORT and the rest.

    Raises ConfigurationError.
    """
    named = environment.get("REDIS_WORKER_URL") or environment.get("REDIS_URL")
    return named or spelled_url(environment)


def spelled_url(environment: Mapping[str, str]) -> str:
    """Return the URL built from REDIS_HOST, REDIS_PORT and the rest. Raises ConfigurationError."""
    password, username = _utf8(environment, "REDIS_PASSWORD"), _utf8(environment, "REDIS_USERNAME")
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    scheme = "rediss" if _flag(environment, "REDIS_TLS") else "redis"
    port, database = _number(environment, "REDIS_PORT", 6379, 65535), _number(environment, "REDIS_DB", 0)
    return f"{scheme}://{credentials}{_host(environment)}:{port}/{database}"


def _utf8(environment: Mapping[str, str], name: str) -> str:
    """Return a variable's text, which an ASCII locale decodes to surrogates. Raises ConfigurationError."""
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
        # Kubernetes sets REDIS_PORT to a URL for a service named redis.
        limit = "" if most is None else f" up to {most}"
        raise ConfigurationError(f"{name} must be a whole number{limit}, but is not; set it, or REDIS_URL instead")
    return int(text)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise ConfigurationError(f"{name} must be true or false")
    return text in _TRUE
