"""The dashboard, in a real browser: a person looks at it and clicks."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from redis_worker import WorkerPool
from redis_worker.broker.connection.address import address_of
from redis_worker.broker.keys import QUEUES
from redis_worker.broker.operator.dead_letters import DeadLetters
from redis_worker.embedded import EmbeddedServer
from redis_worker.http.server import HttpServer
from tests.browser import CHROMIUM, browser, context
from tests.session import free_port
from tests.support import PATIENCE, CommandProcess, Queue, wait_until

TOKEN = "page-token"
EVIL = '<script>window.hacked=1</script><img src=x onerror="window.hacked=2"><b id="bold">b</b>'

# What a browser writes while a server is away, for an answer that is no 200, and where the policy forbids something.
_EXPECTED = ("Failed to load resource", "WebSocket", "TrustedHTML")

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
expect.set_options(timeout=PATIENCE * 1000)


@asynccontextmanager
async def serving(url: str, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """The page without a worker: its address."""
    server = HttpServer(address, TOKEN)
    async with server.showing(address_of(url), "dashboard"):
        yield f"http://{server.listening}/"


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Page]:
    """The page in a browser. At the end it has reported no error, and has asked nobody but its server."""
    problems: list[str] = []
    async with browser() as running, context(running, **options) as window:
        page = await _page(window, problems)
        await page.goto(url)
        await expect(page.locator("#link")).to_have_text("live")
        yield page
        assert not [problem for problem in problems if not any(map(problem.count, _EXPECTED))]


async def _page(window: BrowserContext, problems: list[str]) -> Page:
    page = await window.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda sent: None if "127.0.0.1" in sent.url else problems.append(f"asked for {sent.url}"))
    return page


def row(page: Page, queue: Queue) -> Any:
    return page.locator("tr", has_text=queue.keys.waiting)


async def _known(queue: Queue) -> None:
    await queue.redis.sadd(QUEUES, queue.keys.waiting)


async def test_a_queue_fills_and_drains_and_the_page_shows_it_without_a_reload(
    server: EmbeddedServer, queue: Queue
) -> None:
    await _known(queue)
    async with serving(server.url) as url, opened(url + "#/queues") as page:
        await expect(row(page, queue)).to_contain_text("idle")
        waiting = row(page, queue).locator("[data-label=waiting]")
        await queue.push_tasks([[n] for n in range(1234)])
        await expect(waiting).to_have_text("1,234")
        await expect(row(page, queue)).to_contain_text("no worker")
        async with WorkerPool(server.url, queue.keys.waiting, queue.keys.output, "list", "sum"):
            await wait_until(lambda: _length(queue, 0))
            await expect(waiting).to_have_text("0")
            await expect(row(page, queue)).to_contain_text("working")


async def _length(queue: Queue, length: int) -> bool:
    return await queue.redis.llen(queue.keys.waiting) == length


async def test_a_dead_letter_is_requeued_by_a_click_and_answered(server: EmbeddedServer, queue: Queue) -> None:
    mended = False

    async def work(arguments: list[Any]) -> Any:
        if not mended:
            raise LookupError("no such table")
        return arguments

    await queue.push({"id": "t1", "task": ["first"]}, {"id": "t2", "task": ["second"]})
    keys = queue.keys
    pool = WorkerPool(server.url, keys.waiting, keys.output, "list", work, retries=1, retry_backoff=0.01)
    async with pool, serving(server.url) as url, opened(url + f"#token={TOKEN}") as page:
        await wait_until(lambda: pool.counters.dead == 2)
        await page.get_by_role("link", name="Failures").click()
        entry = page.locator(".entries li", has_text="t1")
        await entry.locator("summary").click()
        await expect(entry.locator(".payload")).to_contain_text('"first"')
        await expect(entry.locator(".trace")).to_contain_text('raise LookupError("no such table")')
        mended = True
        await entry.get_by_role("button", name="Requeue").click()
        await expect(page.locator(".toast")).to_have_text(f"1 task put back on {keys.waiting}")
        await expect(entry).to_have_count(0)
        await wait_until(lambda: pool.counters.succeeded == 1)
        assert json.loads(await queue.redis.hget(keys.output, "t1")) == {"status": "success", "result": ["first"]}
        await page.get_by_label("Search dead letters").fill("SECOND")
        await page.get_by_role("button", name="Requeue these 1").click()
        await page.get_by_role("button", name="Requeue", exact=True).last.click()
        await wait_until(lambda: pool.counters.succeeded == 2)
        await expect(page.get_by_text("No dead letters.")).to_be_visible()
    await queue.redis.delete(keys.attempts)


async def test_text_of_others_is_inert(server: EmbeddedServer, queue: Queue) -> None:
    """In a payload, an id, a reason, a result of a search, and the name of a queue."""
    evil = Queue(queue.redis, type(queue.keys)(f"{queue.keys.waiting}:{EVIL}", "out"))
    letter = {"raw": json.dumps({"id": EVIL, "task": EVIL}), "id": EVIL, "reason": EVIL, "attempts": 1, "at": 1.0}
    await queue.redis.rpush(evil.keys.dead, json.dumps(letter | {"worker": EVIL, "trace": EVIL}))
    await evil.push({"id": EVIL, "task": EVIL})
    await queue.redis.zadd(evil.keys.delayed, {f"x:{json.dumps({'id': EVIL})}": 10**14})
    await _known(evil)
    async with serving(server.url) as url, opened(url + "#/queues") as page:
        await page.get_by_role("link", name=EVIL).click()
        await expect(page.locator(".entries summary")).to_have_count(3)
        for summary in await page.locator(".entries summary").all():
            await summary.click()
        await expect(page.locator(".trace")).to_have_text(EVIL)
        await expect(page.locator(".payload").last).to_contain_text("<script>window.hacked=1</script>")
        await page.get_by_label("Search dead letters").fill("onerror")
        await expect(page.locator(".entries li", has=page.locator(".trace"))).to_have_count(1)
        await page.get_by_role("link", name="Failures").click()
        await expect(page.locator(".entries summary")).to_have_count(1)
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("main script, main img, #bold").count() == 0
        # What the page does not do by itself, the policy forbids.
        forbidden = "try { document.body.innerHTML = '<b>'; 'done' } catch (error) { error.name }"
        assert await page.evaluate(forbidden) == "TypeError"
    await queue.redis.delete(evil.keys.dead, evil.keys.delayed, evil.keys.waiting)
    await queue.redis.srem(QUEUES, evil.keys.waiting)


async def test_without_the_token_the_buttons_do_nothing_and_say_why(server: EmbeddedServer, queue: Queue) -> None:
    await _known(queue)
    await queue.push_tasks([[1]])
    async with serving(server.url) as url, opened(url + "#/queues") as page:
        await page.get_by_role("link", name=queue.keys.waiting).click()
        for name in ("Pause", "Delete waiting tasks"):
            await page.get_by_role("button", name=name).click()
            await expect(page.locator("#login-text")).to_contain_text("Nothing was changed: a change needs the token")
            await page.keyboard.press("Escape")
        await page.get_by_role("button", name="Pause").click()
        await page.get_by_label("Token of this server").fill("wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("#login-text")).to_have_text("This is not the token of this server.")
        assert await _length(queue, 1)
        assert not await queue.redis.exists(queue.keys.paused)
        await page.get_by_label("Token of this server").fill(TOKEN)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Changes allowed")).to_be_visible()
        await page.get_by_role("button", name="Pause").click()
        await expect(page.locator(".title")).to_contain_text("paused")
        assert await queue.redis.exists(queue.keys.paused)
        await page.get_by_role("button", name="Resume").click()
        await expect(page.locator(".title")).to_contain_text("no worker")
        await page.get_by_role("button", name="Delete waiting tasks").click()
        await page.get_by_role("button", name="Keep").click()
        assert await _length(queue, 1)
        await page.get_by_role("button", name="Delete waiting tasks").click()
        await page.get_by_role("button", name="Delete them").click()
        await wait_until(lambda: _length(queue, 0))
        assert TOKEN not in page.url


async def test_the_server_goes_away_and_comes_back(server: EmbeddedServer, queue: Queue) -> None:
    await _known(queue)
    port = free_port()
    arguments = ("dashboard", "--url", server.url, "--http", f"127.0.0.1:{port}", "--http-token", TOKEN)
    process = CommandProcess(*arguments)
    try:
        await wait_until(lambda: _listens(port))
        async with opened(f"http://127.0.0.1:{port}/#/queues") as page:
            await expect(row(page, queue)).to_contain_text("idle")
            await page.evaluate("window.same = true")
            process.kill()
            await expect(page.get_by_role("alert")).to_contain_text("The connection to the server was lost")
            await expect(page.locator("#link")).to_have_text("connection lost")
            process.close()
            process = CommandProcess(*arguments)
            await expect(page.locator("#link")).to_have_text("live")
            await expect(page.get_by_role("alert")).to_be_hidden()
            await queue.push_tasks([[1]] * 7)
            await expect(row(page, queue).locator("[data-label=waiting]")).to_have_text("7")
            # A server that stands still is as lost as one that is gone.
            process.freeze()
            await expect(page.locator("#link")).to_have_text("connection lost")
            process.signal(signal.SIGCONT)
            await expect(page.locator("#link")).to_have_text("live")
            assert await page.evaluate("window.same"), "the page was never loaded again"
    finally:
        process.signal(signal.SIGCONT)
        process.close()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_redis_goes_away_and_comes_back(own_server: EmbeddedServer) -> None:
    async with serving(own_server.url) as url, opened(url) as page:
        os.kill(own_server.pid, signal.SIGKILL)
        await expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        await expect(page.locator("#link")).to_have_text("Redis is away")
        await page.reload()
        await expect(page.locator("#link")).to_have_text("Redis is away")
        await expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        await asyncio.to_thread(own_server.restart, signal.SIGKILL)
        await expect(page.locator("#link")).to_have_text("live")


@pytest.mark.parametrize(("width", "dark"), [(380, True), pytest.param(1600, False, marks=pytest.mark.long)])
async def test_every_view_fits_and_is_reached_by_keyboard(
    server: EmbeddedServer, queue: Queue, width: int, dark: bool
) -> None:
    await _known(queue)
    await queue.push({"id": "x" * 300, "task": ["y" * 300]})
    letter = {"raw": '{"id":"' + "z" * 300 + '"}', "id": "z" * 300, "reason": "w" * 300, "attempts": 1, "at": 1.0}
    await queue.redis.rpush(queue.keys.dead, json.dumps(letter | {"worker": "v" * 100}))
    async with serving(server.url) as url, opened(url, width=width, dark=dark) as page:
        for number in range(1, 7):
            await page.keyboard.press(str(number))
            await expect(page.locator("nav [aria-current]")).to_have_count(1)
            await expect(page.locator("main h2").first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), await page.title()
        await page.keyboard.press("4")
        await page.locator(".entries summary").wait_for()
        await page.keyboard.press("/")
        assert await page.evaluate("document.activeElement.id") == "search"
        for _ in range(12):
            await page.keyboard.press("Tab")
            if await page.evaluate("document.activeElement.tagName") == "SUMMARY":
                break
        await page.keyboard.press("Enter")
        await expect(page.locator(".payload")).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(18, 20, 23)" if dark else "rgb(246, 246, 244)")


async def test_delayed_tasks_and_cron_jobs_by_hand(server: EmbeddedServer, queue: Queue) -> None:
    await _known(queue)
    for name in ("d1", "d2"):
        await queue.redis.zadd(queue.keys.delayed, {f"x:{json.dumps({'id': name, 'task': [1]})}": 10**14})
    async with serving(server.url) as url, opened(url + f"#token={TOKEN}") as page:
        await page.goto(url + f"#/queue/{queue.keys.waiting.replace(':', '%3A')}")
        await page.locator(".entries li", has_text="d1").get_by_role("button", name="Run now").click()
        await wait_until(lambda: _length(queue, 1))
        await page.locator(".entries li", has_text="d2").get_by_role("button", name="Cancel").click()
        await page.get_by_role("button", name="Cancel it").click()
        await expect(page.get_by_text("No delayed tasks.")).to_be_visible()
        assert not await queue.redis.exists(queue.keys.delayed)
    async with DeadLetters(server.url, queue.keys.waiting) as letters:
        assert await letters.count() == 0


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server
