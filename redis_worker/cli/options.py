"""Options that commands share, and where their values come from: option, environment, `.env`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import click

F = TypeVar("F", bound=Callable[..., Any])

ENVIRONMENT = "Every option can also be set in the environment or in .env: --input as REDIS_WORKER_INPUT, and so on."

_TRUE = ("1", "true", "yes", "on")
_FALSE = ("", "0", "false", "no", "off")
# The variables that say which server it is, each of which the next ones only fill in for.
_SERVER = ("REDIS_WORKER_URL", "REDIS_URL", "REDIS_HOST")


def text(value: str) -> str:
    """A text that says something: an empty one is most often a shell variable that is not set."""
    if not value.strip():
        raise click.BadParameter("it must not be empty.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{value!r} is not UTF-8.") from None
    return value


_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}
# More than anybody means, and near enough for Redis to hold it to the millisecond.
_END_OF_TIME = 1e12


class Seconds(click.FloatRange):
    """A time in seconds, or with a unit: `90`, `1.5m`, `24h`. `nan` and `inf` are none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str):
            number = value.strip().rstrip("".join(_UNITS))
            unit = _UNITS.get(value.strip()[len(number) :])
            if unit is not None and number.replace(".", "", 1).isdecimal():
                value = float(number) * unit
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is no number of seconds.", param, ctx)
        if seconds > _END_OF_TIME:
            self.fail(f"{value!r} seconds are beyond all time.", param, ctx)
        return seconds


def time(value: str) -> datetime:
    """A time as `2026-12-01T09:00:00+08:00`; one without a zone is the one on the wall here, as for at(1) and cron."""
    try:
        found = datetime.fromisoformat(value)
        found = found if found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is no time in the form 2026-12-01T09:00:00+08:00.") from None
    if found.timestamp() < 0:
        raise click.BadParameter(f"{value!r} is before 1970.")
    return found


def http(value: str) -> str:
    """Where to listen, as `127.0.0.1:8084`."""
    from redis_worker.http.address import http_address
    from redis_worker.vocabulary.errors import ConfigurationError

    try:
        return str(http_address(value))
    except ConfigurationError as error:
        raise click.BadParameter(f"{error}.") from None


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """A click option that can be set as REDIS_WORKER_<NAME>."""
    long = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", "REDIS_WORKER_" + long[2:].upper().replace("-", "_"))
    if "is_flag" not in settings:
        settings.setdefault("type", text)
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


def log_options(function: F) -> F:
    """`--verbose`, `--log-level` and `--log-format`."""
    levels, formats = click.Choice(["debug", "info", "warning", "error"]), click.Choice(["text", "json"])
    for decorate in (
        option("--log-format", type=formats, default="text", show_default=True),
        option("--log-level", type=levels, default="info", show_default=True),
        option("-v", "--verbose", is_flag=True, help="A line for each task: the same as --log-level debug."),
    ):
        function = decorate(function)
    return function


def delay_options(function: F) -> F:
    """`--delay` and `--at`, which say when."""
    for decorate in (
        option("--at", type=time, metavar="TIME", help="Have them done at a time, as 2026-12-01T09:00:00+08:00."),
        option("--delay", type=Seconds(min=0), metavar="S", help="Have them done later: after 90 (seconds), 10m, 24h."),
    ):
        function = decorate(function)
    return function


def redis_url(url: str | None) -> str:
    """The URL that was given, or the one that REDIS_HOST, REDIS_PORT and the rest spell."""
    if url:
        return url
    password = os.environ.get("REDIS_PASSWORD", "")
    username = os.environ.get("REDIS_USERNAME", "")
    credentials = f"{quote(username, safe='')}:{quote(password, safe='')}@" if username or password else ""
    scheme = "rediss" if _flag("REDIS_TLS") else "redis"
    return f"{scheme}://{credentials}{_host()}:{_number('REDIS_PORT', 6379, 65535)}/{_number('REDIS_DB', 0)}"


def load_env_file() -> None:
    """Add what `.env` in the working directory says to the environment, which comes first."""
    if not Path(".env").is_file():
        return
    from dotenv import dotenv_values

    try:
        found = dotenv_values(".env")
    except (OSError, ValueError) as error:
        raise click.UsageError(f".env in {os.getcwd()} cannot be read: {error}") from None
    if any(os.environ.get(name) for name in _SERVER):
        # REDIS_URL of the file would otherwise beat REDIS_HOST of the environment.
        found = {name: value for name, value in found.items() if name not in _SERVER}
    for name, value in found.items():
        if value is not None:
            os.environ.setdefault(name, value)


def _host() -> str:
    host = os.environ.get("REDIS_HOST", "").strip() or "localhost"
    if "/" in host or host.count(":") == 1:
        raise click.UsageError(
            f"REDIS_HOST must be a host name or an address, got {host!r}; a port goes to REDIS_PORT, a URL to REDIS_URL"
        )
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _number(name: str, default: int, most: int | None = None) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal()) or (most is not None and int(text) > most):
        # Kubernetes sets REDIS_PORT to a URL where a service is named redis.
        limit = "" if most is None else f" up to {most}"
        raise click.UsageError(f"{name} must be a whole number{limit}, got {text!r}; set it, or REDIS_URL in its place")
    return int(text)


def _flag(name: str) -> bool:
    text = os.environ.get(name, "").strip().lower()
    if text not in _TRUE + _FALSE:
        raise click.UsageError(f"{name} must be true or false, got {text!r}")
    return text in _TRUE
