"""`redis-worker dashboard`: the page of a fleet, without a worker."""

from __future__ import annotations

import click

from redis_worker.cli.options import (
    ENVIRONMENT,
    http,
    http_origin_option,
    http_token_option,
    option,
    redis_url,
    url_option,
)

EPILOG = f"""
\b
Examples:
  redis-worker dashboard
  redis-worker dashboard --url redis://localhost:6379/0 --http 127.0.0.1:8090

Without --http-token a token is made, and shown with the address: changes need it. Reading needs none on this machine.

{ENVIRONMENT}
Exception: --http is REDIS_WORKER_DASHBOARD_HTTP.
"""


@click.command(epilog=EPILOG)
@url_option
@option(
    "--http",
    "address",
    type=http,
    envvar="REDIS_WORKER_DASHBOARD_HTTP",  # REDIS_WORKER_HTTP is the port of a worker on this machine
    default="127.0.0.1:8090",
    show_default=True,
    metavar="HOST:PORT",
    help="Serve the page there.",
)
@http_token_option
@http_origin_option
def dashboard(url: str | None, address: str, http_token: str | None, http_origins: tuple[str, ...]) -> int:
    """Serve a page with all queues, workers, dead letters and cron jobs of a Redis server, until Ctrl-C."""
    import asyncio
    import secrets

    from redis_worker.engine.loop import loop_factory
    from redis_worker.service.service import http_server

    token = http_token or secrets.token_urlsafe(24)
    server = http_server(address, token, http_origins)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(server, redis_url(url), "" if http_token else f"#token={token}"))
    return 0


async def _serve(server: object, url: str, fragment: str) -> None:
    import asyncio

    from redis_worker.broker.connection.address import address_of
    from redis_worker.http.server import HttpServer
    from redis_worker.signals import stop_signals

    assert isinstance(server, HttpServer)
    stopped, fleet = asyncio.Event(), address_of(url)
    with stop_signals(stopped.set, stopped.set):
        async with server.showing(fleet, "dashboard"):
            click.echo(f"The dashboard of {fleet.name} is at http://{server.listening}/{fragment}")
            await stopped.wait()
