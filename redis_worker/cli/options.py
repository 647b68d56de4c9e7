"""Shared options and the sources of their values: command line, environment, `.env`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import Field, fields
from datetime import datetime
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from redis_worker.environment import add_file, spelled_url
from redis_worker.service.kafka_options import KafkaOptions
from redis_worker.service.options import PoolOptions
from redis_worker.vocabulary.duration import END_OF_TIME, duration
from redis_worker.vocabulary.errors import ConfigurationError

F = TypeVar("F", bound=Callable[..., Any])

_SHORT = {"concurrency": ["-c"]}

ENVIRONMENT = "Every option can also be set in the environment or in .env: --input as REDIS_WORKER_INPUT, and so on."


def text(value: str) -> str:
    """Convert a non-empty text: an empty one usually is an unset shell variable."""
    if not value.strip():
        raise click.BadParameter("it must not be empty.")
    try:
        return value.encode(errors="surrogateescape").decode()  # UTF-8, even in an ASCII locale
    except UnicodeError:
        raise click.BadParameter(f"{value!r} is not UTF-8.") from None


class Repeated(click.types.StringParamType):
    """A text that may be repeated on the command line; the environment variable holds one, blanks included."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return text(str(super().convert(value, param, ctx)))

    def split_envvar_value(self, rv: str) -> list[str]:
        return [rv] if rv else []


def file_name(value: str) -> str:
    """Convert a file name, in any encoding."""
    if not value.strip():
        raise click.BadParameter("it must not be empty.")
    return value


class Seconds(click.FloatRange):
    """A duration in seconds, or with a unit: `90`, `1.5m`, `24h`. Rejects `nan` and `inf`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, str) and (written := duration(value)) is not None:
            value = written
        seconds: float = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        if seconds > END_OF_TIME:
            self.fail(f"{value!r} seconds is too long.", param, ctx)
        return seconds


def time(value: str) -> datetime:
    """Convert a time such as `2026-12-01T09:00:00+08:00`; without a zone it is local time, as for at(1) and cron."""
    try:
        found = datetime.fromisoformat(value)
        found = found if found.tzinfo else found.astimezone()
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{value!r} is not a time in the form 2026-12-01T09:00:00+08:00.") from None
    if found.timestamp() < 0:
        raise click.BadParameter(f"{value!r} is before 1970.")
    return found


def http(value: str) -> str:
    """Convert an address to listen on, such as `127.0.0.1:8084`."""
    from redis_worker.http.address import http_address

    try:
        return str(http_address(value))
    except ConfigurationError as error:
        raise click.BadParameter(f"{error}.") from None


def option(*names: str, **settings: Any) -> Callable[[F], F]:
    """Return a click option with the environment variable REDIS_WORKER_<NAME>."""
    long = next(name for name in names if name.startswith("--"))
    settings.setdefault("envvar", "REDIS_WORKER_" + long[2:].upper().replace("-", "_"))
    if "is_flag" not in settings:
        settings.setdefault("type", text)
    return click.option(*names, **settings)


def pool_options(function: F) -> F:
    """Add an option for each field of PoolOptions, with default, range and help."""
    return _options_of(PoolOptions, function)


def kafka_options(function: F) -> F:
    """Add an option for each field of KafkaOptions, with default, range and help."""
    return _options_of(KafkaOptions, function)


def _options_of(options: type[PoolOptions | KafkaOptions], function: F) -> F:
    for field in reversed(fields(options)):
        function = _option_of(field)(function)
    return function


def _option_of(field: Field[Any]) -> Callable[[F], F]:
    names = [*_SHORT.get(field.name, ()), f"--{field.name.replace('_', '-')}"]
    declared: Any = field.metadata
    default: Any = field.default
    settings: dict[str, Any] = {"help": declared["help"], "metavar": declared["metavar"]}
    if isinstance(default, bool):
        return option(*names, is_flag=True, **settings)
    if declared["known"]:  # a coroutine function is known to be one: no need to choose "async"
        settings["type"] = click.Choice([known for known in declared["known"] if known != "async"])
    elif declared["metavar"] == "S":
        above, least = declared["above"], declared["least"]
        settings["type"] = Seconds(min=least if above is None else above, min_open=above is not None)
    elif declared["least"] is not None:
        settings["type"] = click.IntRange(declared["least"])
    if default is not None:
        whole = isinstance(default, float) and default.is_integer()
        settings |= {"default": int(default) if whole else default, "show_default": True}
    return option(*names, **settings)


def url_option(function: F) -> F:
    """Add `-u/--url`, which falls back to REDIS_URL, then to REDIS_HOST, REDIS_PORT and the rest."""
    return option(
        "-u",
        "--url",
        envvar=["REDIS_WORKER_URL", "REDIS_URL"],
        metavar="URL",
        help="Redis: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. "
        "Default: $REDIS_URL, or $REDIS_HOST, $REDIS_PORT and the rest.",
    )(function)


def http_token_option(function: F) -> F:
    """Add `--http-token`."""
    return option(
        "--http-token",
        metavar="TOKEN",
        help="The token for metrics and changes over HTTP; better in REDIS_WORKER_HTTP_TOKEN, for `ps` shows options.",
    )(function)


def http_origin_option(function: F) -> F:
    """Add `--http-origin`."""
    return option(
        "--http-origin",
        "http_origins",
        multiple=True,
        metavar="ORIGIN",
        help="Pages of ORIGIN, as https://shop.example, may connect to /ws; may be repeated.",
    )(function)


def log_options(function: F) -> F:
    """Add `--verbose`, `--log-level` and `--log-format`."""
    levels, formats = click.Choice(["debug", "info", "warning", "error"]), click.Choice(["text", "json"])
    for decorate in (
        option("--log-format", type=formats, default="text", show_default=True),
        option("--log-level", type=levels, default="info", show_default=True),
        option("-v", "--verbose", is_flag=True, help="Log each task: the same as --log-level debug."),
    ):
        function = decorate(function)
    return function


def delay_options(function: F) -> F:
    """Add `--delay` and `--at`."""
    for decorate in (
        option("--at", type=time, metavar="TIME", help="Delay until a time, such as 2026-12-01T09:00:00+08:00."),
        option("--delay", type=Seconds(min=0), metavar="S", help="Delay for 90 (seconds), 10m, 24h."),
    ):
        function = decorate(function)
    return function


def redis_url(url: str | None) -> str:
    """Return `url`, or the URL built from REDIS_HOST, REDIS_PORT and the rest. Raises click.UsageError."""
    try:
        return url or spelled_url(os.environ)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None


def given_url(url: str | None) -> str | None:
    """Return the URL of the command line, which overrides that of a file; one in the environment does not."""
    source = click.get_current_context().get_parameter_source("url")
    return url if source is ParameterSource.COMMANDLINE else None


def load_env_file() -> None:
    """Add the variables of `.env` in the working directory to the environment, which takes precedence."""
    try:
        add_file()
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
