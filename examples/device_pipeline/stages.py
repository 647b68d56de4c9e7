"""The stages of the pipeline, and its sinks. Each stage takes whole batches: a call for each message would cost more
than its work.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from examples.device_pipeline.messages import DeviceStatus, LegacyReading, Measurement, Reading, Rows
from examples.device_pipeline.settings import Anomalies, Settings
from redis_worker import BroadcastSink, CacheSink
from redis_worker.pipeline import Emit, Formats, Pipeline, Rejected, Sinks, Window, Windows, stage

# Degrees Celsius from another unit: a factor, and what is added.
_CELSIUS = {"C": (1.0, 0.0), "F": (1 / 1.8, -32 / 1.8), "K": (1.0, -273.15)}
# The weight of a new reading in a device's mean and variance.
_WEIGHT = 0.05
_ABSOLUTE_ZERO, _HOTTEST = -273.15, 1000.0
# Seconds by which the clock of a device may be ahead.
_AHEAD = 60.0
# Rows that are written together: the state of a device is one of them, however many messages it has sent.
_TOGETHER = 5000
_DEVICE = re.compile("[A-Za-z0-9_-]{1,64}")


@stage(batch=True)
def convert(messages: list[LegacyReading | Measurement | DeviceStatus]) -> list[Reading | DeviceStatus]:
    """Return readings in degrees Celsius and seconds."""
    converted: list[Reading | DeviceStatus] = []
    for message in messages:
        if isinstance(message, Measurement):
            factor, added = _CELSIUS[message.unit]
            converted.append(Reading(message.device, message.temperature * factor + added, message.at))
        elif isinstance(message, LegacyReading):
            converted.append(Reading(message.device_id, (message.temp_f - 32) / 1.8, message.ts / 1000))
        else:
            converted.append(message)
    return converted


@dataclass(slots=True)
class Device:
    """What is known of a device: the time of its newest message, and its usual temperature."""

    newest: float = 0.0
    mean: float = 0.0
    variance: float = 0.0
    readings: int = 0


class Devices:
    """The stages that share the state of devices. A device's messages are in one partition, and so in one process."""

    def __init__(self, anomalies: Anomalies) -> None:
        self._anomalies = anomalies
        self._devices: dict[str, Device] = {}
        self._minutes = Windows(
            "1m", key=lambda reading: reading.device, at=lambda reading: reading.at, add=_add, lateness="2s"
        )
        self.alerts = 0

    @stage(batch=True)
    def validate(self, values: list[Reading | DeviceStatus]) -> list[Reading | DeviceStatus | Rejected]:
        """Reject what no device sends."""
        devices, latest = self._devices, time.time() + _AHEAD
        checked: list[Reading | DeviceStatus | Rejected] = []
        for value in values:
            if isinstance(value, Reading) and not _ABSOLUTE_ZERO <= value.celsius <= _HOTTEST:
                checked.append(Rejected(f"{value.celsius:g} °C is not possible", field="temperature"))
            elif not 0 < value.at < latest:
                checked.append(Rejected(f"{value.at:g} is not a time up to now", field="at"))
            elif value.device not in devices and not _DEVICE.fullmatch(value.device):
                checked.append(Rejected("it must be 1 to 64 letters, digits, _ or -", field="device"))
            else:
                checked.append(value)
        return checked

    @stage(batch=True)
    def detect(self, values: list[Reading | DeviceStatus]) -> list[Reading | DeviceStatus]:
        """Compare readings with the limits, and with what their devices usually send."""
        devices, limits, deviation = self._devices, self._anomalies, self._anomalies.deviation**2
        for value in values:
            device = devices.get(value.device)
            if device is None:
                device = devices[value.device] = Device()
            if not isinstance(value, Reading):
                continue
            celsius = value.celsius
            if not limits.lowest <= celsius <= limits.highest:
                value.alerts += (_beyond(value, limits),)
            if not device.readings:
                device.mean = celsius
            away = celsius - device.mean
            if device.readings >= limits.learned and away * away > deviation * max(device.variance, 0.01):
                value.alerts += (_unusual(value, device.mean),)
            else:
                device.mean += _WEIGHT * away
                device.variance = (1 - _WEIGHT) * (device.variance + _WEIGHT * away * away)
            device.readings += 1
        return values

    @stage(batch=True)
    def aggregate(self, values: list[Reading | DeviceStatus]) -> list[Rows]:
        """Return the rows of each sink. Nothing after it can fail: the readings are in their minutes.

        Of the readings of a device in a batch only the newest is its latest state, and so is the newest status.
        """
        rows: list[Rows] = [{} for _ in values]
        latest: dict[tuple[type, str], int] = {}
        for index, value in enumerate(values):
            device = self._devices[value.device]
            if value.at >= device.newest:
                device.newest = value.at
                latest[type(value), value.device] = index
        for index in latest.values():
            rows[index]["latest"] = rows[index]["data"] = _state(values[index])
        readings = [(index, value) for index, value in enumerate(values) if isinstance(value, Reading)]
        for (index, reading), ended in zip(readings, self._minutes.batch([each for _, each in readings]), strict=True):
            if reading.alerts:
                self.alerts += len(reading.alerts)
                rows[index]["alerts"] = list(reading.alerts)
            if ended and isinstance(ended, Emit):
                rows[index]["minutes"] = [_minute(window) for window in ended]
        return rows


