"""The command `python -m tests.screenshots`: pictures of the dashboard at work, light and dark, wide and narrow."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.async_api import Browser

from redis_worker.broker.connection.address import address_of
from redis_worker.broker.cron import ask_for_run
from redis_worker.embedded import EmbeddedServer
from tests import scene
from tests.browser import CHROMIUM, browser, context
from tests.session import free_port
from tests.support import ROOT, CommandProcess, wait_until

TOKEN = "screenshots"
SHOTS = (
    ("overview-light", "#/", 1600, 1000, False),
    ("overview-dark", "#/", 1600, 1000, True),
    ("queue-light", "#/queue/shop%3Athumbnails", 1600, 1000, False),
    ("failures-dark", "#/failures", 1280, 900, True),
    ("workers-light", "#/workers", 1280, 700, False),
    ("cron-dark", "#/cron", 1280, 420, True),
    ("parts-light", "#/parts", 1280, 480, False),
    ("phone-light", "#/", 380, 800, False),
    ("phone-dark", "#/failures", 380, 800, True),
)


def main() -> int:
    """Take the pictures. Return 2 without Chromium, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description="Take pictures of the dashboard.")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "dashboard", help="where (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long the shop works before (default: %(default)s)"
    )
    options = parser.parse_args()
    if CHROMIUM is None:
        print("Chromium is missing: apt-get install chromium", file=sys.stderr)
        return 2
    options.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_take(options.folder, options.seconds))
    return 0


async def _take(folder: Path, seconds: float) -> None:
    with EmbeddedServer() as server, ExitStack() as stack:
        port = free_port()
        settings = {"SCENE_URL": server.url, "SCENE_PORT": str(port), "SCENE_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
        place = stack.enter_context(_shop())
        shop = CommandProcess("serve", "workers.toml", env=os.environ | settings, cwd=place)
        try:
            await wait_until(lambda: "answers /healthz" in shop.log or not shop.alive)
            assert shop.alive, shop.log
            feeding = asyncio.create_task(scene.feed(server.url, seconds + 40))
            async with browser() as running, context(running) as first:
                page = await first.new_page()
                await page.goto(f"http://127.0.0.1:{port}/#token={TOKEN}")  # the history begins when somebody looks
                await asyncio.sleep(seconds / 2)
                for job in ("archive", "report"):
                    await ask_for_run(address_of(server.url), "shop", job)
                await asyncio.sleep(seconds / 2)
                for shot in SHOTS:
                    await _shoot(running, f"http://127.0.0.1:{port}/", folder, *shot)
            feeding.cancel()
            await asyncio.wait({feeding})
            shop.signal(signal.SIGKILL)
        finally:
            shop.close()


@contextmanager
def _shop() -> Iterator[Path]:
    """Yield a folder with the shop, whose place is named in tracebacks."""
    with tempfile.TemporaryDirectory(prefix="shop-") as name:
        place, here = Path(name), Path(__file__).parent
        shutil.copy(here / "scene.py", place / "shop.py")
        (place / "workers.toml").write_text((here / "scene.toml").read_text().replace("tests.scene:", "shop:"))
        yield place


async def _shoot(
    running: Browser, url: str, folder: Path, name: str, place: str, width: int, height: int, dark: bool
) -> None:
    async with context(running, width=width, height=height, dark=dark) as window:
        page = await window.new_page()
        page.on("console", lambda message: print(f"{name}: {message.text}") if message.type == "error" else None)
        page.on("pageerror", lambda error: print(f"{name}: {error}"))
        await page.goto(url + f"#token={TOKEN}")
        await page.get_by_text("Changes allowed").wait_for()
        await page.goto(url + place)
        await page.get_by_text("live", exact=True).wait_for()
        if "failures" in place or "queue" in place:
            await page.locator(".entries summary").first.wait_for()
            if "failures" in place:
                await page.locator(".entries summary", has_text="refused").first.click()
        await asyncio.sleep(1.2)
        await page.screenshot(path=folder / f"{name}.png", full_page=place == "#/" and width > 500)
        overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
        if overflow > 0:
            print(f"{name}: {overflow} px too wide")


if __name__ == "__main__":
    sys.exit(main())
