"""Options that commands share, and where their values come from: option, environment, `.env`."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import quote

import click

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = "Every option can also be set in the environment or in .env: --input as REDIS_WORKER_INPUT, and so on."

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option that can be set as REDIS_WORKER_<NAME>."""
    long = max((name.split("/")[0] for name in names if name.startswith("--")), key=len)
    variable = "REDIS_WORKER_" + long[2:].upper().replace("-", "_")
    settings.setdefault("envvar", variable)
    return click.option(*names, **settings)


def url_option(function: F) -> F:
    """`-u/--url`, which falls back to REDIS_URL and then to REDIS_HOST and its companions."""
    return option(
        "-u",
        "--url",
        envvar=["REDIS_WORKER_URL", "REDIS_URL"],
        metavar="URL",
        help="Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. "
        "Default: $REDIS_URL, or $REDIS_HOST and its companions.",
    )(function)


def redis_url(url: str | None) -> str:
    """The URL that was given, or the one that REDIS_HOST, REDIS_PORT and the rest spell."""
    if url:
        return url
    password = os.environ.get("REDIS_PASSWORD", "")
    username = os.environ.get("REDIS_USERNAME", "")
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    scheme = "rediss" if _flag("REDIS_TLS") else "redis"
    host = os.environ.get("REDIS_HOST") or "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{credentials}{host}:{_number('REDIS_PORT', 6379)}/{_number('REDIS_DB', 0)}"


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal():
        raise click.UsageError(f"{name} must be a whole number, got {text!r}")
    return int(text)


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise click.UsageError(f"{name} must be true or false, got {text!r}")
    return text in _TRUE
