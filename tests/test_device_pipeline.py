"""The example of a device pipeline: its stages, its metrics, its page in a browser, and its run."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from examples.device_pipeline.page import latest_states
from examples.device_pipeline.settings import FILE, Simulator, read_settings
from examples.device_pipeline.simulator import Devices, messages
from examples.device_pipeline.stages import device_pipeline
from redis_worker import ConfigurationError
from redis_worker.embedded import EmbeddedServer
from tests.browser import CHROMIUM, browser, context
from tests.kafka.kafka_support import KafkaTopic
from tests.kafka.real_broker import RealKafka
from tests.support import PATIENCE, ROOT, CommandProcess, wait_until

NOW = time.time() // 1 - 600


def measured(celsius: float, at: float = NOW, device: str = "d1") -> bytes:
    return orjson.dumps({"type": "measurement", "device": device, "temperature": celsius, "unit": "C", "at": at})


async def test_formats_and_units_become_one_row() -> None:
    pipeline, _ = device_pipeline(read_settings())
    fahrenheit = orjson.dumps({"type": "measurement", "device": "d1", "temperature": 70.7, "unit": "F", "at": NOW})
    kelvin = orjson.dumps({"type": "measurement", "device": "d1", "temperature": 294.65, "unit": "K", "at": NOW})
    legacy = orjson.dumps({"device_id": "d1", "temp_f": 70.7, "ts": int(NOW * 1000)})
    for raw in (measured(21.5), fahrenheit, kelvin, legacy):
        [entry] = await pipeline.run([raw])
        assert entry["data"]["celsius"] == 21.5
        assert abs(entry["data"]["at"] - NOW) < 0.01
    [status] = await pipeline.run([orjson.dumps({"type": "status", "device": "d1", "battery": 7, "at": NOW + 1})])
    assert status["latest"] == status["data"] == {"device": "d1", "battery": 7, "at": NOW + 1}


async def test_anomalies_are_alerts_and_old_readings_no_state() -> None:
    pipeline, state = device_pipeline(read_settings())
    chance = random.Random(1)
    usual = [measured(20 + chance.gauss(0, 0.3), NOW + n) for n in range(100)]
    assert not any("alerts" in entry for entry in await pipeline.run(usual))
    entries = await pipeline.run([measured(25, NOW + 100), measured(99, NOW + 101), measured(20, NOW + 5)])
    assert [[alert["kind"] for alert in entry.get("alerts", [])] for entry in entries] == [
        ["deviation"],
        ["threshold", "deviation"],
        [],
    ]
    # Of a batch, only the newest reading of a device is its latest state.
    assert ["latest" in entry for entry in entries] == [False, True, False]
    assert state.alerts == 3


async def test_minutes_are_aggregated_by_device() -> None:
    pipeline, _ = device_pipeline(read_settings())
    start = NOW // 60 * 60 + 60
    entries = await pipeline.run([measured(n, start + n, "d2") for n in range(20, 130, 10)])
    minutes = [minute for entry in entries for minute in entry.get("minutes", [])]
    assert minutes == [
        {"device": "d2", "minute": int(start), "lowest": 20.0, "highest": 50.0, "mean": 35.0, "readings": 4,
         "partial": True},
    ]  # fmt: skip


async def test_every_message_of_the_simulator_is_valid_or_rejected() -> None:
    pipeline, state = device_pipeline(read_settings())
    source = messages(Simulator(devices=3, invalid=0.1, anomalous=0.01), random.Random(2))
    sent = [next(source) for _ in range(2000)]
    entries = await pipeline.run([message.value for message in sent])
    assert [isinstance(entry, Exception) for entry in entries] == [message.at is None for message in sent]
    assert state.alerts > 5


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"sticky"', '"range"', "kafka.assignment"),
        ("max_poll_records = 500", 'max_poll_records = "x"', "kafka.max_poll_records"),
        ("enable_auto_commit = false", "enable_auto_commit = true", "kafka.enable_auto_commit"),
        ('session_timeout = "30s"', 'session_timeout = "soon"', "session_timeout"),
        ("[pool]", "[pol]", "pol"),
    ],
)
def test_a_wrong_setting_is_one_sentence(tmp_path: Path, old: str, new: str, reason: str) -> None:
    file = tmp_path / "p.toml"
    file.write_text(FILE.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigurationError, match=reason):
        read_settings(file)


@contextmanager
def example(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.device_pipeline", "--port", "0", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def closing_line(process: subprocess.Popen[str]) -> re.Match[str]:
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, out + errors
    assert not errors
    found = re.fullmatch(r"messages (\d+), rate (\d+)/s, alerts (\d+), lost 0", out.splitlines()[-1])
    assert found, out
    return found


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
        return str(answer.read().decode())


async def test_the_run_loses_nothing_and_shows_its_metrics() -> None:
    with example("--rate", "300") as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[-1]
        expected = (
            'kafka_consumer_messages_consumed_total{partition="0",topic="device-data"}',
            'kafka_consumer_lag_messages{partition="0",topic="device-data"}',
            "kafka_consumer_active_partitions 4.0",
        )
        none_rejected = 'processing_errors_total{kind="rejected",stage="parse"} 0.0'

        def shown() -> str:
            """The metrics, once all of them are there."""
            text = get(address)
            return text if none_rejected not in text and all(line in text for line in expected) else ""

        text = await wait_until(shown, "the metrics")
        process.send_signal(signal.SIGINT)
        assert int(closing_line(process)[1]) > 100
    bounds = re.findall(r'kafka_consumer_processing_duration_seconds_bucket\{le="(.*?)"\}', text)
    assert (bounds[0], bounds[-2:]) == ("0.001", ["1.0", "+Inf"])


async def test_a_browser_shows_the_devices_live() -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: install Debian's chromium, or set CHROMIUM")
    with example() as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        async with browser() as running, context(running, width=380) as window:
            errors: list[Any] = []
            page = await window.new_page()
            page.on("pageerror", lambda error: errors.append(str(error)))
            await page.goto(address)
            await page.wait_for_function("document.querySelectorAll('.device').length === 12")
            await page.wait_for_function("document.getElementById('state').textContent === 'live'")
            before = await page.text_content("#device-d03 .celsius")
            await page.wait_for_function(
                "before => document.querySelector('#device-d03 .celsius').textContent !== before", arg=before
            )
            await page.wait_for_function("document.querySelectorAll('#alerts li').length > 0", timeout=60_000)
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            process.send_signal(signal.SIGTERM)
            closing_line(process)
            await page.wait_for_function("document.getElementById('state').textContent.startsWith('connection lost')")
        assert errors == []


@pytest.mark.long
@pytest.mark.parametrize(("session", "restarted"), [("4s", False), ("30s", True)])
async def test_of_three_consumers_one_is_killed_and_nothing_is_lost(
    real_kafka: RealKafka, first_server: EmbeddedServer, tmp_path: Path, session: str, restarted: bool
) -> None:
    """Others take its partitions after the session timeout; a static member that starts again has them before that."""
    topic, file = KafkaTopic.on(real_kafka), tmp_path / "pipeline.toml"
    text = FILE.read_text(encoding="utf-8").replace('"device-pipeline"', f'"{topic.name}"')
    text = text.replace('["device-data"]', f'["{topic.name}"]').replace(
        'session_timeout = "30s"', f'session_timeout = "{session}"'
    )
    file.write_text(text.replace('heartbeat_interval = "3s"', 'heartbeat_interval = "500ms"'), encoding="utf-8")

    def start(number: int) -> CommandProcess:
        instance = ("--instance", f"i{number}") if restarted else ()
        command = (topic.brokers, first_server.url, "--config", str(file), *instance)
        return CommandProcess(*command, program="examples.device_pipeline.consumer")

    consumers = [start(number) for number in range(3)]
    devices, stop = Devices(topic.brokers, topic.name, Simulator(rate=500, invalid=0.02)), asyncio.Event()
    sending = asyncio.create_task(devices.run(stop))
    try:
        await wait_until(lambda: all(topic.committed()))
        consumers[0].kill()
        if restarted:
            consumers.append(start(0))
        at_kill = devices.sent
        await wait_until(lambda: sum(topic.committed()) > at_kill)
        stop.set()
        await sending
        await wait_until(lambda: sum(topic.committed()) == devices.sent, "the recovery")
        for process in consumers[1:]:
            process.process.terminate()
            assert await process.ended() == 0
    finally:
        sending.cancel()
        for process in consumers:
            process.close()
    async with Redis.from_url(first_server.url) as redis:
        states = await latest_states(redis)
        await redis.flushall()
    assert {device: float(state["at"]) for device, state in states.items()} == devices.latest
    assert len(topic.dead_letters(devices.invalid)) >= devices.invalid > 0
