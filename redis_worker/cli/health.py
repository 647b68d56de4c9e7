"""`redis-worker health`: the state of the worker on this machine, as an exit code for probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from redis_worker.cli.options import ENVIRONMENT, Repeated, Seconds, given_url, http, option, redis_url, url_option

if TYPE_CHECKING:
    from redis_worker.broker.operator.status import StatusReader
    from redis_worker.broker.operator.supervisors import SupervisorStatus

EPILOG = f"""
\b
Examples:
  redis-worker health --http 127.0.0.1:8084
  redis-worker health --ready workers.toml
  redis-worker health --input fib:input

It asks the worker's HTTP server: the one at --http, or under [http] in FILE. Without any, it looks in Redis for what
workers of this machine (or container) report: of FILE, of the queue --input, or all of them. Exits 0 if healthy,
1 if not, 3 if nothing answers.

{ENVIRONMENT}
Exceptions: FILE is REDIS_WORKER_CONFIG, --ready REDIS_WORKER_HEALTH_READY, --timeout REDIS_WORKER_HEALTH_TIMEOUT.
"""

# A worker that has published nothing for this many seconds has a blocked event loop.
_SILENT = 10.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it connects there


class Health(NamedTuple):
    """The state of what was asked, and a line about it."""

    healthy: bool
    what: str


@click.command(epilog=EPILOG)
@click.argument("file", required=False, envvar="REDIS_WORKER_CONFIG")
@option("--http", "address", type=http, metavar="HOST:PORT", help="The address that the worker answers at.")
@option("--input", "inputs", type=Repeated(), multiple=True, metavar="KEY", help="Its queue; may be repeated.")
@option(
    "--ready",
    is_flag=True,
    envvar="REDIS_WORKER_HEALTH_READY",
    help="It must be connected and consume. Without this, it must only live: a restart mends no server.",
)
@option(
    "--timeout",
    type=Seconds(min=0, min_open=True),
    default=5,
    show_default=True,
    metavar="S",
    envvar="REDIS_WORKER_HEALTH_TIMEOUT",  # REDIS_WORKER_TIMEOUT is that of a task
    help="Time limit of the answer.",
)
@url_option
def health(
    file: str | None, address: str | None, inputs: tuple[str, ...], ready: bool, timeout: float, url: str | None
) -> int:
    """Exit 0 if the worker on this machine is healthy. For HEALTHCHECK of a container, and for probes."""
    import asyncio

    from redis_worker.vocabulary.errors import Unreachable

    name = None
    if address is None and file is not None:
        address, name, url = _of_file(file, given_url(url))
    if address is not None:
        found = _ask(address, "/ready" if ready else "/healthz", timeout)
    else:
        try:
            found = asyncio.run(asyncio.wait_for(_look(redis_url(url), name, inputs, ready), timeout))
        except TimeoutError:
            raise Unreachable(f"Redis does not answer within {timeout:g} s") from None
    click.echo(f"{'healthy' if found.healthy else 'unhealthy'}: {found.what}")
    return 0 if found.healthy else 1


def _of_file(file: str, url: str | None) -> tuple[str | None, str, str | None]:
    """Return the HTTP address of a file's supervisor, its name and its Redis.

    Raises FileMistakes and ConfigurationError.
    """
    from redis_worker.file.reading import read_plan
    from redis_worker.http.address import HttpAddress
    from redis_worker.vocabulary.errors import ConfigurationError

    plan = read_plan(file, url=url)
    if plan.http is None and plan.url is None:
        raise ConfigurationError(f"{file} has no [http] and needs no Redis, so nothing can be asked; add [http]")
    address = None if plan.http is None else str(HttpAddress(plan.http.host, plan.http.port))
    return address, plan.name, plan.url


def _ask(address: str, page: str, timeout: float) -> Health:
    """Return the answer of a page. Raises Unreachable and ConfigurationError."""
    from http.client import HTTPConnection, HTTPException

    from redis_worker.http.address import http_address
    from redis_worker.vocabulary.errors import ConfigurationError, Unreachable
    from redis_worker.vocabulary.text import visible

    host, port = http_address(address)
    if port == 0:
        raise ConfigurationError("the worker listens on any free port (0): name one, or ask Redis with --input")
    connection = HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=timeout)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        text = answer.read(1000).decode(errors="replace")
    except (OSError, HTTPException) as error:
        reason = str(error) or type(error).__name__
        raise Unreachable(f"no worker answers at {address} ({reason}); does it run, with this --http?") from None
    finally:
        connection.close()
    return Health(answer.status == 200, f"{address}{page} answers {answer.status} {visible(text)}")


async def _look(url: str, name: str | None, inputs: tuple[str, ...], ready: bool) -> Health:
    """Return the health of the supervisor `name`, else of this machine's workers, by what they report in Redis.

    Raises Disconnected and Refused.
    """
    from redis_worker.broker.operator.status import StatusReader
    from redis_worker.cli.printing import explained

    async with StatusReader(url, inputs) as reader:
        with explained(url, "cannot read the state of workers"):
            return await (_workers(reader, ready) if name is None else _supervisor(reader, name, ready))


async def _workers(reader: StatusReader, ready: bool) -> Health:
    from redis_worker.broker.operator.announcing import this_host

    status = await reader.read()
    workers = [worker for worker in status.workers if worker.host == this_host()]
    living = [worker for worker in workers if worker.alive and (worker.seen or 0.0) < _SILENT]
    supervisors = [each for each in status.supervisors if each.host == this_host()]
    if living or not supervisors:
        return Health(bool(living), f"{len(living)} of {len(workers)} workers on {this_host()} live")
    return _health(supervisors, ready)


async def _supervisor(reader: StatusReader, name: str, ready: bool) -> Health:
    from redis_worker.broker.operator.announcing import this_host

    here = [each for each in await reader.supervisors() if each.host == this_host() and each.name == name]
    return _health(here, ready) if here else Health(False, f"{name} does not run on {this_host()}")


def _health(supervisors: list[SupervisorStatus], ready: bool) -> Health:
    """Return the health of the best of `supervisors`: one that was killed stays known for a while."""
    from redis_worker.vocabulary.service import READY

    def idle(supervisor: SupervisorStatus) -> list[str]:
        return [f"{part.name}: {part.state}" for part in supervisor.parts if part.state not in READY]

    best = min(supervisors, key=lambda each: (not each.alive, len(idle(each))))
    if not best.alive:
        return Health(False, f"{best.name} is silent for {best.seen:.0f} s")
    waiting = "; ".join(idle(best))
    return Health(not (ready and waiting), f"{best.name} runs{f', but not {waiting}' if waiting else ''}")
