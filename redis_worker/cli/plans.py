"""Options of the commands on a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from redis_worker.cli.options import Repeated, option, text

F = TypeVar("F", bound=Callable[..., Any])


class _Names(Repeated):
    """Comma-separated names, in the environment as on the command line."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, list):
            return value
        return [text(name).strip() for name in super().convert(value, param, ctx).split(",")]


def _joined(context: click.Context, parameter: click.Parameter, value: tuple[list[str], ...]) -> tuple[str, ...]:  # noqa: ARG001 - click's signature
    return tuple(name for names in value for name in names)


def file_argument(function: F) -> F:
    """Add `FILE`: the argument `file`."""
    return click.argument("file", default="workers.toml", envvar="REDIS_WORKER_CONFIG")(function)


def file_option(command: str) -> Callable[[F], F]:
    """Add `--file`: the argument `file`, None without it. REDIS_WORKER_FILE is another option, of push."""
    variable = f"REDIS_WORKER_{command.upper()}_FILE"
    return option("--file", envvar=variable, metavar="FILE", help="The parts of this file, and their servers.")


def plan_options(function: F) -> F:
    """Add `FILE`, `--only` and `--except`: the arguments `file`, `only` and `without`."""
    many: dict[str, Any] = {"type": _Names(), "multiple": True, "metavar": "NAME", "callback": _joined}
    names = "parts, topics or kinds (pools, tasks, topics, kafka, daemons, cron), comma-separated; may be repeated."
    for decorate in (
        option("--except", "without", help=f"Exclude {names}", **many),
        option("--only", help=f"Run only these, overriding the file's own selection: {names}", **many),
        file_argument,
    ):
        function = decorate(function)
    return function


def file_url_option(function: F) -> F:
    """Add `-u/--url`, which overrides the file; REDIS_URL, REDIS_HOST and the rest are only its defaults."""
    return option(
        "-u",
        "--url",
        envvar="REDIS_WORKER_SERVE_URL",
        metavar="URL",
        help="Redis URL, in place of [redis] url, or for Handlers. Default: from the environment.",
    )(function)


def no_file_options(place: str, only: Sequence[str], without: Sequence[str], watch: bool) -> None:
    """Reject options that apply to files only. Raises click.UsageError."""
    for name, given in (("--only", only), ("--except", without), ("--watch", watch)):
        if given:
            raise click.UsageError(f"{name} is only for a file; {place} is a worker declared in Python")