def device_pipeline(settings: Settings) -> tuple[Pipeline, Devices]:
    """Return the pipeline, and the state of its stages."""
    devices = Devices(settings.anomalies)
    parse = Formats(LegacyReading, Measurement, DeviceStatus)
    stages = (parse, convert, devices.validate, devices.detect, devices.aggregate)
    return Pipeline(*stages, name="device_pipeline"), devices


def sinks(redis: str, settings: Settings) -> Sinks:
    """Return the sinks: the latest state and the minutes of each device, and events for clients."""
    ttl = settings.redis.ttl
    return Sinks(
        latest=CacheSink(redis, "device:{device}", ttl=ttl, batch_size=_TOGETHER),
        minutes=CacheSink(redis, "device:{device}:{minute}", ttl=ttl, form="json", batch_size=_TOGETHER),
        data=BroadcastSink(redis, "device.{device}", newest=True, batch_size=_TOGETHER),
        alerts=BroadcastSink(redis, "alerts", batch_size=_TOGETHER),
    )


@dataclass(slots=True)
class Minute:
    """The readings of a device in a minute."""

    lowest: float
    highest: float
    total: float


def _add(minute: Minute | None, reading: Reading) -> Minute:
    celsius = reading.celsius
    if minute is None:
        return Minute(celsius, celsius, celsius)
    if celsius < minute.lowest:
        minute.lowest = celsius
    elif celsius > minute.highest:
        minute.highest = celsius
    minute.total += celsius
    return minute


def _state(value: Reading | DeviceStatus) -> Rows:
    if isinstance(value, Reading):
        return {"device": value.device, "celsius": round(value.celsius, 3), "at": value.at}
    return {"device": value.device, "battery": value.battery, "at": value.at}


def _minute(window: Window) -> Rows:
    value: Minute = window.value
    return {
        "device": window.key,
        "minute": int(window.start),
        "lowest": round(value.lowest, 3),
        "highest": round(value.highest, 3),
        "mean": round(value.total / window.added, 3),
        "readings": window.added,
        "partial": window.partial,
    }


def _beyond(reading: Reading, limits: Anomalies) -> Rows:
    text = f"{reading.celsius:.1f} °C is not {limits.lowest:g} to {limits.highest:g} °C"
    return _alert(reading, "threshold", text)


def _unusual(reading: Reading, mean: float) -> Rows:
    return _alert(reading, "deviation", f"{reading.celsius:.1f} °C, usually about {mean:.1f} °C")


def _alert(reading: Reading, kind: str, text: str) -> Rows:
    return {
        "device": reading.device,
        "kind": kind,
        "text": text,
        "celsius": round(reading.celsius, 3),
        "at": reading.at,
    }
