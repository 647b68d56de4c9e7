"""The example of a shop: python -m examples.shop."""

from __future__ import annotations

import json
import re
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import CommandProcess, wait_until


@pytest.fixture
def shop() -> Iterator[CommandProcess]:
    process = CommandProcess("--port", "0", program="examples.shop")
    yield process
    process.close()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_orders_are_charged_and_reported(shop: CommandProcess, end: signal.Signals) -> None:
    await shop.said("Uvicorn running on")
    found = re.search(r"http://127.0.0.1:\d+", shop.log)
    assert found
    address = found[0]

    def call(path: str, content: Any = None) -> Any:
        data = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    orders = [{"pen": 2}, {"paper": 1, "ink": 1}, {"sword": 1}]
    ids = [call("/orders", {"customer": "ann@example.com", "items": items})["id"] for items in orders]
    await wait_until(lambda: all(call(f"/orders/{id}")["state"] != "pending" for id in ids))
    assert [call(f"/orders/{id}") for id in ids] == [
        {"state": "succeeded", "price": "2.4"},
        {"state": "succeeded", "price": "14.4"},
        {"state": "failed", "error": "Processing error: the shop does not sell sword"},
    ]
    await wait_until(lambda: call("/report") == {"orders": 2, "total": "16.8", "receipts": 2})
    with pytest.raises(urllib.error.HTTPError, match="422"):
        call("/orders", {"items": 7})
    assert call("/orders/unknown") == {"state": "pending"}
    shop.signal(end)
    await wait_until(lambda: not shop.alive)
    assert shop.process.returncode == 0
    assert "Traceback" not in shop.log
