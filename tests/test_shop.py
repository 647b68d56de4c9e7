"""The example of a shop: its page, its front over HTTP, and its orders across kills."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect
from redis.asyncio import Redis

from examples.shop.database import Database
from examples.shop.tasks import Order, place, queue, steps
from redis_worker.broker.keys import Keys
from redis_worker.embedded import EmbeddedServer
from tests.browser import CHROMIUM, browser, context
from tests.support import PATIENCE, CommandProcess, Queue, wait_until

STEPS = ["reserve", "charge", "send_mail"]
ANN = {"customer": "ann@example.com"}
TOO_MUCH_INK = "Processing error: there are not 21 of ink in stock"


class Shop(CommandProcess):
    """`python -m examples.shop`, asked over HTTP."""

    def __init__(self, **env: str) -> None:
        super().__init__("--port", "0", program="examples.shop", env=env)
        self.address = ""

    async def opened(self) -> Shop:
        await self.said("Uvicorn running on")
        found = re.search(r"running on (http://127.0.0.1:\d+)", self.log)
        assert found
        self.address = found[1]
        return self

    async def ask(self, method: str, path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.address + path, data, headers, method=method)

        def answer() -> Any:
            with urllib.request.urlopen(request, timeout=PATIENCE) as found:
                return json.load(found)

        return await asyncio.to_thread(answer)

    async def order(self, id: str, item: str, number: int) -> None:
        await self.ask("PUT", f"/orders/{id}", {**ANN, "item": item, "number": number})

    async def steps(self, id: str) -> dict[str, dict[str, Any]]:
        """The steps of an order, once all of them are answered."""

        async def answered() -> Any:
            found = await self.ask("GET", f"/orders/{id}")
            return None if "pending" in {step["state"] for step in found.values()} else found

        steps: dict[str, dict[str, Any]] = await wait_until(answered, f"the order {id}")
        assert list(steps) == STEPS
        return steps

    async def states(self, id: str) -> list[str]:
        return [step["state"] for step in (await self.steps(id)).values()]

    async def end(self, by: signal.Signals) -> None:
        """End it as a person or a service manager does."""
        self.signal(by)
        assert await self.ended() == 0
        assert "Traceback" not in self.log


@pytest.fixture
def start() -> Iterator[Callable[..., Shop]]:
    """Starts shops; those still there at the end are killed."""
    started: list[Shop] = []

    def start(**env: str) -> Shop:
        started.append(Shop(**env))
        return started[-1]

    yield start
    for shop in started:
        shop.close()


@pytest.fixture(scope="module")
def server(first_server: EmbeddedServer) -> EmbeddedServer:
    return first_server


async def test_orders_and_reports_over_http(start: Callable[..., Shop]) -> None:
    shop = await start().opened()
    for _ in range(2):  # an order that is sent again is the same order
        await shop.order("1", "pen", 2)
    await shop.order("2", "ink", 21)
    await shop.order("3", "pen", 450)
    with pytest.raises(urllib.error.HTTPError, match="422"):
        await shop.order("4", "pen", -1)
    report = await shop.ask("POST", "/reports")
    assert await shop.ask("POST", "/reports") == report  # it is being made

    steps = await shop.steps("1")
    assert await shop.states("1") == ["succeeded"] * 3
    assert steps["charge"]["result"]["cents"] == 240
    steps = await shop.steps("2")
    assert await shop.states("2") == ["failed"] * 3
    assert steps["reserve"]["error"] == TOO_MUCH_INK
    assert await shop.states("3") == ["succeeded", "failed", "failed"]
    assert await shop.ask("GET", "/stock") == {"ink": 20, "paper": 100, "pen": 498}

    async def is_cancelled() -> bool:
        return bool((await shop.ask("GET", f"/reports/{report['id']}"))["state"] == "cancelled")

    await wait_until(lambda: _progress(shop, report["id"]))
    assert await shop.ask("DELETE", f"/reports/{report['id']}") == {"cancelled": True}
    await wait_until(is_cancelled)
    await shop.end(signal.SIGINT)


async def _progress(shop: Shop, report: str) -> Any:
    return (await shop.ask("GET", f"/reports/{report}"))["progress"]


@pytest.mark.long
async def test_orders_survive_a_kill_of_their_worker(
    server: EmbeddedServer, redis: Redis, start: Callable[..., Shop], tmp_path: Path
) -> None:
    """Each is completed once by the next worker, wherever it was."""
    path, tasks = tmp_path / "shop.db", Queue(redis, Keys("shop", "shop:results"))
    env = {"REDIS_URL": server.url, "SHOP_DATABASE": str(path)}
    shop = await start(**env, WORKERS_MODE="standalone").opened()
    workers: list[CommandProcess] = []

    def hire() -> CommandProcess:
        workers.append(CommandProcess("run", "examples.shop.tasks:queue", "-c", "4", env=env))
        return workers[-1]

    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as database:

            def count(rows: str) -> int:
                return int(database.execute(f"SELECT COUNT(*) FROM {rows}").fetchone()[0])

            first = hire()
            ids = [str(number) for number in range(8)]
            for id in ids[:4]:
                await shop.order(id, "ink", 2)
            await wait_until(lambda: count("orders WHERE state = 'charged'"))
            database.execute("BEGIN IMMEDIATE")  # no step can be completed now
            for id in ids[4:]:
                await shop.order(id, "ink", 2)
            await wait_until(tasks.inflight)
            first.kill()
            database.execute("ROLLBACK")
            assert count("orders") < len(ids)
            second = hire()
            assert [await shop.states(id) for id in ids] == [["succeeded"] * 3] * len(ids)
            assert count("orders WHERE state = 'charged'") == count("mails") == len(ids)
        assert await shop.ask("GET", "/stock") == {"ink": 4, "paper": 100, "pen": 500}
        assert set((await tasks.ledger()).values()) == {1}
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0
    finally:
        for worker in workers:
            worker.close()
    await shop.end(signal.SIGTERM)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
async def test_the_page_shows_orders_and_a_report_that_is_cancelled(start: Callable[..., Shop]) -> None:
    expect.set_options(timeout=PATIENCE * 1000)
    shop = await start().opened()
    problems: list[str] = []
    async with browser() as running, context(running) as window:
        page = await window.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda sent: None if "127.0.0.1" in sent.url else problems.append(f"asked for {sent.url}"))
        await page.goto(shop.address)
        for number, item in ((2, "pen"), (21, "ink")):
            await page.get_by_label("Item").select_option(item)
            await page.get_by_label("Number").fill(str(number))
            await page.get_by_role("button", name="Order").click()
        orders = page.locator("#orders > li")
        await expect(orders.nth(0).locator(".failed")).to_have_count(3)
        await expect(orders.nth(0)).to_contain_text(TOO_MUCH_INK)
        await expect(orders.nth(1).locator(".succeeded")).to_have_count(3)
        await expect(page.locator("#stock")).to_contain_text("498 pen")

        await page.get_by_role("button", name="Start").click()
        await page.wait_for_function("document.querySelector('#progress').value > 0")
        await page.reload()  # the tasks are shown again
        await expect(orders).to_have_count(2)
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.locator("#report")).to_have_text("cancelled")
        await expect(page.get_by_role("button", name="Start")).to_be_enabled()
    assert problems == []
    await shop.end(signal.SIGTERM)


async def test_the_functions_without_a_server(tmp_path: Path) -> None:
    """A service that copies the example tests its functions so."""
    with closing(Database(tmp_path / "shop.db")) as database, queue.testing(resources=database):
        await place("1", Order(customer="ann@example.com", item="pen", number=2))
        await place("2", Order(customer="ann@example.com", item="ink", number=21))
        assert [await handle.status() for handle in steps("1").values()] == ["succeeded"] * 3
        assert [await handle.status() for handle in steps("2").values()] == ["failed"] * 3
        assert database.stock() == {"ink": 20, "paper": 100, "pen": 498}
