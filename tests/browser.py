"""A real browser, headless Chromium, driven by Playwright; each has a profile of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, BrowserContext, async_playwright

from tests.support import PATIENCE

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
"""The program; None if this machine has none."""
_FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start Chromium, and end it."""
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(_FLAGS))
        try:
            yield running
        finally:
            await running.close()


@asynccontextmanager
async def context(
    running: Browser, *, width: int = 1280, height: int = 800, dark: bool = False
) -> AsyncIterator[BrowserContext]:
    """Open a window without cookies or storage."""
    made = await running.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", locale="en-GB"
    )
    made.set_default_timeout(PATIENCE * 1000)
    try:
        yield made
    finally:
        await made.close()
