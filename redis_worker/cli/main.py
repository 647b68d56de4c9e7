"""The command `redis-worker`: its subcommands, error messages and exit codes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from typing import NoReturn

import click
from click.core import ParameterSource

from redis_worker import __version__
from redis_worker.cli.cancel import cancel
from redis_worker.cli.chaos import chaos
from redis_worker.cli.check import check
from redis_worker.cli.cron import cron
from redis_worker.cli.dashboard import dashboard
from redis_worker.cli.dead import dead
from redis_worker.cli.delayed import delayed
from redis_worker.cli.demo import demo
from redis_worker.cli.doctor import doctor
from redis_worker.cli.health import health
from redis_worker.cli.init import leave_process_1
from redis_worker.cli.kafka import kafka
from redis_worker.cli.options import ENVIRONMENT, load_env_file
from redis_worker.cli.processors import processors
from redis_worker.cli.publish import publish
from redis_worker.cli.push import push
from redis_worker.cli.result import result
from redis_worker.cli.run import run
from redis_worker.cli.serve import serve
from redis_worker.cli.status import status
from redis_worker.cli.waiting import pause, peek, purge, resume
from redis_worker.engine.streams import escape_unshowable, open_streams
from redis_worker.file.mistakes import FileMistakes
from redis_worker.vocabulary.errors import ConfigurationError, Disconnected, RedisWorkerError, Refused, Unreachable
from redis_worker.vocabulary.text import visible_lines

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
    """Process tasks from a Redis list and write the results to a hash. Plain JSON; nothing is lost."""


_COMMANDS = (
    *(run, status, dashboard, push, publish, result, cancel),
    *(pause, resume, peek, purge, delayed, dead, doctor, health),
    *(serve, check, kafka, cron, processors, demo, chaos),
)
for _command in _COMMANDS:
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and end the process: 0 done, 1 failed, 2 wrong usage, 3 a server unreachable or refusing."""
    open_streams()
    escape_unshowable()
    leave_process_1()
    code = _run(arguments)
    _flush()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        # A hung task blocks a thread that cannot be stopped; the task is back on the queue.
        os._exit(code)
    sys.exit(code)


def _run(arguments: Sequence[str] | None) -> int:
    try:
        load_env_file()
        code = cli.main(arguments, prog_name="redis-worker", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _usage(error)
    except BrokenPipeError:
        # The reader of our output has closed the pipe, as `head` does: discard the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FileMistakes as error:
        from redis_worker.cli import logs

        logs.complain_of(error)
        return 2
    except RedisWorkerError as error:
        _complain(str(error))
        return _exit_code(error)
    except Exception as error:
        return _defect(error)


def _exit_code(error: RedisWorkerError) -> int:
    if isinstance(error, ConfigurationError):
        return 2
    return 3 if isinstance(error, (Unreachable, Refused, Disconnected)) else 1


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return error.exit_code
    text = error.format_message()
    if isinstance(error, click.BadParameter) and (variable := _variable(error)):
        text = f"{variable} in the environment or in .env: {_without(os.environ[variable], text)}"
    # Arguments may come from elsewhere: they forge no line, and a terminal obeys nothing in them.
    click.UsageError(visible_lines(text), error.ctx if isinstance(error, click.UsageError) else None).show()
    return error.exit_code


def _without(value: str, text: str) -> str:
    """Return `text` with `value` and its items masked as ***: it may be a secret in the wrong variable."""
    for part in sorted({value, *value.split(","), *value.split()}, key=len, reverse=True):
        for form in (repr(part.strip()), part.strip() if len(part.strip()) > 3 else ""):
            text = text.replace(form, "***") if form else text
    return text


def _variable(error: click.BadParameter) -> str | None:
    """Return the environment variable of the bad value, if it came from one."""
    context, parameter = error.ctx, error.param
    if context is None or parameter is None or parameter.name is None:
        return None
    if context.get_parameter_source(parameter.name) is not ParameterSource.ENVIRONMENT:
        return None
    names = parameter.envvar or ()
    return next((name for name in ([names] if isinstance(names, str) else names) if os.environ.get(name)), None)


def _defect(error: Exception) -> int:
    """Report an unexpected error in one line; -v logs the traceback."""
    import logging
    from traceback import walk_tb

    *_, (frame, line) = walk_tb(error.__traceback__)
    where = f"{frame.f_code.co_filename}:{line}"
    logging.getLogger("redis_worker").debug("a defect", exc_info=error)
    _complain(f"this is a defect of redis-worker, please report it: {type(error).__name__}: {error} ({where})")
    return 1


def _complain(text: str, title: str = "Error: ") -> None:
    from redis_worker.cli import logs

    logs.complain(text, title)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
