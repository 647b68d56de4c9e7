"""The command: starts a private server where none is named, and runs the front with its workers."""

from __future__ import annotations

import os
import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click
import uvicorn

from redis_worker import RedisWorkerError
from redis_worker.embedded import HOST, EmbeddedServer


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8000, help="The port of the front; 0 is any free one.")
def main(port: int) -> None:
    """Run the shop until Ctrl-C."""
    try:
        with ExitStack() as stack:
            if "REDIS_URL" not in os.environ:
                os.environ["REDIS_URL"] = stack.enter_context(EmbeddedServer()).url
                click.echo(f"to see the workers: redis-worker status --watch --url {os.environ['REDIS_URL']}", err=True)
            if "SHOP_DATABASE" not in os.environ:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                os.environ["SHOP_DATABASE"] = str(Path(folder) / "shop.db")
            # uvicorn stops, then raises the signal again: it must not end the process before its server ends.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            uvicorn.run("examples.shop.app:app", host=HOST, port=port, access_log=False)
    except RedisWorkerError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main(prog_name="python -m examples.shop")
