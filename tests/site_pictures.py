"""The command `python -m tests.site_pictures`: look at pages of the built site, light and dark, with Chromium."""

from __future__ import annotations

import asyncio
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

from tests.browser import CHROMIUM, browser, context
from tests.support import ROOT

SITE = ROOT / "build" / "site"
FOLDER = ROOT / "build" / "site_pictures"
PAGES = ("index", "concepts", "tutorial", "runbook", "protocol", "keys", "cli", "api", "zh/quickstart")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> int:
    """Take the pictures. Return 2 without Chromium or site, 1 if a page asks for what is elsewhere, else 0."""
    if CHROMIUM is None or not SITE.exists():
        print("apt-get install chromium, and make docs", file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        problems = asyncio.run(_take(f"http://127.0.0.1:{server.server_port}/"))
        server.shutdown()
    print("\n".join(problems) or FOLDER.relative_to(ROOT))
    return 1 if problems else 0


async def _take(url: str) -> list[str]:
    problems: list[str] = []
    async with browser() as running:
        for dark in (False, True):
            async with context(running, width=1280, height=1000, dark=dark) as window:
                page = await window.new_page()
                page.on("request", lambda request: request.url.startswith(url) or problems.append(request.url))
                page.on("pageerror", lambda error: problems.append(str(error)))
                for name in PAGES:
                    await page.goto(f"{url}{name}.html")
                    shade = "dark" if dark else "light"
                    await page.screenshot(path=FOLDER / f"{name.replace('/', '-')}-{shade}.png")
                    if await page.evaluate("document.documentElement.scrollWidth - innerWidth") > 0:
                        problems.append(f"{name}: wider than the window")
    return problems


if __name__ == "__main__":
    sys.exit(main())
