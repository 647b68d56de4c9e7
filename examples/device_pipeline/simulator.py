"""Devices that do not exist: they send readings in both formats, and now and then nonsense."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson
from confluent_kafka import KafkaError, Message, Producer

from examples.device_pipeline.settings import Simulator
from redis_worker import RedisWorkerError

# Seconds between two bursts.
_TICK = 0.05
_NONSENSE = (
    b"not JSON",
    b'{"device_id":"d00","temp_f":"warm","ts":1}',
    b'{"type":"measurement","device":"d00","temperature":20,"unit":"X","at":1}',
    b'{"type":"measurement","device":"d00","temperature":-400,"unit":"C","at":1}',
    b'{"type":"measurement","device":"d00","temperature":20,"unit":"C","at":9e12}',
)


class Sent(NamedTuple):
    """A message to send."""

    device: str
    value: bytes
    at: float | None
    """Its time; None for nonsense."""


class Devices:
    """A producer of the messages of all devices."""

    def __init__(self, brokers: str, topic: str, settings: Simulator, seed: int = 1) -> None:
        self.sent = 0
        """Messages that Kafka has acknowledged."""
        self.invalid = 0
        """Those of them that must become dead letters."""
        self.latest: dict[str, float] = {}
        """The time of the last valid message of each device."""
        self._topic, self._settings = topic, settings
        self._refused: KafkaError | None = None
        self._messages = messages(settings, random.Random(seed))
        properties = {"bootstrap.servers": brokers, "log_level": 0, "linger.ms": 5, "enable.idempotence": True}
        self._producer = Producer(properties)

    async def run(self, stop: asyncio.Event) -> None:
        """Send at the rate of the settings until `stop`. Raises RedisWorkerError if Kafka refuses messages."""
        begun, count = time.monotonic(), 0
        while not stop.is_set() and self._refused is None:
            due = int((time.monotonic() - begun) * self._settings.rate) - count
            for _ in range(due):
                self._send(next(self._messages))
            count += due
            self._producer.poll(0)
            await asyncio.sleep(_TICK)
        await asyncio.to_thread(self._producer.flush, 30)
        if self._refused is not None:
            raise RedisWorkerError(f"Kafka refuses messages: {self._refused.str()}")

    def _send(self, message: Sent) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._refused = error
                return
            self.sent += 1
            if message.at is None:
                self.invalid += 1
            else:
                self.latest[message.device] = max(message.at, self.latest.get(message.device, 0.0))

        try:
            self._producer.produce(self._topic, message.value, message.device, on_delivery=delivered)
        except BufferError:  # the queue is full: a device would wait as well
            self._producer.poll(0.1)


def messages(settings: Simulator, chance: random.Random) -> Iterator[Sent]:
    """Yield messages without end."""
    devices = [f"d{number:02}" for number in range(settings.devices)]
    phases = {device: chance.uniform(0, 6) for device in devices}
    while True:
        device, at, kind = chance.choice(devices), time.time(), chance.random()
        if kind < settings.invalid:
            yield Sent(device, chance.choice(_NONSENSE), None)
            continue
        if kind < settings.invalid + settings.status:
            value: dict[str, Any] = {"type": "status", "device": device, "battery": chance.randint(5, 100), "at": at}
            yield Sent(device, orjson.dumps(value), at)
            continue
        celsius = 20 + 5 * math.sin(at / 20 + phases[device]) + chance.gauss(0, 0.4)
        if chance.random() < settings.anomalous:
            celsius += chance.choice((-75, 30, 80))
        if chance.random() < settings.legacy:
            milliseconds = int(at * 1000)
            value = {"device_id": device, "temp_f": round(celsius * 1.8 + 32, 2), "ts": milliseconds}
            at = milliseconds / 1000
        else:
            unit = chance.choice("CFK")
            shown = {"C": celsius, "F": celsius * 1.8 + 32, "K": celsius + 273.15}[unit]
            value = {"type": "measurement", "device": device, "temperature": round(shown, 2), "unit": unit, "at": at}
        yield Sent(device, orjson.dumps(value), at)
