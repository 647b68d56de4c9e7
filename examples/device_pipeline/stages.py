"""The stages of the pipeline, and its sinks."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from examples.device_pipeline.messages import DeviceStatus, LegacyReading, Measurement, Reading
from examples.device_pipeline.settings import Anomalies, Settings
from redis_worker import BroadcastSink, CacheSink
from redis_worker.pipeline import Formats, Pipeline, Rejected, Sinks, Window, Windows

# The weight of a new reading in a device's mean and variance.
_WEIGHT = 0.05
_ABSOLUTE_ZERO, _HOTTEST = -273.15, 1000.0
# Seconds by which the clock of a device may be ahead.
_AHEAD = 60.0

Rows = dict[str, Any]


class Observed(NamedTuple):
    """A reading, and the alerts that it raises."""

    reading: Reading
    alerts: list[Rows]


@dataclass(slots=True)
class _Usual:
    """The usual temperature of a device."""

    mean: float
    variance: float = 0.0
    readings: int = 1


@dataclass(slots=True)
class Aggregate:
    """The readings of a device in a minute."""

    lowest: float
    highest: float
    total: float = 0.0
    readings: int = 0

    def add(self, celsius: float) -> None:
        """Add a reading."""
        self.lowest, self.highest = min(self.lowest, celsius), max(self.highest, celsius)
        self.total += celsius
        self.readings += 1


@dataclass(slots=True)
class Devices:
    """The state that stages share. A device's messages are in one partition, and so in one process."""

    anomalies: Anomalies
    usual: dict[str, _Usual] = field(default_factory=dict)
    newest: dict[str, float] = field(default_factory=dict)
    alerts: int = 0

    def detect(self, value: Reading | DeviceStatus) -> Observed | DeviceStatus:
        """Compare a reading with the limits, and with what the device usually sends."""
        if isinstance(value, DeviceStatus):
            return value
        limits, celsius, alerts = self.anomalies, value.celsius, list[Rows]()
        if not limits.lowest <= celsius <= limits.highest:
            alerts.append(
                _alert(value, "threshold", f"{celsius:.1f} °C is not {limits.lowest:g} to {limits.highest:g} °C")
            )
        usual = self.usual.get(value.device)
        if usual is None:
            self.usual[value.device] = _Usual(celsius)
            return Observed(value, alerts)
        away = celsius - usual.mean
        if usual.readings >= limits.learned and away * away > limits.deviation**2 * max(usual.variance, 0.01):
            alerts.append(_alert(value, "deviation", f"{celsius:.1f} °C, usually about {usual.mean:.1f} °C"))
        else:
            usual.mean += _WEIGHT * away
            usual.variance = (1 - _WEIGHT) * (usual.variance + _WEIGHT * away * away)
        usual.readings += 1
        return Observed(value, alerts)

    def is_newest(self, device: str, at: float) -> bool:
        """Return True unless a later message of the device came before."""
        if at < self.newest.get(device, 0.0):
            return False
        self.newest[device] = at
        return True


def convert(message: LegacyReading | Measurement | DeviceStatus) -> Reading | DeviceStatus:
    """Return a reading in degrees Celsius and seconds."""
    match message:
        case LegacyReading():
            return Reading(message.device_id, (message.temp_f - 32) / 1.8, message.ts / 1000)
        case Measurement(unit="F"):
            return Reading(message.device, (message.temperature - 32) / 1.8, message.at)
        case Measurement(unit="K"):
            return Reading(message.device, message.temperature - 273.15, message.at)
        case Measurement():
            return Reading(message.device, message.temperature, message.at)
    return message


def validate(value: Reading | DeviceStatus) -> Reading | DeviceStatus:
    """Reject what no device measures."""
    if isinstance(value, Reading) and not _ABSOLUTE_ZERO <= value.celsius <= _HOTTEST:
        raise Rejected(f"{value.celsius:g} °C is not possible", field="temperature")
    if not 0 < value.at < time.time() + _AHEAD:
        raise Rejected(f"{value.at:g} is not a time up to now", field="at")
    return value


def device_pipeline(settings: Settings) -> tuple[Pipeline, Devices]:
    """Return the pipeline, and the state of its stages."""
    devices = Devices(settings.anomalies)
    minutes = Windows("1m", key=lambda reading: reading.device, at=lambda reading: reading.at, add=_add, lateness="2s")

    def aggregate(value: Observed | DeviceStatus) -> Rows:
        """Return the rows of each sink. Nothing after it can fail: the reading is in its minute."""
        if isinstance(value, DeviceStatus):
            row = {"device": value.device, "battery": value.battery, "at": value.at}
            return {"latest": row if devices.is_newest(value.device, value.at) else None, "data": row}
        reading = value.reading
        row = {"device": reading.device, "celsius": round(reading.celsius, 3), "at": reading.at}
        rows: Rows = {"latest": row if devices.is_newest(reading.device, reading.at) else None, "data": row}
        if value.alerts:
            devices.alerts += len(value.alerts)
            rows["alerts"] = value.alerts
        if ended := minutes.add(reading):
            rows["minutes"] = [_minute(window) for window in ended]
        return rows

    stages = (Formats(LegacyReading, Measurement, DeviceStatus), convert, validate, devices.detect, aggregate)
    return Pipeline(*stages, name="device_pipeline"), devices


def sinks(redis: str, settings: Settings) -> Sinks:
    """Return the sinks: the latest state and the minutes of each device, and events for clients."""
    return Sinks(
        latest=CacheSink(redis, "device:{device}", ttl=settings.redis.ttl),
        minutes=CacheSink(redis, "device:{device}:{minute}", ttl=settings.redis.ttl, form="json"),
        data=BroadcastSink(redis, "device.{device}", newest=True),
        alerts=BroadcastSink(redis, "alerts"),
    )


def _add(before: Aggregate | None, reading: Reading) -> Aggregate:
    aggregate = before or Aggregate(reading.celsius, reading.celsius)
    aggregate.add(reading.celsius)
    return aggregate


def _minute(window: Window) -> Rows:
    value: Aggregate = window.value
    return {
        "device": window.key,
        "minute": int(window.start),
        "lowest": round(value.lowest, 3),
        "highest": round(value.highest, 3),
        "mean": round(value.total / value.readings, 3),
        "readings": value.readings,
        "partial": window.partial,
    }


def _alert(reading: Reading, kind: str, text: str) -> Rows:
    return {
        "device": reading.device,
        "kind": kind,
        "text": text,
        "celsius": round(reading.celsius, 3),
        "at": reading.at,
    }
