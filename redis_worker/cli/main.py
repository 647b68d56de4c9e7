"""The command `redis-worker`: its subcommands, and what becomes of errors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from redis_worker import __version__
from redis_worker.cli.dead import dead
from redis_worker.cli.demo import demo
from redis_worker.cli.options import ENVIRONMENT
from redis_worker.cli.processors import processors
from redis_worker.cli.push import push
from redis_worker.cli.result import result
from redis_worker.cli.run import run
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Refused, Unreachable

EPILOG = f"""
\b
Examples:
  redis-worker demo
  redis-worker run --input fib:input --output fib:output --processor fibonacci
  redis-worker push --input fib:input --output fib:output --wait '[30]'

{ENVIRONMENT}
"""


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="redis-worker", message="%(prog)s %(version)s")
def cli() -> None:
    """Work on tasks from a Redis list, and put the results in a hash. Plain JSON; nothing is lost."""


for _command in (run, push, result, dead, processors, demo):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process: 0 done, 1 failed, 2 wrong usage, 3 Redis unreachable or refusing."""
    _load_env_file()
    code = _run(arguments)
    _flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # A task that does not end sits in a thread that cannot be stopped; it has been handed back.
        os._exit(code)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = cli.main(arguments, prog_name="redis-worker", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:
        return 130
    except KeyboardInterrupt:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has left, as `head` does; say nothing more to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except RedisWorkerError as error:
        click.echo(f"Error: {error}", err=True)
        return _exit_code(error)


def _exit_code(error: RedisWorkerError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    return 3 if isinstance(error, (Unreachable, Refused, Disconnected)) else 1


def _load_env_file() -> None:
    path = Path(".env")
    if path.is_file():
        from dotenv import load_dotenv

        load_dotenv(path)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
